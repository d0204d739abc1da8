"""Sequential Monte Carlo: particles climb an adaptive ladder, and are resampled on the way."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.annealing.ladder import next_beta
from pyro_gan.annealing.mover import KernelFactory, Mover, Schedule, check_factory, warn_of_gradient
from pyro_gan.annealing.normaliser import few_effective
from pyro_gan.annealing.path import Path
from pyro_gan.importance import systematic
from pyro_gan.importance.mean import known_weights
from pyro_gan.mcmc import MALA
from pyro_gan.resampling.draws import BLOCK_DRAWS
from pyro_gan.resampling.partial import Partial, keeping
from pyro_gan.targets import WeightedTarget, make_weighted_target
from pyro_gan.targets.make import check_model

__all__ = ["SMC", "SMCReport", "SMCSamples"]

#: Default number of prior draws for each particle: they cost about as much as its moves on one rung.
DRAWS_PER_PARTICLE = 10

#: Fewest effective families from which the error of log Z is known: one over their number is its square, so it cannot
#: exceed 1, whatever the truth.
MIN_FAMILIES = 10

#: Largest number of rungs; a ladder that has not reached the target by then raises an error.
MAX_RUNGS = 200


@final
class SMCReport(NamedTuple):
    """The results of an `SMC` and what it cost.

    Attributes:
        log_normaliser: Estimate of log Z, nats; 0 for an exact ratio.
        log_normaliser_se: Its standard error, from the families' shares of the weight; NaN with fewer than 10 effective
            families, because it is then not known.
        betas: The ladder, from 0 to 1.
        ess_fraction: Effective share of the particles on each rung, after reweighting and before resampling.
        acceptance: Mean acceptance on each rung, over the particles with a weight above zero.
        resampled: Whether particles were resampled on each rung.
        ancestors: Prior draws that have a descendant among the outputs.
        effective_families: One over the sum of the families' squared shares, an effective number of ancestors.
        distinct: Different positions among the outputs.
        num_draws: Prior draws at the start of the run.
        num_forwards: Rows scored without a gradient.
        num_gradients: Rows scored with a gradient.
        num_zero: Prior draws of weight zero; draws whose score was NaN or infinite are counted too.
        num_invalid: Proposals that were rejected because a score or gradient was not finite.
        schedule: The ladder and step sizes of this run; a new run with it, `SMC(..., schedule=)`, has an unbiased
            normaliser.
    """

    log_normaliser: float
    log_normaliser_se: float
    betas: tuple[float, ...]
    ess_fraction: tuple[float, ...]
    acceptance: tuple[float, ...]
    resampled: tuple[bool, ...]
    ancestors: int
    effective_families: float
    distinct: int
    num_draws: int
    num_forwards: int
    num_gradients: int
    num_zero: int
    num_invalid: int
    schedule: Schedule


@final
class SMCSamples(NamedTuple):
    """Outputs of an `SMC`.

    Attributes:
        samples: Constrained latents by site, `(particle, *event)`, equally weighted.
        log_ratio: Log weight of each output, `(particle,)`, nats; `log r(G(z)) / T` for a latent posterior.
        report: Results and cost.
    """

    samples: dict[str, Tensor]
    log_ratio: Float[Tensor, " particle"]
    report: SMCReport


@final
class SMC:
    r"""A sequential Monte Carlo sampler: reweight, resample, move, from the prior to the target.

    On each rung the power of the weight rises until the effective size of the particles has fallen to
    :math:`\mathrm{ESS} = ` `ess_threshold` :math:`\cdot` `num_particles`. Then they are resampled, systematically, and
    moved by a kernel that leaves the distribution of the rung invariant; its step size adapts from rung to rung. If
    there are more prior draws than particles, the first rung is importance resampling to a milder target: a prior draw
    costs a forward pass, a move may cost a gradient.

    The normaliser is consistent. Its relative bias is about -10 divided by the number of particles (300 particles on a
    Gaussian pair: E Z = .967 +- .007), because the ladder and the step sizes depend on the particles; it is exactly
    unbiased in a run by the `schedule` of another run. Outputs are not independent: a family descends from one prior
    draw, and with too few moves its outputs stay close together. The number of independent outputs is
    `effective_families` in the worst case, and their number in the best case.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`; its observations and factors are the
            weight.
        num_particles: Number of particles, and of outputs.
        kernel: Makes the kernel of a target: `MALA`, `PCN`, or `lambda target: BatchHMC(target, num_steps=5)`.
        ess_threshold: Effective share of the particles that a rung keeps; below it particles are resampled.
        num_moves: Transitions on each rung.
        num_draws: Prior draws at the start; ten times as many as particles if None.
        schedule: The schedule of an earlier report, instead of an adaptive ladder and step sizes and of `num_moves`.

    Attributes:
        partial: The particles after the last whole rung, a `Partial`, if an exception has
            ended the last call; None otherwise.

    Raises:
        ValueError: if there are fewer than two particles, fewer draws than particles, no moves, or an `ess_threshold`
            outside (0, 1).

    References:
        Sequential Monte Carlo samplers, P. Del Moral, A. Doucet and A. Jasra, 2006,
        https://doi.org/10.1111/j.1467-9868.2006.00553.x;
        On the convergence of adaptive sequential Monte Carlo methods, A. Beskos, A. Jasra, N. Kantas and A. Thiery,
        2016, https://arxiv.org/abs/1306.6462;
        A general theory of particle filters in hidden Markov models and some applications, H. P. Chan and T. L. Lai,
        2013, https://arxiv.org/abs/1312.5114, for the error by families.

    Example:
        >>> from pyro_gan import LatentPosterior, toys
        >>> from pyro_gan.annealing import SMC
        >>> toy = toys.gaussian_shift(auc=0.95)
        >>> result = SMC(LatentPosterior(toy.generator, toy.log_ratio, toy.prior), num_particles=500)()
        >>> result.samples["z"].shape, abs(result.report.log_normaliser) < 1
        (torch.Size([500, 1]), True)
    """

    def __init__(
        self,
        model: Any,
        num_particles: int = 1000,
        *,
        kernel: KernelFactory = MALA,
        ess_threshold: float = 0.5,
        num_moves: int = 10,
        num_draws: int | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        check_model(model)
        check_factory(kernel)
        self.model = model
        cure = "One particle cannot be resampled; for a single chain use VectorizedMCMC."
        self.num_particles = checks.count("num_particles", num_particles, minimum=2, cure=cure)
        self.kernel = kernel
        cure = "It is a share of the particles: near 1 the ladder has many rungs, near 0 few."
        self.ess_threshold = checks.real("ess_threshold", ess_threshold, above=0, below=1, cure=cure)
        num_moves = checks.count("num_moves", num_moves, cure="Without moves the particles are copies.")
        self.schedule = schedule if schedule is None else checks.instance("schedule", schedule, Schedule).check()
        self.num_moves = num_moves if schedule is None else schedule.num_moves
        if num_draws is None:
            num_draws = DRAWS_PER_PARTICLE * self.num_particles
        cure = "There must be a draw for each of num_particles."
        self.partial: Partial | None = None
        self.num_draws = checks.count("num_draws", num_draws, minimum=self.num_particles, cure=cure)

    def __call__(self, *args: Any, **context: Any) -> SMCSamples:
        """Take the particles from the prior to the target.

        Args:
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Returns:
            Equally weighted outputs in random order, their log weights, and a report.

        Warns:
            UserWarning: if fewer than 10 families are effective, scores are NaN or plus infinity, or the gradient of
                the weight is wrong.

        Raises:
            ValueError: for a target without a known prior, if all prior draws have a weight of zero, or if 200 rungs do
                not reach the target.
        """
        target = make_weighted_target(self.model, args, context)
        warn_of_gradient(self.kernel, self.model, target)
        # The particles after the last whole rung, their log weights, their log shares, and the rung's power.
        finished: list[tuple[Tensor, Tensor, Tensor, float]] = []

        def partial() -> Partial | None:
            if not finished:
                return None
            z, log_weight, log_share, beta = finished[0]
            return Partial(target.constrained(z), log_share.to(log_weight) + (1 - beta) * log_weight, beta)

        with torch.no_grad(), keeping(self, partial):
            return self._climb(target, finished)

    def _climb(self, target: WeightedTarget, finished: list[tuple[Tensor, Tensor, Tensor, float]]) -> SMCSamples:
        path = Path(target)
        mover = Mover(self.kernel, path, _prior_draws(target, self.num_draws))
        num = self.num_particles
        num_zero = int((~torch.isfinite(mover.log_weights)).sum())
        known_weights(mover.log_weights)
        root = torch.arange(self.num_draws, device=target.device)
        log_share = torch.zeros(self.num_draws, dtype=torch.float64)
        log_z, families = 0.0, torch.zeros(0)
        betas, rungs, first_step, num_invalid = [0.0], [], mover.step_sizes, 0
        while betas[-1] < 1:
            finished[:] = [(mover.state.z, mover.log_weights, log_share, betas[-1])]
            log_weight = mover.log_weights.to("cpu", torch.float64)
            log_weight = torch.where(log_weight < torch.inf, log_weight, -torch.inf)
            beta = self._next(log_weight, log_share, betas)
            log_share = log_share.log_softmax(0) + (beta - betas[-1]) * log_weight
            gain = torch.logsumexp(log_share, 0)
            if not torch.isfinite(gain):
                raise ValueError(
                    f"Expected a particle with a weight above zero; all {len(log_share)} weights are zero, and so were "
                    f"those of {num_zero} of {self.num_draws} prior draws. Look at log_ratio(generator(z)), or raise "
                    "num_draws."
                )
            log_z += float(gain)
            share = log_share.softmax(0)
            families = _families(share, root)
            ess = 1 / float(share.square().sum())
            resamples = self.schedule is None or beta == 1 or len(share) > num or ess < self.ess_threshold * num
            if resamples:
                index = systematic(log_share, num).to(target.device)
                mover.keep(index)
                root, log_share = root[index], torch.zeros(num, dtype=torch.float64)
            path.beta = beta
            moved = mover.move(self.num_moves, self._step(len(betas)))
            betas.append(beta)
            rungs.append((min(1.0, ess / num), moved.acceptance, resamples, moved.step_size))
            num_invalid += moved.num_invalid
        ess_fraction, acceptance, resampled, steps = zip(*rungs, strict=True)
        used = None if first_step is None else torch.stack([first_step, *steps])
        carriers = 1 / float(families.square().sum())
        if carriers < MIN_FAMILIES:
            warnings.warn(few_effective(carriers, "families", MIN_FAMILIES), stacklevel=3)
        error = math.sqrt(max(0.0, 1 / carriers - 1 / self.num_draws))
        sizes = _families(torch.full((num,), 1 / num, dtype=torch.float64), root)
        report = SMCReport(
            log_normaliser=log_z,
            log_normaliser_se=error if carriers >= MIN_FAMILIES else math.nan,
            betas=tuple(betas),
            ess_fraction=ess_fraction,
            acceptance=acceptance,
            resampled=resampled,
            ancestors=len(sizes),
            effective_families=1 / float(sizes.square().sum()),
            distinct=len(mover.state.z.unique(dim=0)),
            num_draws=self.num_draws,
            num_forwards=path.num_forwards,
            num_gradients=path.num_gradients,
            num_zero=num_zero,
            num_invalid=num_invalid,
            schedule=Schedule(tuple(betas), used, self.num_moves),
        )
        return SMCSamples(target.constrained(mover.state.z), mover.log_weights, report)

    def _next(self, log_weight: Tensor, log_share: Tensor, betas: list[float]) -> float:
        if self.schedule is not None:
            return self.schedule.betas[len(betas)]
        if len(betas) > MAX_RUNGS:
            raise ValueError(
                f"{MAX_RUNGS} rungs have only reached a power of {betas[-1]:.3g} of the weight: the target is too far "
                "from the prior for this number of particles. Lower ess_threshold, raise num_particles or num_draws, "
                "or cap the log ratio."
            )
        return next_beta(log_weight, log_share, beta=betas[-1], min_ess=self.ess_threshold * self.num_particles)

    def _step(self, rung: int) -> Tensor | None:
        if self.schedule is None or self.schedule.step_sizes is None:
            return None
        return self.schedule.step_sizes[rung]


def _prior_draws(target: WeightedTarget, num_draws: int) -> Tensor:
    return torch.cat(
        [target.sample_prior(min(BLOCK_DRAWS, num_draws - start)) for start in range(0, num_draws, BLOCK_DRAWS)]
    )


def _families(share: Tensor, root: Tensor) -> Tensor:
    """Return the share of the weight of each family, in any order."""
    founders, family = root.cpu().unique(return_inverse=True)
    return torch.zeros(len(founders), dtype=share.dtype).index_add_(0, family, share)
