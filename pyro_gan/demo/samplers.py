"""The demo's samplers, one run each, and what their own diagnostics say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC
from pyro_gan.demo.cost import VALUE, VALUE_AND_GRADIENT, counted
from pyro_gan.demo.ratios import Ratio
from pyro_gan.demo.settings import Settings
from pyro_gan.mcmc import MALA, PCN, ULA, BatchHMC, BatchKernel, IndependenceMH, RandomWalk
from pyro_gan.resampling import RejectionSampler

__all__ = ["GAMMA", "MAX_RHAT", "MIN_OUTPUTS", "SAMPLERS", "Outputs", "sample"]

#: Above this a run has not converged (Vehtari et al., 2021).
MAX_RHAT = 1.01

#: Fewer outputs than this cannot be judged: with no more of them than pixels they have no covariance to compare.
MIN_OUTPUTS = 8 * 8 + 1

#: DRS's percentile.
GAMMA = 95

#: Whether outputs follow the target: each as it is, in the limit of many draws or steps, or not even then.
Exact = Literal["yes", "limit", "no"]


class Outputs(NamedTuple):
    """One sampler's outputs and the figures of its run; NaN where a sampler has no such figure."""

    #: `(output, latent_dim)`: of chains the last state of each.
    z: Float[Tensor, "output latent"]
    exact: Exact
    #: Smallest bulk effective sample size over all latents and the log ratio; of a resampler, that of its weights; of
    #: rejection, whose outputs are independent, their number.
    ess: float
    #: Of a chain's proposals, or of a rejection sampler's draws, the share accepted.
    acceptance: float = math.nan
    #: Largest rank-normalised split R-hat over the same as the effective sample size.
    rhat: float = math.nan
    #: Share of the chains that accepted nothing.
    never_moved: float = math.nan
    seconds: float = math.nan
    #: Of an output: forwards, and twice the gradients.
    cost: float = math.nan
    mcmc: VectorizedMCMC | None = None

    @property
    def distinct(self) -> int:
        """Outputs without the copies."""
        return len(self.z.unique(dim=0))


def sample(name: str, ratio: Ratio, settings: Settings, *, progress: bool) -> Outputs:
    """Run one sampler.

    Args:
        name: A key of `SAMPLERS`.
        ratio: What to sample.
        settings: Outputs, and what they may cost.
        progress: Show a bar.

    Returns:
        As many independent outputs as there are chains; fewer where a sampler found no more.

    Raises:
        ValueError: if the resampler finds too few effective draws, or a sampler too few outputs to judge.
    """
    assert isinstance(ratio.posterior.log_ratio, nn.Module)
    with counted(ratio.posterior.log_ratio) as counter:
        start = time.perf_counter()
        outputs = SAMPLERS[name](ratio, settings, progress)
        seconds = time.perf_counter() - start
    if len(outputs.z) < MIN_OUTPUTS:
        raise ValueError(
            f"{len(outputs.z)} of {settings.num_chains} outputs for a cost of {counter.total}; {MIN_OUTPUTS} are the "
            "fewest that can be judged."
        )
    if outputs.mcmc is not None:
        rhat, ess = _convergence(outputs.mcmc)
        outputs = outputs._replace(rhat=rhat, ess=ess)
    return outputs._replace(seconds=seconds, cost=counter.total / len(outputs.z))


def _resample(ratio: Ratio, settings: Settings, progress: bool) -> Outputs:
    drawn = ImportanceResampler(ratio.posterior)(settings.num_chains, settings.resampler_draws)
    return Outputs(drawn.samples["z"], "limit", drawn.report.tail.ess)


def _reject(options: Callable[[Settings], dict[str, Any]]) -> Callable[[Ratio, Settings, bool], Outputs]:
    def run(ratio: Ratio, settings: Settings, progress: bool) -> Outputs:
        sampler = RejectionSampler(ratio.posterior, **options(settings))
        # At most what the chains may cost.
        drawn = sampler(settings.num_chains, max_draws=settings.num_chains * settings.chain_cost)
        z, report = drawn.samples["z"], drawn.report
        return Outputs(z, "yes" if report.exact else "no", float(len(z)), report.acceptance)

    return run


def _chains(
    make_kernel: Callable[[Ratio, Settings], BatchKernel],
    cost_of_a_step: Callable[[Settings], int],
    exact: Exact = "limit",
) -> Callable[[Ratio, Settings, bool], Outputs]:
    def run(ratio: Ratio, settings: Settings, progress: bool) -> Outputs:
        warmup, draws, thin = settings.steps(cost_of_a_step(settings))
        mcmc = VectorizedMCMC(
            make_kernel(ratio, settings),
            num_samples=draws,
            warmup_steps=warmup,
            num_chains=settings.num_chains,
            disable_progbar=not progress,
            thin=thin,
        )
        mcmc.run()
        z = mcmc.get_samples(group_by_chain=True)["z"]
        acceptance = float(mcmc.sample_stats["accept_prob"].mean())
        return Outputs(z[:, -1], exact, math.nan, acceptance, never_moved=mcmc.never_moved, mcmc=mcmc)

    return run


def _from_data(ratio: Ratio, settings: Settings) -> BatchKernel:
    # As MH-GAN has it: chains that accept nothing start again, from the prior.
    return IndependenceMH(ratio.posterior, initial_log_ratio=ratio.log_ratio(ratio.unseen), policy="restart")


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


def _on(kernel: Callable[[LatentPosterior], BatchKernel]) -> Callable[[Ratio, Settings], BatchKernel]:
    return lambda ratio, settings: kernel(ratio.posterior)


def _value(settings: Settings) -> int:
    return VALUE


def _gradient(settings: Settings) -> int:
    return VALUE_AND_GRADIENT


#: Every sampler by the name that the table gives it.
SAMPLERS: dict[str, Callable[[Ratio, Settings, bool], Outputs]] = {
    "ImportanceResampler": _resample,
    "RejectionSampler": _reject(lambda s: {}),
    f"DRS (RejectionSampler, gamma {GAMMA})": _reject(lambda s: {"gamma": GAMMA}),
    "OBRS (RejectionSampler, budget)": _reject(lambda s: {"budget": s.budget}),
    "IndependenceMH from the prior": _chains(_on(IndependenceMH), _value),
    "MH-GAN (IndependenceMH from data)": _chains(_from_data, _value),
    "RandomWalk": _chains(_on(RandomWalk), _value),
    "PCN": _chains(_on(PCN), _value),
    "DDLS (ULA)": _chains(_on(ULA), _gradient, exact="no"),
    "REP-GAN (MALA)": _chains(_on(MALA), _gradient),
    "HMC (BatchHMC)": _chains(
        lambda ratio, s: BatchHMC(ratio.posterior, num_steps=s.leapfrog_steps),
        lambda s: VALUE_AND_GRADIENT * s.leapfrog_steps,
    ),
}
