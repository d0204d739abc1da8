"""Annealed importance sampling: independent particles climb a fixed ladder, and each rung changes their weights."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.annealing.climb import anneal, travel
from pyro_gan.annealing.ladder import check_ladder
from pyro_gan.annealing.mover import KernelFactory, Schedule, check_factory, warn_of_gradient
from pyro_gan.annealing.normaliser import MIN_EFFECTIVE, LogNormaliser, few_effective, log_normaliser
from pyro_gan.importance.mean import warn_of_unknown
from pyro_gan.mcmc import MALA
from pyro_gan.mcmc.start import check_params
from pyro_gan.resampling.partial import Partial, keeping
from pyro_gan.targets import make_weighted_target
from pyro_gan.targets.make import check_model

__all__ = ["AIS", "AISReport", "AnnealedSamples"]


@final
class AISReport(NamedTuple):
    """The results of an `AIS` and what it cost.

    Attributes:
        log_normaliser: The estimate of log Z, with error, bias and effective sample size; 0 for an exact ratio. With
            fewer than 50 effective particles error and bias are not known, and NaN.
        acceptance: Mean acceptance on each rung with moves, over the particles with a weight above zero.
        schedule: The ladder, with the step sizes that the pilot found.
        num_forwards: Rows scored without a gradient, those of the pilot included.
        num_gradients: Rows scored with a gradient, those of the pilot included.
        num_invalid: Proposals that were rejected because a score or gradient was not finite.
    """

    log_normaliser: LogNormaliser
    acceptance: tuple[float, ...]
    schedule: Schedule
    num_forwards: int
    num_gradients: int
    num_invalid: int


@final
class AnnealedSamples(NamedTuple):
    """Weighted particles of an `AIS`.

    Attributes:
        samples: Constrained latents by site, `(particle, *event)`; with their weights they represent the target.
        log_weights: Log weights of the particles, `(particle,)`, nats.
        report: Results and cost.
    """

    samples: dict[str, Tensor]
    log_weights: Float[Tensor, " particle"]
    report: AISReport


@final
class AIS:
    """Annealed importance sampling: weighted particles, and an unbiased estimate of the normaliser.

    A pilot run tunes the step size of each rung, and its particles are discarded. The main run uses these fixed step
    sizes. So the mean weight is exactly unbiased for Z, for any ladder and any kernel that leaves the rungs invariant;
    its log is a lower bound on average. Neither shows a mode that no particle has visited.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`; its observations and factors are the
            weight.
        ladder: Powers of the weight, rising from 0 to 1: `linear(100)`, `sigmoid(100)`, `geometric(20)`. With two
            powers AIS is importance sampling from the prior.
        num_particles: Particles.
        kernel: Makes the kernel of a target: `MALA`, `PCN`, or `lambda target: BatchHMC(target, num_steps=5)`.
        num_moves: Transitions on each rung.
        schedule: The schedule of an earlier report, instead of a ladder and a pilot.

    Attributes:
        partial: The particles of the main run after the last whole rung, a `Partial`, if an exception has
            ended the last call; None otherwise.

    Raises:
        ValueError: if the ladder does not rise from 0 to 1, there are fewer than two particles or no moves, or both or
            neither of ladder and schedule are given.

    References:
        Annealed importance sampling, R. M. Neal, 2001, https://arxiv.org/abs/physics/9803008

    Example:
        >>> from pyro_gan import LatentPosterior, toys
        >>> from pyro_gan.annealing import AIS, linear
        >>> toy = toys.gaussian_shift(auc=0.9)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> result = AIS(gan, linear(10), num_particles=1000)()
        >>> result.samples["z"].shape, result.log_weights.shape
        (torch.Size([1000, 1]), torch.Size([1000]))
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
                f"Expected a ladder, such as linear(100), or the schedule of an earlier report; got "
                f"{'neither' if ladder is None else 'both'}."
            )
        self.num_particles = checks.count(
            "num_particles", num_particles, minimum=2, cure="One weight has no error to report."
        )
        check_factory(kernel)
        check_model(model)
        self.model = model
        self.ladder = None if ladder is None else check_ladder(ladder)
        self.kernel = kernel
        self.num_moves = checks.count("num_moves", num_moves)
        self.partial: Partial | None = None
        self.schedule = schedule if schedule is None else checks.instance("schedule", schedule, Schedule).check()

    def __call__(self, *args: Any, **context: Any) -> AnnealedSamples:
        """Run the pilot, then the main run.

        Args:
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Warns:
            UserWarning: if fewer than 50 particles are effective, scores are NaN or plus infinity, or the gradient of
                the weight is wrong.

        Raises:
            ValueError: for a target without a known prior, or arguments that the model does not take.
        """
        target = make_weighted_target(self.model, args, context)
        warn_of_gradient(self.kernel, self.model, target)
        schedule, num_forwards, num_gradients = self.schedule, 0, 0
        finished: list[Partial] = []

        def hear(z: Tensor, log_weights: Tensor, beta: float) -> None:
            finished[:] = [Partial(target.constrained(z), log_weights, beta)]

        with torch.no_grad(), keeping(self, lambda: finished[0] if finished else None):
            if schedule is None:
                assert self.ladder is not None
                ladder = Schedule(self.ladder, None, self.num_moves)
                pilot = travel(target, target.sample_prior(self.num_particles), ladder, self.kernel, 1, adapts=True)
                schedule, num_forwards, num_gradients = pilot.schedule, pilot.num_forwards, pilot.num_gradients
            z = target.sample_prior(self.num_particles)
            run = travel(target, z, schedule, self.kernel, 1, adapts=False, hear=hear)
        warn_of_unknown(run.num_unknown, self.num_particles)
        estimate = log_normaliser(run.log_weights)
        if float(estimate.ess) < MIN_EFFECTIVE:
            warnings.warn(few_effective(float(estimate.ess), "particles", MIN_EFFECTIVE), stacklevel=2)
            unknown = torch.full_like(estimate.value, torch.nan)
            estimate = estimate._replace(standard_error=unknown, bias=unknown)
        report = AISReport(
            log_normaliser=estimate,
            acceptance=run.acceptance,
            schedule=schedule,
            num_forwards=num_forwards + run.num_forwards,
            num_gradients=num_gradients + run.num_gradients,
            num_invalid=run.num_invalid,
        )
        return AnnealedSamples(target.constrained(run.z), run.log_weights, report)

    def reverse(self, samples: Params, schedule: Schedule, *args: Any, **context: Any) -> LogNormaliser:
        """Bound log Z from above, with exact draws of the target that go down the ladder.

        Args:
            samples: Exact, independent draws, unconstrained, `{site: (particle, *event)}`, from a simulation of the
                model or a closed form. The draws of a chain are not exact, and give no bound.
            schedule: The schedule of a report; it is run in reverse.
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Returns:
            Minus the log mean weight of the way down: an upper bound on average, too high by about its `bias`.

        Raises:
            ValueError: as for `anneal`; for draws of other sites, or of another shape or dtype.
        """
        target = make_weighted_target(self.model, args, context)
        check_params("samples", samples, target, "particle")
        down = checks.instance("schedule", schedule, Schedule).check().reversed()
        run = anneal(target, target.pack(samples), down, kernel=self.kernel)
        below = log_normaliser(run.log_weights)
        return below._replace(value=-below.value, bias=-below.bias)
