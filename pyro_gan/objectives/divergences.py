"""f-GAN's divergences: the critic bounds one from below, and its output at the optimum is a function of the ratio."""

from __future__ import annotations

import math
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan.objectives._tangent import LIMIT, exp_tangent
from pyro_gan.objectives.base import no_log_ratio
from pyro_gan.objectives.up_to_constant import UpToConstant
from pyro_gan.objectives.variational import Divergence

__all__ = [
    "GAN",
    "KL",
    "DonskerVaradhan",
    "JensenShannon",
    "Neyman",
    "Pearson",
    "ReverseKL",
    "SquaredHellinger",
    "TotalVariation",
]


@final
class KL(Divergence):
    r"""The Kullback-Leibler divergence :math:`KL(p_{data} \| p_G)`, :math:`f(u) = u \log u`; :math:`\log r = v - 1`.

    The critic minimises :math:`-E_{data} v + E_G e^{v - 1}`. References and the generator: `Divergence`.

    Example:
        >>> import torch
        >>> KL().critic_loss(torch.ones(3), torch.ones(5))
        tensor(0.)
    """

    _reward_range = (-math.inf, 1 + LIMIT)

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of exp(v - 1)."""
        return exp_tangent(output - 1).mean()

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return v - 1."""
        return output - 1

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the log ratio plus 1."""
        return log_ratio + 1


@final
class ReverseKL(Divergence):
    r"""The divergence :math:`KL(p_G \| p_{data})`, :math:`f(u) = -\log u`; :math:`\log r = v`.

    The critic minimises :math:`E_{data} e^{-v} + E_G v - 1`. `Minimax` gives the generator :math:`-E_G v`, the log
    ratio itself, whose gradient is 1 wherever the critic stands; the default :math:`E_G e^{-v}` explodes where the
    critic rejects. References: `Divergence`.

    Example:
        >>> import torch
        >>> ReverseKL().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    _reward_range = (-LIMIT, math.inf)

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of exp(-v)."""
        return exp_tangent(-output).mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of v - 1."""
        return output.mean() - 1


@final
class Pearson(Divergence):
    r"""Pearson's :math:`\chi^2`, :math:`f(u) = (u - 1)^2`; :math:`\log r = \log(1 + v / 2)` for :math:`v > -2`.

    The critic minimises :math:`-E_{data} v + E_G[v^2 / 4 + v]`. The output is linear in the ratio, and nothing keeps
    a network's above -2; where it is not, the ratio would be negative and `log_ratio` raises. References and the
    generator: `Divergence`.

    Example:
        >>> import torch
        >>> Pearson().log_ratio(torch.tensor([0.0, 2.0]))
        tensor([0.0000, 0.6931])
    """

    _reward_range = (-math.inf, 2 * math.expm1(LIMIT))

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of v^2 / 4 + v."""
        return (output.square() / 4 + output).mean()

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return log(1 + v / 2).

        Raises:
            ValueError: if an output is -2 or less.
        """
        if bool((output <= -2).any()):
            raise no_log_ratio(
                "Expected outputs above -2, where a Pearson critic has a log ratio; got values down to "
                f"{float(output.min()):.4g}, which stand for a ratio of 0 or less."
            )
        return (output / 2).log1p()

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return 2 (r - 1), which beyond 20 nats goes on as its tangent."""
        return 2 * (exp_tangent(log_ratio) - 1)


@final
class Neyman(Divergence):
    r"""Neyman's :math:`\chi^2`, :math:`f(u) = (1 - u)^2 / u`; :math:`\log r = v / 2`.

    The critic minimises :math:`E_{data}[e^{-v} - 1] + E_G[2 - 2 e^{-v/2}]`. Its samples weigh :math:`1 / r^2`, so
    that fits to finite data run away where another objective's would not: prefer any other. References and the
    generator: `Divergence`.

    Example:
        >>> import torch
        >>> Neyman().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    _reward_range = (-2 * LIMIT, math.inf)

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of exp(-v) - 1."""
        return exp_tangent(-output, 2 * LIMIT).mean() - 1

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of 2 - 2 exp(-v / 2)."""
        return 2 - 2 * exp_tangent(-output / 2).mean()

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return v / 2."""
        return output / 2

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return twice the log ratio."""
        return 2 * log_ratio


