"""The demo's samplers: one run of each, what it costs, and what its own diagnostics say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pyro_gan import ImportanceResampler, VectorizedMCMC
from pyro_gan.demo.networks import Ratio
from pyro_gan.demo.results import Row
from pyro_gan.demo.settings import Settings
from pyro_gan.mcmc import MALA, PCN, ULA, BatchHMC, BatchKernel, IndependenceMH, RandomWalk
from pyro_gan.resampling import RejectionSampler

__all__ = ["LEAPFROG_STEPS", "MIN_OUTPUTS", "SAMPLERS", "metered", "sample"]

#: Fewer outputs than this cannot be judged: the covariance of the pixels needs more outputs than there are pixels.
MIN_OUTPUTS = 8 * 8 + 1

#: DRS's percentile, and the mean acceptance of budgeted rejection.
GAMMA, BUDGET = 95, 0.3

#: A few: ten steps of the length that adaptation finds would return to where they started.
LEAPFROG_STEPS = 3

#: Cost of a forward pass of both networks for one latent. With its gradient it takes about three times as long.
VALUE, VALUE_AND_GRADIENT = 1, 3

#: Every sampler by the name that the table gives it.
SAMPLERS: dict[str, Callable[[Ratio], ImportanceResampler | RejectionSampler | BatchKernel]] = {
    "ImportanceResampler": lambda r: ImportanceResampler(r.posterior),
    "RejectionSampler": lambda r: RejectionSampler(r.posterior),
    f"DRS (RejectionSampler, gamma {GAMMA})": lambda r: RejectionSampler(r.posterior, gamma=GAMMA),
    "OBRS (RejectionSampler, budget)": lambda r: RejectionSampler(r.posterior, budget=BUDGET),
    "IndependenceMH from the prior": lambda r: IndependenceMH(r.posterior),
    # As in the paper, chains that accept nothing start again from the prior.
    "MH-GAN (IndependenceMH from data)": lambda r: IndependenceMH(
        r.posterior, initial_log_ratio=r(r.unseen), policy="restart"
    ),
    "RandomWalk": lambda r: RandomWalk(r.posterior),
    "PCN": lambda r: PCN(r.posterior),
    "DDLS (ULA)": lambda r: ULA(r.posterior),
    "REP-GAN (MALA)": lambda r: MALA(r.posterior),
    "HMC (BatchHMC)": lambda r: BatchHMC(r.posterior, num_steps=LEAPFROG_STEPS),
}


def sample(name: str, ratio: Ratio, settings: Settings, *, progress: bool) -> Row:
    """Run one sampler.

    Args:
        name: A key of `SAMPLERS`.
        ratio: What to sample.
        settings: Outputs, and what they may cost.
        progress: Show a bar.

    Returns:
        As many independent outputs as there are chains, of a chain its last state; fewer where a sampler found no more.
        Their figures, None where a sampler has no such figure: `exact` is "yes" if every output follows the target,
        "limit" if it does in the limit of many draws or steps, else "no". `ess`: for chains the smallest bulk effective
        sample size over all latents and the log ratio; for the resampler that of its weights; for rejection, whose
        outputs are independent, their number. `acceptance`: the share accepted of a chain's proposals or of rejection's
        draws. `rhat`: the largest over the same as `ess`. `never_moved`: the share of chains that accepted nothing.
        `cost`: forwards and twice the gradients per output.

    Raises:
        ValueError: if the resampler finds too few effective draws, or a sampler too few outputs to judge.
    """
    assert isinstance(ratio.posterior.log_ratio, nn.Module)
    figures: dict[str, Any] = {"acceptance": None, "rhat": None, "never_moved": None}
    start = time.perf_counter()
    with metered(ratio.posterior.log_ratio) as costs:
        z, found, mcmc = _outputs(SAMPLERS[name](ratio), settings, progress)
    seconds, count = time.perf_counter() - start, len(z)
    if count < MIN_OUTPUTS:
        raise ValueError(
            f"{count} of {settings.num_chains} outputs for a cost of {sum(costs)}; at least {MIN_OUTPUTS} are needed "
            "to judge them."
        )
    figures |= found | ({} if mcmc is None else _convergence(mcmc))
    figures |= {"outputs": count, "distinct": len(z.unique(dim=0)), "cost": sum(costs) / count}
    figures |= {"seconds": seconds, "ess_per_second": figures["ess"] / seconds}
    images = ratio.posterior.decode(z)
    return Row(ratio.name, name, images, figures | ratio.mean(images), mcmc)


def _outputs(
    sampler: ImportanceResampler | RejectionSampler | BatchKernel, settings: Settings, progress: bool
) -> tuple[Tensor, dict[str, Any], VectorizedMCMC | None]:
    num_outputs = settings.num_chains
    if isinstance(sampler, ImportanceResampler):
        resampled = sampler(num_outputs, settings.num_prior_draws)
        return resampled.samples["z"], {"exact": "limit", "ess": resampled.report.tail.ess}, None
    if isinstance(sampler, RejectionSampler):
        # The budget of all chains together.
        drawn = sampler(num_outputs, max_draws=num_outputs * settings.chain_cost)
        z, exact = drawn.samples["z"], "yes" if drawn.report.exact else "no"
        return z, {"exact": exact, "ess": float(len(z)), "acceptance": drawn.report.acceptance}, None
    cost = VALUE_AND_GRADIENT if sampler.uses_gradient else VALUE
    schedule = settings.steps(cost * (LEAPFROG_STEPS if isinstance(sampler, BatchHMC) else 1))
    mcmc = VectorizedMCMC(sampler, **schedule, num_chains=num_outputs, disable_progbar=not progress)
    mcmc.run()
    figures = {"exact": "limit" if sampler.is_exact else "no", "never_moved": mcmc.never_moved}
    figures |= {"acceptance": float(mcmc.sample_stats["accept_prob"].mean())}
    return mcmc.get_samples(group_by_chain=True)["z"][:, -1], figures, mcmc


@contextmanager
def metered(network: nn.Module) -> Iterator[list[int]]:
    """Collect what the calls of a network inside the block cost."""
    costs: list[int] = []

    def add(network: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        costs.append(len(inputs[0]) * (VALUE_AND_GRADIENT if inputs[0].requires_grad else VALUE))

    with network.register_forward_hook(add):
        yield costs


def _convergence(mcmc: VectorizedMCMC) -> dict[str, float]:
    """Return ArviZ's largest R-hat and smallest effective sample size of all latents and the log ratio."""
    import arviz

    z, log_ratio = mcmc.get_samples(group_by_chain=True)["z"], mcmc.sample_stats["log_ratio"]
    columns = [column.cpu().numpy() for column in (*z.unbind(-1), log_ratio)]
    rhats, sizes = ([float(f(column)) for column in columns] for f in (arviz.rhat, arviz.ess))
    return {"rhat": max(rhats), "ess": min(sizes)}
