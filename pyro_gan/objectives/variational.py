"""The variational bound: a critic that maximises it bounds an f-divergence, and its output gives the log ratio."""

from __future__ import annotations

import math

from pyro_gan.checks import tensor
from pyro_gan.objectives.base import Outputs, Scalar, SeparableObjective, check_outputs

__all__ = ["Divergence"]


class Divergence(SeparableObjective):
    r"""The variational bound of an f-divergence, in the critic's raw output.

    For convex :math:`f` with conjugate :math:`f^\dagger` and any function :math:`T` of the data,

    .. math:: D_f(p_{data} \,\|\, p_G) = E_G f(r) \ge E_{data} T - E_G f^\dagger(T),
        \qquad T^* = f'(r).

    The critic's output :math:`v` is any real number; :math:`T = g(v)`, with an increasing :math:`g` into the domain of
    :math:`f^\dagger`. A subclass writes the two costs, :math:`R = -g(v)` as `real_term` and
    :math:`F = f^\dagger(g(v))` as `generated_term`, simplified so that no large numbers cancel. The bound is the
    critic's loss with the sign changed. The log ratio is `slope` times the output plus `offset`; override `log_ratio`
    and `output` where it is not linear.

    The generator's default is f-GAN's alternative form :math:`-E_G g(v)`. `Minimax` minimises the bound itself,
    :math:`-E_G f^\dagger(T)`, and its gradient at the critic's optimum is the gradient of the divergence. To minimise
    :math:`E_G f(r)` with the ratio held fixed would do neither: for KL, :math:`r \log r` falls to its minimum at
    :math:`r = 1/e` and would drive samples away from regions where the generator has too few.

    On finite data some terms reward a critic without end on points that only one side has: KL, UKL, LSIF and Pearson
    on real points, reverse KL and Neyman on generated ones. So an output that stands for a log ratio beyond 20 nats
    earns no further reward (`reward_range`), and exponentials that punish an output go on as their tangents
    (`exp_tangent`): float32 stays finite, the loss stays bounded below, minus the loss remains a lower bound of the
    divergence, and a punished output still gets a gradient. The generator's losses have no such ceiling.

    References:
        f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization, S. Nowozin, B. Cseke and
        R. Tomioka, 2016, https://arxiv.org/abs/1606.00709
    """

    #: In units of the output, (low, high): a generated output earns no further reward below `low`, nor a real one above
    #: `high`. Set `low` where F falls without end as the output falls, `high` where R falls without end as it rises.
    reward_range: tuple[float, float] = (-math.inf, math.inf)
    #: Nats of log ratio for each unit of output.
    slope: float = 1.0
    #: The log ratio, in nats, at an output of 0.
    offset: float = 0.0

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return R(real) + F(generated), both within `reward_range`; arguments as for `Objective.critic_loss`."""
        check_outputs(real=real, generated=generated)
        low, high = self.reward_range
        return self.real_term(real.clamp(max=high)) + self.generated_term(generated.clamp(min=low))

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return slope * output + offset, which is the output itself by default."""
        return self.slope * tensor("output", output) + self.offset

    def output(self, log_ratio: Outputs) -> Outputs:
        """Return (log ratio - offset) / slope."""
        return (tensor("log_ratio", log_ratio) - self.offset) / self.slope
