"""The demo's samplers, one run each, and what their own diagnostics say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC
from pyro_gan.demo.settings import Settings
from pyro_gan.mcmc import MALA, BatchHMC, IndependenceMH

__all__ = ["MAX_RHAT", "SAMPLERS", "Outputs", "sample"]

#: Above this a run has not converged (Vehtari et al., 2021).
MAX_RHAT = 1.01


class Outputs(NamedTuple):
    """One sampler's outputs and the figures of its run; NaN where a sampler has no such figure."""

    #: `(output, latent_dim)`: a chain's last state each.
    z: Float[Tensor, "output latent"]
    seconds: float
    acceptance: float = math.nan
    #: Largest rank-normalised split R-hat over all latents and the log ratio.
    rhat: float = math.nan
    #: Smallest bulk effective sample size over the same; of a resampler, that of its weights.
    ess: float = math.nan
    #: Share of the chains that accepted nothing.
    never_moved: float = math.nan
    #: Share of the resampler's outputs that are copies of another.
    copies: float = math.nan
    mcmc: VectorizedMCMC | None = None


def sample(name: str, posterior: LatentPosterior, settings: Settings, *, progress: bool) -> Outputs:
    """Run one sampler.

    Args:
        name: A key of `SAMPLERS`.
        posterior: What to sample.
        settings: Chains, steps, draws.
        progress: Show a bar.

    Returns:
        As many independent outputs as there are chains.

    Raises:
        ValueError: if the resampler finds too few effective draws.
    """
    return SAMPLERS[name](posterior, settings, progress)


def _resample(posterior: LatentPosterior, settings: Settings, progress: bool) -> Outputs:
    start = time.perf_counter()
    drawn = ImportanceResampler(posterior)(settings.num_chains, settings.resampler_draws)
    seconds = time.perf_counter() - start
    copies = 1 - drawn.report.distinct / settings.num_chains
    return Outputs(drawn.samples["z"], seconds, ess=drawn.report.tail.ess, copies=copies)


def _chains(
    make_kernel: Callable[[LatentPosterior, Settings], Any], steps: Callable[[Settings], tuple[int, int, int]]
) -> Callable[[LatentPosterior, Settings, bool], Outputs]:
    def run(posterior: LatentPosterior, settings: Settings, progress: bool) -> Outputs:
        warmup, draws, thin = steps(settings)
        mcmc = VectorizedMCMC(
            make_kernel(posterior, settings),
            num_samples=draws,
            warmup_steps=warmup,
            num_chains=settings.num_chains,
            disable_progbar=not progress,
            thin=thin,
        )
        start = time.perf_counter()
        mcmc.run()
        z = mcmc.get_samples(group_by_chain=True)["z"]
        seconds = time.perf_counter() - start
        acceptance = float(mcmc.sample_stats["accept_prob"].mean())
        return Outputs(z[:, -1], seconds, acceptance, *_convergence(mcmc), mcmc.never_moved, mcmc=mcmc)

    return run


def _convergence(mcmc: VectorizedMCMC) -> tuple[float, float]:
    """Return ArviZ's worst R-hat and effective sample size, the log ratio among the variables."""
    import arviz

    draws = {
        "z": mcmc.get_samples(group_by_chain=True)["z"].cpu().numpy(),
        "log_ratio": mcmc.sample_stats["log_ratio"].cpu().numpy(),
    }
    rhat, ess = (
        [float(value) for column in draws.values() for value in _each(function, column)]
        for function in (arviz.rhat, arviz.ess)
    )
    return max(rhat), min(ess)


def _each(function: Any, column: Any) -> list[Any]:
    flat = column.reshape(*column.shape[:2], -1)
    return [function(flat[:, :, index]) for index in range(flat.shape[2])]


#: Every sampler by the name that the table gives it.
SAMPLERS: dict[str, Callable[[LatentPosterior, Settings, bool], Outputs]] = {
    "ImportanceResampler": _resample,
    "MH-GAN (IndependenceMH)": _chains(lambda gan, _: IndependenceMH(gan), lambda s: s.mh_steps),
    "REP-GAN (MALA)": _chains(lambda gan, _: MALA(gan), lambda s: s.mala_steps),
    "HMC (BatchHMC)": _chains(
        lambda gan, s: BatchHMC(gan, num_steps=s.leapfrog_steps), lambda s: s.hmc_steps
    ),
}
