"""Sequential Monte Carlo: particles climb a ladder that they choose themselves, and the light ones make way."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.annealing.ladder import next_beta
from pyro_gan.annealing.mover import KernelFactory, Mover, Schedule, check_factory
from pyro_gan.annealing.path import Path, constrained, find_target
from pyro_gan.importance import systematic
from pyro_gan.mcmc.langevin import MALA
from pyro_gan.resampling.importance import BLOCK_DRAWS
from pyro_gan.targets import Target

__all__ = ["SMC", "SMCReport", "SMCSamples"]

#: Prior draws to begin with, by default: about what a particle's moves on one rung cost.
DRAWS_PER_PARTICLE = 10

#: Rungs after which a ladder that does not reach the target is given up.
MAX_RUNGS = 200


class SMCReport(NamedTuple):
    """What a run cost and what it is worth.

    Attributes:
        log_normaliser: Estimate of log Z, nats; 0 for an exact ratio.
        log_normaliser_se: Its standard error, from the families' shares of the weight.
        betas: The ladder, from 0 to 1.
        ess_fraction: Effective share of the particles on every rung, after it was paid for and before resampling.
        acceptance: Mean acceptance on every rung, of the particles with a weight above zero.
        resampled: On which rungs particles made way.
        ancestors: Prior draws of which any descendant is among the outputs.
        effective_families: One over the sum of the families' squared shares: outputs of so many independent draws.
        distinct: Different positions among the outputs.
        num_draws: Prior draws that the run began with.
        num_forwards: Rows scored without a gradient.
        num_gradients: Rows scored with one.
        num_zero: Prior draws of weight zero, those whose score was NaN or infinite among them.
        num_invalid: Proposals rejected because a score or gradient was not finite.
        schedule: What was decided on the way; a run with it, `SMC(..., schedule=)`, has an unbiased normaliser.
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


class SMCSamples(NamedTuple):
    """Outputs of an `SMC`.

    Attributes:
        samples: Constrained latents by site, `(particle, *event)`, equally weighted.
        log_ratio: Log weight of each output, `(particle,)`, nats; `log r(G(z)) / T` for a latent posterior.
        report: Cost and worth.
    """

    samples: dict[str, Tensor]
    log_ratio: Float[Tensor, " particle"]
    report: SMCReport


