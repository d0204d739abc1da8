"""Takes particles up or down a ladder by a schedule: the engine of annealed importance sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.annealing.ladder import check_ladder
from pyro_gan.annealing.mover import KernelFactory, Mover, Schedule
from pyro_gan.annealing.path import Path
from pyro_gan.mcmc import MALA
from pyro_gan.targets import Target

__all__ = ["Annealed", "anneal", "travel", "tune"]


@final
class Annealed(NamedTuple):
    """Particles at the end of a ladder.

    Attributes:
        z: Positions, unconstrained.
        log_weights: Log weights, nats; minus infinity where a score was NaN or infinite.
        acceptance: Mean acceptance on each rung with moves, over the particles with a weight above zero.
        schedule: The schedule that was run, with the step sizes that were used.
        num_forwards: Rows scored without a gradient.
        num_gradients: Rows scored with a gradient.
        num_invalid: Proposals that were rejected because a score or gradient was not finite.
        num_unknown: Particles whose weight is zero because a score was NaN or plus infinity.
    """

    z: Float[Tensor, "particle dim"]
    log_weights: Float[Tensor, " particle"]
    acceptance: tuple[float, ...]
    schedule: Schedule
    num_forwards: int
    num_gradients: int
    num_invalid: int
    num_unknown: int


@torch.no_grad()
def anneal(
    target: Target,
    z: Float[Tensor, "particle dim"],
    schedule: Schedule,
    *,
    kernel: KernelFactory = MALA,
    num_groups: int = 1,
) -> Annealed:
    r"""Take particles up or down a ladder, by a schedule that was fixed before the run.

    .. math:: \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log w(z_{t-1}), \qquad
        z_t \sim K_{\beta_t}(z_{t-1})

    where :math:`K_\beta` leaves :math:`p_0 w^\beta` invariant. There are no moves on the last rung, because they would
    not change the weight. Up the ladder from draws of the prior, E[exp(log w)] = Z. Down the ladder from exact draws of
    the target, by `schedule.reversed()`, it is 1/Z, so minus the log of the mean is an upper bound on average (BDMC).

    Particles do not interact, so each row may have its own target: every evaluation gets all rows, in order. Then
    `log_weights.reshape(group, particle)` are the weights of each target, and each of `num_groups` targets has its own
    step sizes.

    Args:
        target: A target whose prior and weight are known separately.
        z: Positions at the start.
        schedule: Powers, step sizes and moves on each rung; `tune` makes one.
        kernel: Makes the kernel of a target, which must leave that target invariant; `ULA` does not, and is refused.
            It need not be reversible, neither up nor down the ladder.
        num_groups: Groups of rows; each group has its own step sizes.

    Returns:
        The particles and their weights.

    Raises:
        ValueError: for a target without a known prior, rows that do not divide into the groups or are of another shape
            or dtype, or a schedule that does not fit the kernel.

    References:
        Annealed importance sampling, R. M. Neal, 2001, https://arxiv.org/abs/physics/9803008;
        Sandwiching the marginal likelihood using bidirectional Monte Carlo, R. Grosse et al., 2015,
        https://arxiv.org/abs/1511.02543
    """
    return travel(target, z, schedule, kernel, num_groups, adapts=False)


@torch.no_grad()
def tune(
    target: Target,
    z: Float[Tensor, "particle dim"],
    betas: tuple[float, ...],
    *,
    kernel: KernelFactory = MALA,
    num_moves: int = 1,
    num_groups: int = 1,
) -> Schedule:
    """Find the step size of each rung, in a run whose particles are then discarded.

    A run that adapts to its own particles is biased. A run by the schedule that `tune` returns is unbiased, because its
    particles are new.

    Args:
        target: As for `anneal`.
        z: Prior draws to tune on; a few dozen for each group are enough.
        betas: The ladder, rising from 0 to 1.
        kernel: As for `anneal`.
        num_moves: Transitions on each rung.
        num_groups: As for `anneal`.

    Returns:
        The schedule.

    Raises:
        ValueError: as for `anneal`; if the ladder does not rise from 0 to 1, or there are no moves.
    """
    schedule = Schedule(check_ladder(betas), None, num_moves)
    return travel(target, z, schedule, kernel, num_groups, adapts=True).schedule


def travel(
    target: Target,
    z: Tensor,
    schedule: Schedule,
    kernel: KernelFactory,
    num_groups: int,
    *,
    adapts: bool,
    hear: Callable[[Tensor, Tensor, float], None] = lambda z, log_weights, beta: None,
) -> Annealed:
    """Take particles along a ladder; with `adapts` the step sizes adapt to these particles.

    After each rung `hear` gets the positions, their log weights over the target itself, and the rung's power.
    """
    path = Path(target)
    checks.instance("schedule", schedule, Schedule).check_steps()
    if checks.shaped("z", z, ("particle", path.dim)).dtype != path.dtype:
        raise ValueError(f"Expected z in the model's dtype {path.dtype}; got {z.dtype}.")
    if len(z) % checks.count("num_groups", num_groups):
        raise ValueError(
            f"Expected rows that divide into num_groups={num_groups} groups of one size; got {len(z)} rows."
        )
    mover = Mover(kernel, path, z, num_groups=num_groups)
    total = torch.zeros_like(mover.log_weights)
    acceptance: list[float] = []
    steps = [mover.step_sizes]
    num_invalid = 0
    betas = schedule.betas
    for rung in range(1, len(betas)):
        total = total + (betas[rung] - betas[rung - 1]) * mover.log_weights
        if rung == len(betas) - 1:
            steps.append(mover.step_sizes)
            break
        path.beta = betas[rung]
        # A schedule without step sizes is run with the step sizes of the kernel.
        frozen = mover.step_sizes if schedule.step_sizes is None else schedule.step_sizes[rung]
        moved = mover.move(schedule.num_moves, None if adapts else frozen)
        acceptance.append(moved.acceptance)
        steps.append(moved.step_size)
        num_invalid += moved.num_invalid
        hear(mover.state.z, total + (betas[-1] - betas[rung]) * mover.log_weights, betas[rung])
    # A score of plus infinity or NaN is a fault of the networks, and not part of the target: it gets no weight.
    unknown = ~(total < torch.inf)
    total = total.masked_fill(unknown, -torch.inf)
    used = None if steps[0] is None else torch.stack([step for step in steps if step is not None])
    return Annealed(
        mover.state.z,
        total,
        tuple(acceptance),
        schedule._replace(step_sizes=used),
        path.num_forwards,
        path.num_gradients,
        num_invalid,
        int(unknown.sum()),
    )
