"""Ratio matching: the critic's exponential is fitted to the density ratio in a Bregman divergence."""

from __future__ import annotations

import math
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan.objectives._tangent import LIMIT, exp_tangent
from pyro_gan.objectives.up_to_constant import UpToConstant
from pyro_gan.objectives.variational import Divergence

__all__ = ["BKL", "KLIEP", "LSIF", "UKL"]


@final
class LSIF(Divergence):
    r"""Least-squares importance fitting of :math:`r = e^v`: :math:`\tfrac12 E_G(e^v - r)^2`; :math:`\log r = v`.

    Up to a constant that is :math:`\tfrac12 E_G e^{2v} - E_{data} e^v`, the Bregman divergence of
    :math:`f(u) = \tfrac12 (u - 1)^2`, which is what :math:`-E_{data} f'(r) + E_G[r f'(r) - f(r)]`, the loss of
    `Divergence` with :math:`T = f'(e^v)`, comes to. It cares for the ratio where it is large, and hardly for its log
    where it is small.

    References:
        A Least-squares Approach to Direct Importance Estimation, T. Kanamori, S. Hido and M. Sugiyama, 2009,
        https://www.jmlr.org/papers/v10/kanamori09a.html;
        Density Ratio Matching under the Bregman Divergence, M. Sugiyama, T. Suzuki and T. Kanamori, 2012,
        https://doi.org/10.1007/s10463-011-0343-8

    Example:
        >>> import torch
        >>> LSIF().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    _reward_range = (-math.inf, LIMIT)

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of 1 - exp(v)."""
        return 1 - exp_tangent(output).mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of (exp(2 v) - 1) / 2."""
        return (exp_tangent(2 * output, 2 * LIMIT).mean() - 1) / 2


@final
class UKL(Divergence):
    r"""The unnormalised Kullback-Leibler divergence: :math:`E_G e^v - E_{data} v`; :math:`\log r = v`.

    The Bregman divergence of :math:`f(u) = u \log u - u`, which needs no constraint on the ratio's mean; its minimum
    is :math:`1 - KL(p_{data} \| p_G)`. The same losses as `KL` with the output moved by 1. The generator:
    `Divergence`.

    References:
        Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk Minimization, X. Nguyen,
        M. Wainwright and M. Jordan, 2010, https://arxiv.org/abs/0809.0853

    Example:
        >>> import torch
        >>> UKL().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(1.)
    """

    _reward_range = (-math.inf, LIMIT)

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of exp(v)."""
        return exp_tangent(output).mean()


@final
class KLIEP(UpToConstant):
    r"""The Kullback-Leibler importance estimation procedure; :math:`\log r = v - \log E_G e^v`.

    `UKL` under the constraint that the ratio has mean 1 over generated data. With :math:`r = e^v / E_G e^v` the
    critic minimises :math:`-E_{data} v + \log E_G e^v`, the same as `DonskerVaradhan`. The constant, the bias and the
    cure: `UpToConstant`.

    References:
        Direct Importance Estimation with Model Selection and Its Application to Covariate Shift Adaptation,
        M. Sugiyama et al., 2007,
        https://papers.nips.cc/paper/2007/hash/be83ab3ecd0db773eb2dc1b0a17836a1-Abstract.html

    Example:
        >>> import torch
        >>> KLIEP().critic_loss(torch.full((3,), 7.0), torch.full((5,), 7.0))
        tensor(0.)
    """


@final
class BKL(Divergence):
    r"""The binary Kullback-Leibler divergence, logistic regression; :math:`\log r = v`.

    The Bregman divergence of :math:`f(u) = u \log u - (1 + u) \log(1 + u)`. The critic minimises
    :math:`E_{data} \mathrm{sp}(-v) + E_G \mathrm{sp}(v)`: `Bernoulli` at even prior, twice.

    References:
        Density Ratio Matching under the Bregman Divergence, M. Sugiyama, T. Suzuki and T. Kanamori, 2012,
        https://doi.org/10.1007/s10463-011-0343-8

    Example:
        >>> import torch
        >>> BKL().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(1.3863)
    """

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of softplus(-v)."""
        return softplus(-output).mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of softplus(v)."""
        return softplus(output).mean()
