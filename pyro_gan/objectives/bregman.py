"""Ratio matching: the critic's exponential is fitted to the density ratio in a Bregman divergence."""

from __future__ import annotations

import math
from typing import final

from pyro_gan.objectives.base import Outputs, Scalar
from pyro_gan.objectives.divergences import GAN
from pyro_gan.objectives.tangent import LIMIT, exp_tangent
from pyro_gan.objectives.up_to_constant import DonskerVaradhan
from pyro_gan.objectives.variational import Divergence

__all__ = ["BKL", "KLIEP", "LSIF", "UKL"]

#: The binary Kullback-Leibler divergence is f-GAN's GAN: the same losses and the same log ratio.
BKL = GAN
#: The Kullback-Leibler importance estimation procedure is the Donsker-Varadhan bound: the same losses.
KLIEP = DonskerVaradhan


@final
class LSIF(Divergence):
    r"""Least-squares importance fitting of :math:`r = e^v`: :math:`\tfrac12 E_G(e^v - r)^2`; :math:`\log r = v`.

    Up to a constant that is :math:`\tfrac12 E_G e^{2v} - E_{data} e^v`, the Bregman divergence of
    :math:`f(u) = \tfrac12 (u - 1)^2`. It equals the loss of `Divergence` with :math:`T = f'(e^v)`, which is
    :math:`-E_{data} f'(r) + E_G[r f'(r) - f(r)]`. The value at output v is half that of `Pearson` at output
    :math:`2 (e^v - 1)`. It fits the ratio where
    the ratio is large, and hardly fits its logarithm where the ratio is small.

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

    reward_range = (-math.inf, LIMIT)
    corrects = ("generated",)

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of 1 - exp(v)."""
        return 1 - exp_tangent(output).mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of (exp(2 v) - 1) / 2."""
        return (exp_tangent(2 * output, 2 * LIMIT).mean() - 1) / 2


@final
class UKL(Divergence):
    r"""The unnormalised Kullback-Leibler divergence: :math:`E_G e^v - E_{data} v`; :math:`\log r = v`.

    The Bregman divergence of :math:`f(u) = u \log u - u`, which needs no constraint on the ratio's mean; its minimum
    is :math:`1 - KL(p_{data} \| p_G)`. The value at output v is that of `KL` at output v + 1, plus 1. `Divergence`
    describes the generator.

    References:
        Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk Minimization, X. Nguyen,
        M. Wainwright and M. Jordan, 2010, https://arxiv.org/abs/0809.0853

    Example:
        >>> import torch
        >>> UKL().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(1.)
    """

    reward_range = (-math.inf, LIMIT)

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(v)."""
        return exp_tangent(output).mean()
