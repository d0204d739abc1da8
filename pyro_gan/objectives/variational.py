"""The variational bound: a critic that maximises it bounds an f-divergence, and its output tells the ratio."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives.base import SeparableObjective

__all__ = ["Divergence"]


class Divergence(SeparableObjective):
    r"""The variational bound of an f-divergence, in the critic's raw output.

    For convex :math:`f` with conjugate :math:`f^\dagger` and any function :math:`T` of the data,

    .. math:: D_f(p_{data} \,\|\, p_G) = E_G f(r) \ge E_{data} T - E_G f^\dagger(T),
        \qquad T^* = f'(r).

    The critic's output :math:`v` is any real number; :math:`T = g(v)`, with :math:`g` into the domain of
    :math:`f^\dagger`. Here :math:`R = -g(v)` and :math:`F = f^\dagger(g(v))`, simplified so that no large numbers
    cancel, and the bound is the critic's loss with its sign turned.

    The generator's default is f-GAN's alternative form :math:`-E_G g(v)`. `Minimax` minimises the bound itself,
    :math:`-E_G f^\dagger(T)`, whose gradient at the critic's optimum is the divergence's own. To minimise
    :math:`E_G f(r)` with the ratio held fixed would be neither: for KL, :math:`r \log r` falls to its minimum at
    :math:`r = 1/e` and would drive samples away from where the generator has too few.

    A bound's terms may reward a critic without end on points that one side alone has: on finite data KL, UKL, LSIF
    and Pearson on real points, reverse KL and Neyman on generated ones. So an output that stands for a log ratio
    beyond 20 nats earns nothing more, and exponentials that punish one go on as their tangents: float32 stays finite,
    the loss stays bounded below, its negative remains a lower bound of the divergence, and what is punished still
    feels a gradient. The generator's losses have no such ceiling.

    References:
        f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization, S. Nowozin, B. Cseke and
        R. Tomioka, 2016, https://arxiv.org/abs/1606.00709
    """

    #: Below this a generated output, above this a real one, earns no further reward.
    _reward_range: tuple[float, float] = (-math.inf, math.inf)

    def _critic_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        low, high = self._reward_range
        return self.real_term(real.clamp(max=high)) + self.generated_term(generated.clamp(min=low))

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the output, which is the log ratio unless a row says otherwise."""
        return output

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the log ratio."""
        return log_ratio