@final
class SquaredHellinger(Divergence):
    r"""The squared Hellinger distance, :math:`f(u) = (\sqrt{u} - 1)^2`; :math:`\log r = 2 v`.

    The critic minimises :math:`E_{data}[e^{-v} - 1] + E_G[e^{v} - 1]`, the exponential scoring rule in other units,
    bounded below on any data. References and the generator: `Divergence`.

    Example:
        >>> import torch
        >>> SquaredHellinger().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    _reward_range = (-LIMIT / 2, LIMIT / 2)

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of exp(-v) - 1."""
        return exp_tangent(-output, LIMIT / 2).mean() - 1

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of exp(v) - 1."""
        return exp_tangent(output, LIMIT / 2).mean() - 1

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return 2 v."""
        return 2 * output

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return half the log ratio."""
        return log_ratio / 2


@final
class JensenShannon(Divergence):
    r"""f-GAN's Jensen-Shannon row; :math:`\log r = v`.

    The critic minimises :math:`E_{data}[\mathrm{sp}(-v) - \log 2] + E_G[\mathrm{sp}(v) - \log 2]`, with softplus
    :math:`\mathrm{sp}`: `Bernoulli`, twice and less a constant. What it bounds is *twice* the divergence of that name.
    References and the generator: `Divergence`.

    Example:
        >>> import torch
        >>> JensenShannon().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of softplus(-v), less log 2."""
        return softplus(-output).mean() - math.log(2)

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of softplus(v), less log 2."""
        return softplus(output).mean() - math.log(2)


@final
class GAN(Divergence):
    r"""f-GAN's GAN row, twice the Jensen-Shannon divergence less :math:`\log 4`; :math:`\log r = v`.

    The critic minimises :math:`E_{data} \mathrm{sp}(-v) + E_G \mathrm{sp}(v)`: `Bernoulli`, twice. References and the
    generator: `Divergence`.

    Example:
        >>> import torch
        >>> GAN().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(1.3863)
    """

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of softplus(-v)."""
        return softplus(-output).mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of softplus(v)."""
        return softplus(output).mean()


@final
class TotalVariation(Divergence):
    r"""The total variation distance, :math:`f(u) = |u - 1| / 2`, with :math:`T = \tanh(v) / 2`; no ratio.

    The critic minimises :math:`(E_G \tanh v - E_{data} \tanh v) / 2`. Its optimum is the sign of
    :math:`p_{data} - p_G`, approached as outputs grow without end: `log_ratio` raises. Bounded, and flat for both
    players where the critic is sure. References: `Divergence`.

    Example:
        >>> import torch
        >>> TotalVariation().critic_loss(torch.full((3,), 9.0), torch.full((5,), -9.0))
        tensor(-1.0000)
    """

    proper = False

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of -tanh(v) / 2."""
        return -output.tanh().mean() / 2

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of tanh(v) / 2."""
        return output.tanh().mean() / 2

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Raise: only the output's sign means anything.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(_TOTAL_VARIATION)

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Raise as `log_ratio` does.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(_TOTAL_VARIATION)


_TOTAL_VARIATION = (
    "The total variation bound leaves no log density ratio in its critic: at the optimum only the output's sign is "
    "determined."
)


@final
class DonskerVaradhan(UpToConstant):
    r"""The Donsker-Varadhan bound of :math:`KL(p_{data} \| p_G)`, tighter than `KL`'s.

    The critic minimises :math:`-E_{data} v + \log E_G e^v`, and :math:`\log r = v` up to a constant. The constant, the
    bias and the cure: `UpToConstant`.

    References:
        Asymptotic Evaluation of Certain Markov Process Expectations for Large Time, M. Donsker and S. Varadhan, 1983,
        https://doi.org/10.1002/cpa.3160360204;
        MINE: Mutual Information Neural Estimation, M. I. Belghazi et al., 2018, https://arxiv.org/abs/1801.04062

    Example:
        >>> import torch
        >>> DonskerVaradhan().critic_loss(torch.full((3,), 7.0), torch.full((5,), 7.0))
        tensor(0.)
    """