class SMC:
    r"""A sequential Monte Carlo sampler: reweight, resample, move, from the prior to the target.

    On each rung the power of the weight rises as far as the particles' effective size allows,
    :math:`\mathrm{ESS} = ` `ess_threshold` :math:`\cdot` `num_particles`; they are resampled, systematically, and moved
    by a kernel that leaves that rung's law invariant, its step size tuned from rung to rung. Begun from more prior
    draws than particles, the first rung is importance resampling up to a milder target: prior draws cost a forward pass
    each, moves a gradient.

    The normaliser is consistent; a ladder and step sizes that depend on the particles leave it a bias of the order of
    one over their number. It is exactly unbiased in a run by a `schedule` that another run has made. Outputs are not
    independent: those of one family descend from one prior draw, and if the moves are too few to forget it they are
    near one another. `effective_families` is what is left in the worst case, the number of outputs in the best.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`; its observations and factors are the
            weight.
        num_particles: Particles, and outputs.
        kernel: Makes the kernel of a target: `MALA`, `PCN`, or `lambda target: BatchHMC(target, num_steps=5)`.
        ess_threshold: Effective share of the particles below which they are resampled, and to which a rung goes.
        num_moves: Transitions on a rung.
        num_draws: Prior draws to begin with; ten times as many as particles if None.
        schedule: An earlier report's, in place of a ladder, step sizes and moves found on the way.

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
        if num_particles < 2:
            raise ValueError(
                f"Expected num_particles of at least 2; got {num_particles}. One particle cannot make way for another; "
                "a single chain is VectorizedMCMC's."
            )
        if not 0 < ess_threshold < 1:
            raise ValueError(
                f"Expected ess_threshold inside (0, 1); got {ess_threshold}. It is a share of the particles: near 1 "
                "the ladder has many rungs, near 0 few."
            )
        if num_moves < 1:
            raise ValueError(
                f"Expected num_moves of at least 1; got {num_moves}. Unmoved particles are copies."
            )
        if num_draws is not None and num_draws < num_particles:
            raise ValueError(
                f"Expected num_draws of at least num_particles={num_particles}; got {num_draws}."
            )
        check_factory(kernel)
        if schedule is not None:
            schedule.check()
        self.model = model
        self.num_particles = num_particles
        self.kernel = kernel
        self.ess_threshold = ess_threshold
        self.num_moves = num_moves if schedule is None else schedule.num_moves
        self.num_draws = DRAWS_PER_PARTICLE * num_particles if num_draws is None else num_draws
        self.schedule = schedule

    @torch.no_grad()
    def __call__(self, *args: Any, **context: Any) -> SMCSamples:
        """Take the particles from the prior to the target.

        Args:
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Returns:
            Equally weighted outputs in random order, their log weights, and a report.

        Raises:
            ValueError: if the model does not say what is prior and what is weight, all prior draws have a weight of
                zero, or 200 rungs do not reach the target.
        """
        target = find_target(self.model, args, context)
        path = Path(target)
        mover = Mover(self.kernel, path)
        num = self.num_particles
        path.place(_prior_draws(target, self.num_draws))
        num_zero = int((~torch.isfinite(path.log_weights)).sum())
        root = torch.arange(self.num_draws, device=target.device)
        log_share = torch.zeros(self.num_draws, dtype=torch.float64)
        log_z, families = 0.0, torch.zeros(0)
        betas, ess_fraction, acceptance, resampled = [0.0], [], [], []
        steps, num_invalid = [mover.step_sizes], 0
        while betas[-1] < 1:
            log_weight = _usable(path.log_weights)
            beta = self._next(log_weight, log_share, betas)
            log_share = log_share.log_softmax(0) + (beta - betas[-1]) * log_weight
            gain = torch.logsumexp(log_share, 0)
            if not torch.isfinite(gain):
                raise ValueError(
                    f"Expected a particle with a weight above zero; all {len(log_share)} have none, {num_zero} of "
                    f"{self.num_draws} prior draws from the start. Look at log_ratio(generator(z)), or raise num_draws."
                )
            log_z += float(gain)
            share = log_share.softmax(0)
            families = _families(share, root)
            ess = 1 / float(share.square().sum())
            makes_way = (
                self.schedule is None or beta == 1 or len(share) > num or ess < self.ess_threshold * num
            )
            if makes_way:
                index = systematic(log_share, num).to(target.device)
                path.keep(index)
                root, log_share = root[index], torch.zeros(num, dtype=torch.float64)
            path.beta = beta
            moved = mover.move(self.num_moves, self._step(len(betas)))
            betas.append(beta)
            ess_fraction.append(min(1.0, ess / num))
            acceptance.append(moved.acceptance)
            resampled.append(makes_way)
            steps.append(moved.step_size)
            num_invalid += moved.num_invalid
        used = None if steps[0] is None else torch.stack([step for step in steps if step is not None])
        sizes = _families(torch.full((num,), 1 / num, dtype=torch.float64), root)
        report = SMCReport(
            log_normaliser=log_z,
            log_normaliser_se=math.sqrt(max(0.0, float(families.square().sum()) - 1 / self.num_draws)),
            betas=tuple(betas),
            ess_fraction=tuple(ess_fraction),
            acceptance=tuple(acceptance),
            resampled=tuple(resampled),
            ancestors=len(sizes),
            effective_families=1 / float(sizes.square().sum()),
            distinct=len(path.z.unique(dim=0)),
            num_draws=self.num_draws,
            num_forwards=path.num_forwards,
            num_gradients=path.num_gradients,
            num_zero=num_zero,
            num_invalid=num_invalid,
            schedule=Schedule(tuple(betas), used, self.num_moves),
        )
        return SMCSamples(constrained(target, path.z), path.log_weights, report)

    def _next(self, log_weight: Tensor, log_share: Tensor, betas: list[float]) -> float:
        if self.schedule is not None:
            return self.schedule.betas[len(betas)]
        if len(betas) > MAX_RUNGS:
            raise ValueError(
                f"{MAX_RUNGS} rungs have only come to a power of {betas[-1]:.3g} of the weight: the target is too far "
                "from the prior for so many particles. Lower ess_threshold, raise num_particles or num_draws, or cap "
                "the log ratio."
            )
        return next_beta(
            log_weight, log_share, beta=betas[-1], min_ess=self.ess_threshold * self.num_particles
        )

    def _step(self, rung: int) -> Tensor | None:
        if self.schedule is None or self.schedule.step_sizes is None:
            return None
        return self.schedule.step_sizes[rung]


def _prior_draws(target: Target, num_draws: int) -> Tensor:
    return torch.cat(
        [
            target.sample_prior(min(BLOCK_DRAWS, num_draws - start))
            for start in range(0, num_draws, BLOCK_DRAWS)
        ]
    )


def _usable(log_weights: Tensor) -> Tensor:
    """Return log weights in float64 on the CPU, minus infinity where they are NaN or plus infinity."""
    values = log_weights.to("cpu", torch.float64)
    return values.masked_fill(torch.isnan(values) | torch.isposinf(values), -torch.inf)


def _families(share: Tensor, root: Tensor) -> Tensor:
    """Return each family's share of the weight, in no order that matters."""
    founders, family = root.cpu().unique(return_inverse=True)
    return torch.zeros(len(founders), dtype=share.dtype).index_add_(0, family, share)
