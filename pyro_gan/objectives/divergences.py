"""f-GAN's divergences: the critic bounds each from below; at the optimum its output is a function of the ratio."""

from __future__ import annotations

import math
from typing import final

from torch.nn.functional import softplus

from pyro_gan.checks import tensor
from pyro_gan.objectives.base import Outputs, Scalar, no_log_ratio
from pyro_gan.objectives.tangent import LIMIT, exp_tangent
from pyro_gan.objectives.variational import Divergence

__all__ = ["GAN", "KL", "JensenShannon", "Neyman", "Pearson", "ReverseKL", "SquaredHellinger", "TotalVariation"]


@final
class KL(Divergence):
    r"""The Kullback-Leibler divergence :math:`KL(p_{data} \| p_G)`, :math:`f(u) = u \log u`; :math:`\log r = v - 1`.

    The critic minimises :math:`-E_{data} v + E_G e^{v - 1}`. The value at output v is that of `UKL` at output v - 1,
    minus 1. `Divergence` has the references and describes the generator.

    Example:
        >>> import torch
        >>> KL().critic_loss(torch.ones(3), torch.ones(5))
        tensor(0.)
    """

    reward_range = (-math.inf, 1 + LIMIT)
    offset = -1.0

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(v - 1)."""
        return exp_tangent(output - 1).mean()


@final
class ReverseKL(Divergence):
    r"""The divergence :math:`KL(p_G \| p_{data})`, :math:`f(u) = -\log u`; :math:`\log r = v`.

    The critic minimises :math:`E_{data} e^{-v} + E_G v - 1`. `Minimax` gives the generator :math:`-E_G v`, the log
    ratio itself, with gradient 1 at every output; the gradient of the default :math:`E_G e^{-v}` explodes where the
    critic rejects. `Divergence` has the references.

    Example:
        >>> import torch
        >>> ReverseKL().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    reward_range = (-LIMIT, math.inf)

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(-v)."""
        return exp_tangent(-output).mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of v - 1."""
        return output.mean() - 1


@final
class Pearson(Divergence):
    r"""Pearson's :math:`\chi^2`, :math:`f(u) = (u - 1)^2`; :math:`\log r = \log(1 + v / 2)` for :math:`v > -2`.

    The critic minimises :math:`-E_{data} v + E_G[v^2 / 4 + v]`. The value at output :math:`2 (e^u - 1)` is twice that
    of `LSIF` at output u. The output is linear in the ratio, and nothing keeps the output of a network
    above -2; at or below -2 it would stand for a ratio of 0 or less, and `log_ratio` raises. `Divergence` has the
    references and describes the generator.

    Example:
        >>> import torch
        >>> Pearson().log_ratio(torch.tensor([0.0, 2.0]))
        tensor([0.0000, 0.6931])
    """

    reward_range = (-math.inf, 2 * math.expm1(LIMIT))

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of v^2 / 4 + v."""
        return (output.square() / 4 + output).mean()

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return log(1 + v / 2).

        Raises:
            ValueError: if an output is -2 or less.
        """
        if bool((tensor("output", output) <= -2).any()):
            raise no_log_ratio(
                "Expected outputs above -2, where a Pearson critic has a log ratio; got values down to "
                f"{float(output.min()):.4g}, which stand for a ratio of 0 or less."
            )
        return (output / 2).log1p()

    def output(self, log_ratio: Outputs) -> Outputs:
        """Return 2 (r - 1), which continues as its tangent beyond 20 nats."""
        return 2 * (exp_tangent(tensor("log_ratio", log_ratio)) - 1)


