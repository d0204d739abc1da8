"""Annealed importance sampling: particles climb a fixed ladder, each alone, and pay in weight for every rung."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.annealing.ladder import check_ladder
from pyro_gan.annealing.mover import KernelFactory, Mover, Schedule, check_factory
from pyro_gan.annealing.normaliser import LogNormaliser, log_normaliser
from pyro_gan.annealing.path import Path, constrained, find_target
from pyro_gan.mcmc.langevin import MALA
from pyro_gan.targets import Target

__all__ = ["AIS", "AISReport", "Annealed", "AnnealedSamples", "anneal", "tune"]


class Annealed(NamedTuple):
    """Particles at the end of a ladder.

    Attributes:
        z: Where they are, unconstrained.
        log_weights: Of each, nats; minus infinity where a score was NaN or infinite.
        acceptance: Mean acceptance on every rung that had moves, of the particles with a weight above zero.
        schedule: What was run, with the step sizes that were used.
        num_forwards: Rows scored without a gradient.
        num_gradients: Rows scored with one.
        num_invalid: Proposals rejected because a score or gradient was not finite.
    """

    z: Float[Tensor, "particle dim"]
    log_weights: Float[Tensor, " particle"]
    acceptance: tuple[float, ...]
    schedule: Schedule
    num_forwards: int
    num_gradients: int
    num_invalid: int


@torch.no_grad()
def anneal(
    target: Target,
    z: Float[Tensor, "particle dim"],
    schedule: Schedule,
    *,
    kernel: KernelFactory = MALA,
    num_groups: int = 1,
) -> Annealed:
    r"""Take particles along a ladder, up or down, by a schedule that was fixed before.

    .. math:: \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log w(z_{t-1}), \qquad
        z_t \sim K_{\beta_t}(z_{t-1})

    where :math:`K_\beta` leaves :math:`p_0 w^\beta` invariant; the last rung is not moved on, for it would not change
    the weight. From draws of the prior upwards, E[exp(log w)] = Z. From exact draws of the target by
    `schedule.reversed()` it is 1/Z, so minus the log of the mean is an upper bound on average (BDMC).

    Particles never meet, so rows may have targets of their own: every evaluation has all rows, in order. Then
    `log_weights.reshape(datum, particle)` are the weights of each target, and `num_groups` targets have as many step
    sizes.

    Args:
        target: With prior and weight known apart.
        z: Where particles start.
        schedule: Powers, step sizes and moves on a rung; `tune` makes one.
        kernel: Makes the kernel of a target, which must leave that target invariant: `ULA` does not, and the weights
            are then biased. It need not be reversible, whichever way the ladder is walked.
        num_groups: Groups of rows with step sizes of their own.

    Returns:
        The particles and their weights.

    Raises:
        ValueError: if the target has no split, the rows do not divide into the groups or are of another shape or
            dtype, or the schedule is another kernel's.

    References:
        Annealed importance sampling, R. M. Neal, 2001, https://arxiv.org/abs/physics/9803008;
        Sandwiching the marginal likelihood using bidirectional Monte Carlo, R. Grosse et al., 2015,
        https://arxiv.org/abs/1511.02543
    """
    return _travel(target, z, schedule, kernel, num_groups, adapts=False)


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
    """Find the step size of every rung, in a run whose particles are then thrown away.

    A run that adapted to its own particles would not be unbiased; one by the schedule that this returns is, given
    that its particles are others.

    Args:
        target: As for `anneal`.
        z: Prior draws to tune on; a few dozen a group are enough.
        betas: The ladder, rising from 0 to 1.
        kernel: As for `anneal`.
        num_moves: Transitions on a rung.
        num_groups: As for `anneal`.

    Returns:
        The schedule.

    Raises:
        ValueError: as `anneal`; if the ladder does not rise from 0 to 1, or there are no moves.
    """
    schedule = Schedule(tuple(betas), None, num_moves)
    schedule.check()
    return _travel(target, z, schedule, kernel, num_groups, adapts=True).schedule


class AISReport(NamedTuple):
    """What an annealing cost and what it is worth.

    Attributes:
        log_normaliser: The estimate of log Z, with error, bias and effective sample size; 0 for an exact ratio.
        acceptance: Mean acceptance on every rung that had moves, of the particles with a weight above zero.
        schedule: The ladder, with the step sizes that the pilot found.
        num_forwards: Rows scored without a gradient, the pilot's among them.
        num_gradients: Rows scored with one, the pilot's among them.
        num_invalid: Proposals rejected because a score or gradient was not finite.
    """

    log_normaliser: LogNormaliser
    acceptance: tuple[float, ...]
    schedule: Schedule
    num_forwards: int
    num_gradients: int
    num_invalid: int


class AnnealedSamples(NamedTuple):
    """Weighted particles of an `AIS`.

    Attributes:
        samples: Constrained latents by site, `(particle, *event)`: draws of the target once they are weighted.
        log_weights: Of each, `(particle,)`, nats.
        report: Cost and worth.
    """

    samples: dict[str, Tensor]
    log_weights: Float[Tensor, " particle"]
    report: AISReport


class AIS:
    """Annealed importance sampling: weighted particles, and an unbiased estimate of the normaliser.

    A pilot run tunes the step size of every rung; its particles are thrown away, and the particles of the run proper
    see it frozen. So the mean weight is exactly unbiased for Z, whatever the ladder and however badly the kernel
    mixes; its log is a lower bound on average. Both say nothing of a mode that no particle has seen.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`; its observations and factors are the
            weight.
        ladder: Powers of the weight, rising from 0 to 1: `linear(100)`, `sigmoid(100)`, `geometric(20)`. Two powers
            are importance sampling from the prior.
        num_particles: Particles.
        kernel: Makes the kernel of a target: `MALA`, `PCN`, or `lambda target: BatchHMC(target, num_steps=5)`.
        num_moves: Transitions on a rung.
        schedule: An earlier report's, in place of a ladder and a pilot.

    Raises:
        ValueError: if the ladder does not rise from 0 to 1, or there are fewer than two particles.

    References:
        Annealed importance sampling, R. M. Neal, 2001, https://arxiv.org/abs/physics/9803008

    Example:
        >>> from pyro_gan import LatentPosterior, toys
        >>> from pyro_gan.annealing import AIS, linear
        >>> toy = toys.gaussian_shift(auc=0.9)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> result = AIS(gan, linear(10), num_particles=200)()
        >>> result.samples["z"].shape, result.log_weights.shape
        (torch.Size([200, 1]), torch.Size([200]))
    """

    def __init__(
        self,
        model: Any,
        ladder: tuple[float, ...] | None = None,
        *,
        num_particles: int = 1000,
        kernel: KernelFactory = MALA,
        num_moves: int = 1,
        schedule: Schedule | None = None,
    ) -> None:
        if (ladder is None) == (schedule is None):
            raise ValueError(
                "Expected a ladder, such as linear(100), or an earlier report's schedule; one of them."
            )
        if num_particles < 2:
            raise ValueError(
                f"Expected num_particles of at least 2; got {num_particles}. One weight has no error to report."
            )
        check_factory(kernel)
        if schedule is not None:
            schedule.check()
        if isinstance(ladder, int | float):
            raise ValueError(f"Expected a ladder of powers; got {ladder}. linear({ladder}) makes one.")
        if ladder is not None:
            check_ladder(tuple(ladder))
            Schedule(tuple(ladder), None, num_moves).check()
        self.model = model
        self.ladder = None if ladder is None else tuple(ladder)
        self.num_particles = num_particles
        self.kernel = kernel
        self.num_moves = num_moves
        self.schedule = schedule

    def __call__(self, *args: Any, **context: Any) -> AnnealedSamples:
        """Run the pilot, then the particles.

        Args:
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Raises:
            ValueError: if the model does not say what is prior and what is weight.
        """
        target = find_target(self.model, args, context)
        schedule, pilot_gradients, pilot_forwards = self.schedule, 0, 0
        if schedule is None:
            assert self.ladder is not None
            ladder = Schedule(self.ladder, None, self.num_moves)
            pilot = _travel(
                target, target.sample_prior(self.num_particles), ladder, self.kernel, 1, adapts=True
            )
            schedule, pilot_gradients, pilot_forwards = (
                pilot.schedule,
                pilot.num_gradients,
                pilot.num_forwards,
            )
        run = anneal(target, target.sample_prior(self.num_particles), schedule, kernel=self.kernel)
        report = AISReport(
            log_normaliser=log_normaliser(run.log_weights),
            acceptance=run.acceptance,
            schedule=schedule,
            num_forwards=pilot_forwards + run.num_forwards,
            num_gradients=pilot_gradients + run.num_gradients,
            num_invalid=run.num_invalid,
        )
        return AnnealedSamples(constrained(target, run.z), run.log_weights, report)

    def reverse(self, samples: Params, schedule: Schedule, *args: Any, **context: Any) -> LogNormaliser:
        """Bound log Z from above, by exact draws of the target that go down the ladder.

        Args:
            samples: Exact, independent draws, unconstrained, `{site: (particle, *event)}`: from a model that was
                simulated, or a closed form. What a chain gives is no such draw, and the bound none.
            schedule: Of a report; its way back is taken.
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Returns:
            Minus the log mean weight of the way back: too high on average, by about its `bias`.

        Raises:
            ValueError: as `anneal`; for draws of other sites, or of another shape or dtype.
        """
        target = find_target(self.model, args, context)
        if set(samples) != set(target.shapes):
            raise ValueError(f"Expected draws of the sites {sorted(target.shapes)}; got {sorted(samples)}.")
        run = anneal(target, target.pack(samples), schedule.reversed(), kernel=self.kernel)
        below = log_normaliser(run.log_weights)
        return below._replace(value=-below.value, bias=-below.bias)


def _travel(
    target: Target, z: Tensor, schedule: Schedule, kernel: KernelFactory, num_groups: int, *, adapts: bool
) -> Annealed:
    if num_groups < 1 or len(z) % num_groups:
        raise ValueError(
            f"Expected rows that divide into num_groups={num_groups} groups of one size; got {len(z)} rows."
        )
    if z.shape[1:] != (target.dim,) or z.dtype != target.dtype:
        raise ValueError(
            f"Expected particles of shape (particle, {target.dim}), {target.dtype}; got {tuple(z.shape)}, {z.dtype}."
        )
    path = Path(target)
    mover = Mover(kernel, path, num_groups=num_groups)
    path.place(z)
    total = torch.zeros_like(path.log_weights)
    acceptance: list[float] = []
    steps = [mover.step_sizes]
    num_invalid = 0
    betas = schedule.betas
    for rung in range(1, len(betas)):
        total = total + (betas[rung] - betas[rung - 1]) * path.log_weights
        if rung == len(betas) - 1:
            steps.append(mover.step_sizes)
            break
        path.beta = betas[rung]
        # Without step sizes of its own a schedule is run with the kernel's.
        frozen = mover.step_sizes if schedule.step_sizes is None else schedule.step_sizes[rung]
        moved = mover.move(schedule.num_moves, None if adapts else frozen)
        acceptance.append(moved.acceptance)
        steps.append(moved.step_size)
        num_invalid += moved.num_invalid
    # A score of plus infinity or NaN has no weight: it is a fault of the networks, and not the target.
    total = total.masked_fill(torch.isnan(total) | torch.isposinf(total), -torch.inf)
    used = None if steps[0] is None else torch.stack([step for step in steps if step is not None])
    return Annealed(
        path.z,
        total,
        tuple(acceptance),
        schedule._replace(step_sizes=used),
        path.num_forwards,
        path.num_gradients,
        num_invalid,
    )
