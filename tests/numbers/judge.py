"""The truth by importance resampling, chains to compare with it, and the statistics that judge all outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC
from pyro_gan.importance import WeightTail
from pyro_gan.mcmc import BatchKernel, IndependenceMH
from tests.numbers.size import FULL
from tests.statistics import NUM_SE

__all__ = [
    "NUM_OUTPUTS",
    "TRUTH_DRAWS",
    "TRUTH_RUNS",
    "Estimates",
    "Run",
    "Schedule",
    "agrees",
    "compare_with_truth",
    "estimate",
    "resample",
    "shares",
    "truth",
    "worst_r_hat",
]

NUM_OUTPUTS = 10_000
TRUTH_RUNS, TRUTH_DRAWS = 10, 1_000_000 if FULL else 200_000

# Maps data to named statistics, each a vector or a number, with standard errors for independent data.
Statistics = Callable[[Tensor], dict[str, tuple[Tensor, Tensor]]]


class Run(NamedTuple):
    """Outputs of a sampler with their log ratios, and the ratio of their variances to those of independent draws."""

    x: Tensor
    log_ratio: Tensor
    design_effect: float


class Schedule(NamedTuple):
    """The number of chains and their length."""

    num_chains: int
    warmup_steps: int
    thin: int


class Estimates(NamedTuple):
    """Statistics with standard errors, by name."""

    values: dict[str, tuple[Tensor, Tensor]]
    tail: WeightTail


def resample(gan: LatentPosterior, num_draws: int) -> tuple[Run, WeightTail]:
    """Resample 10 000 outputs from prior draws."""
    result = ImportanceResampler(gan)(NUM_OUTPUTS, num_draws)
    # Two errors add up: that of a sample of outputs, and that of the weighted draws it was taken from.
    effect = 1 + NUM_OUTPUTS / result.report.tail.ess
    return Run(gan.decode(result.samples[gan.site]), result.log_ratio, effect), result.report.tail


def truth(gan: LatentPosterior, statistics: Statistics) -> Estimates:
    """Resample many prior draws, ten times over; the error is that of the mean of ten."""
    runs = []
    for _ in range(TRUTH_RUNS):
        run, tail = resample(gan, TRUTH_DRAWS)
        runs.append({name: value for name, (value, _) in estimate(run, statistics).items()})
    values = {}
    for name in runs[0]:
        stacked = torch.stack([run[name] for run in runs])
        values[name] = (stacked.mean(0), stacked.std(0) / math.sqrt(TRUTH_RUNS))
    return Estimates(values, tail)


def chains(kernel: BatchKernel, gan: LatentPosterior, schedule: Schedule) -> tuple[Run, VectorizedMCMC]:
    """Run chains to 10 000 outputs, and measure the correlation of a chain's outputs."""
    num_chains, warmup_steps, thin = schedule
    draws = NUM_OUTPUTS // num_chains
    mcmc = VectorizedMCMC(kernel, draws, warmup_steps, num_chains=num_chains, thin=thin, disable_progbar=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run()
    log_ratio = mcmc.sample_stats["log_ratio"].double()
    effect = float(draws * log_ratio.mean(1).var() / log_ratio.var())
    return Run(gan.decode(mcmc.get_samples()[gan.site]), log_ratio.flatten(), max(effect, 1.0)), mcmc


def estimate(run: Run, statistics: Statistics) -> dict[str, tuple[Tensor, Tensor]]:
    """Estimate the mean log ratio and the statistics of a run's outputs, with errors widened by its design effect."""
    log_ratio = run.log_ratio.double()
    values = {"mean log r": (log_ratio.mean(), log_ratio.std() / math.sqrt(len(log_ratio))), **statistics(run.x)}
    widen = math.sqrt(run.design_effect)
    return {name: (value.double(), widen * se.double()) for name, (value, se) in values.items()}


def agrees(ours: dict[str, tuple[Tensor, Tensor]], truth: Estimates) -> dict[str, float]:
    """Return, for every statistic, the largest gap to the truth in combined standard errors."""
    gaps = {}
    for name, (value, se) in ours.items():
        true, true_se = truth.values[name]
        gaps[name] = float(((value - true).abs() / (se.square() + true_se.square()).sqrt().clamp(min=1e-12)).max())
    return gaps


def worst_r_hat(mcmc: VectorizedMCMC) -> float:
    """Return the largest split R-hat over latents and log ratio."""
    from pyro.ops.stats import split_gelman_rubin

    r_hats = [mcmc.diagnostics()[name]["r_hat"].max() for name in mcmc.get_samples()]
    return float(torch.stack([*r_hats, split_gelman_rubin(mcmc.sample_stats["log_ratio"])]).max())


def compare_with_truth(
    pair: str,
    ratio: str,
    gan: LatentPosterior,
    true: Estimates,
    statistics: Statistics,
    figure: Callable[..., None],
    *,
    draws: int,
    independence: Schedule,
    local: dict[str, tuple[BatchKernel, Schedule]],
) -> None:
    """Assert that exact samplers agree with the truth, and that local ones agree or have a large R-hat."""
    figure(f"{pair} truth", ratio=ratio, ess_fraction=true.tail.ess_fraction, **short(true.values))

    def gaps(sampler: str, run: Run, **values: Any) -> dict[str, float]:
        ours = estimate(run, statistics)
        found = agrees(ours, true)
        figure(f"{pair} sampler", ratio=ratio, sampler=sampler, **values, **short(ours), gaps_in_se=found)
        return found

    run, _ = resample(gan, draws)
    resampled = gaps("ImportanceResampler", run, draws=draws)
    run, mcmc = chains(IndependenceMH(gan), gan, independence)
    accepted = float(mcmc.sample_stats["accept_prob"].mean())
    independent = gaps("IndependenceMH", run, acceptance=accepted)
    assert mcmc.never_moved == 0
    for sampler, found in {"ImportanceResampler": resampled, "IndependenceMH": independent}.items():
        for name, gap in found.items():
            assert gap <= NUM_SE, f"{sampler}: {name} is {gap:.1f} combined standard errors from the truth"
    for name, (kernel, schedule) in local.items():
        run, mcmc = chains(kernel, gan, schedule)
        accepted, r_hat = float(mcmc.sample_stats["accept_prob"].mean()), worst_r_hat(mcmc)
        found = gaps(name, run, acceptance=accepted, r_hat=r_hat, never_moved=mcmc.never_moved)
        # No sampler may be far from the truth without a diagnostic that shows it.
        assert max(found.values()) <= NUM_SE or r_hat > 1.01, f"{name} is off and its R-hat is {r_hat:.3f}"


def shares(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of categories with their binomial errors (never 0: an empty class may be empty by chance)."""
    total = counts.sum()
    share = counts.double() / total
    floor = (counts.double() + 1) / (total + 2)
    return share, (floor * (1 - floor) / total).sqrt()


def short(values: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Return statistics as plain numbers to record."""
    return {name: [round(v, 5) for v in torch.atleast_1d(value).tolist()] for name, (value, _) in values.items()}