@final
class Neyman(Divergence):
    r"""Neyman's :math:`\chi^2`, :math:`f(u) = (1 - u)^2 / u`; :math:`\log r = v / 2`.

    The critic minimises :math:`E_{data}[e^{-v} - 1] + E_G[2 - 2 e^{-v/2}]`. Samples have the weight :math:`1 / r^2`,
    so fits to finite data run away where those of other objectives do not: prefer any other objective. `Divergence` has
    the references and describes the generator.

    Example:
        >>> import torch
        >>> Neyman().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    reward_range = (-2 * LIMIT, math.inf)
    slope = 0.5
    corrects = ("real",)

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(-v) - 1."""
        return exp_tangent(-output, 2 * LIMIT).mean() - 1

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of 2 - 2 exp(-v / 2)."""
        return 2 - 2 * exp_tangent(-output / 2).mean()


@final
class SquaredHellinger(Divergence):
    r"""The squared Hellinger distance, :math:`f(u) = (\sqrt{u} - 1)^2`; :math:`\log r = 2 v`.

    The critic minimises :math:`E_{data}[e^{-v} - 1] + E_G[e^{v} - 1]`, which is bounded below on any data. The value
    at output v is twice that of `Exponential` at output 2 v, minus 2. `Divergence` has the references and describes the
    generator.

    Example:
        >>> import torch
        >>> SquaredHellinger().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    reward_range = (-LIMIT / 2, LIMIT / 2)
    slope = 2.0

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(-v) - 1."""
        return exp_tangent(-output, LIMIT / 2).mean() - 1

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(v) - 1."""
        return exp_tangent(output, LIMIT / 2).mean() - 1


@final
class JensenShannon(Divergence):
    r"""f-GAN's row "Jensen-Shannon", a bound of *twice* the Jensen-Shannon divergence; :math:`\log r = v`.

    The critic minimises :math:`E_{data}[\mathrm{sp}(-v) - \log 2] + E_G[\mathrm{sp}(v) - \log 2]`, with softplus
    :math:`\mathrm{sp}`: the loss of `GAN` minus :math:`\log 4`. `Divergence` has the references and describes the
    generator.

    Example:
        >>> import torch
        >>> JensenShannon().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of softplus(-v), minus log 2."""
        return softplus(-output).mean() - math.log(2)

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of softplus(v), minus log 2."""
        return softplus(output).mean() - math.log(2)


@final
class GAN(Divergence):
    r"""f-GAN's row "GAN", twice the Jensen-Shannon divergence minus :math:`\log 4`; :math:`\log r = v`.

    The critic minimises :math:`E_{data} \mathrm{sp}(-v) + E_G \mathrm{sp}(v)`, with softplus :math:`\mathrm{sp}`: twice
    the loss of `Bernoulli` at even prior. `BKL`, the binary Kullback-Leibler divergence, is this class by another name:
    the Bregman divergence of :math:`f(u) = u \log u - (1 + u) \log(1 + u)` between the ratio and :math:`e^v`.
    `Divergence` describes the generator.

    References:
        f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization, S. Nowozin, B. Cseke and
        R. Tomioka, 2016, https://arxiv.org/abs/1606.00709;
        Density Ratio Matching under the Bregman Divergence, M. Sugiyama, T. Suzuki and T. Kanamori, 2012,
        https://doi.org/10.1007/s10463-011-0343-8

    Example:
        >>> import torch
        >>> GAN().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(1.3863)
    """

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of softplus(-v)."""
        return softplus(-output).mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of softplus(v)."""
        return softplus(output).mean()


@final
class TotalVariation(Divergence):
    r"""The total variation distance, :math:`f(u) = |u - 1| / 2`, with :math:`T = \tanh(v) / 2`; it leaves no ratio.

    The critic minimises :math:`(E_G \tanh v - E_{data} \tanh v) / 2`. Its optimum is the sign of
    :math:`p_{data} - p_G`, approached as outputs grow without end: `log_ratio` and `output` raise. The loss is bounded,
    and flat for both players where the critic is sure. `Divergence` has the references.

    Example:
        >>> import torch
        >>> TotalVariation().critic_loss(torch.full((3,), 9.0), torch.full((5,), -9.0))
        tensor(-1.0000)
    """

    proper = False
    corrects = ()

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -tanh(v) / 2."""
        return -output.tanh().mean() / 2

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of tanh(v) / 2."""
        return output.tanh().mean() / 2

    def log_ratio(self, output: Outputs) -> Outputs:
        """Raise: only the output's sign means anything.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(
            "The total variation bound leaves no log density ratio in its critic: at the optimum only the output's "
            "sign is determined."
        )

    def output(self, log_ratio: Outputs) -> Outputs:
        """Raise as `log_ratio` does.

        Raises:
            ValueError: always, naming the cure.
        """
        return self.log_ratio(log_ratio)
