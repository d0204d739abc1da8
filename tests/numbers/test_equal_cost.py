"""All samplers on the zoo's pairs at equal cost: their outputs for the same number of forwards and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pyro
import pytest
import torch
from torch import Tensor

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC
from pyro_gan.importance import WeightTail
from pyro_gan.mcmc import MALA, PCN, ULA, BatchHMC, BatchKernel, IndependenceMH, RandomWalk
from pyro_gan.resampling import RejectionSampler
from tests.numbers import gaussians25, mnist
from tests.numbers.judge import NUM_OUTPUTS as JUDGED
from tests.numbers.judge import TRUTH_DRAWS, TRUTH_RUNS, Run, agrees, estimate, worst_r_hat
from tests.numbers.size import FULL

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore")]

#: Outputs, and the cost of each: a forward of both networks counts 1, a gradient 2, so a value with its gradient 3.
NUM_OUTPUTS, COST = 4000 if FULL else 1000, 100
DRAWS = 10
NUM_CHAINS = NUM_OUTPUTS // DRAWS


class Counter:
    """A log ratio that counts its evaluations."""

    def __init__(self, log_ratio: Callable[[Tensor], Tensor]) -> None:
        self.log_ratio, self.cost = log_ratio, 0
        self.upper_bound = getattr(log_ratio, "upper_bound", None)

    def __call__(self, x: Tensor) -> Tensor:
        self.cost += len(x) * (3 if x.requires_grad else 1)
        return self.log_ratio(x)


class Result(NamedTuple):
    z: Tensor
    log_ratio: Tensor
    design_effect: float
    figures: dict[str, Any]


Sampler = Callable[[LatentPosterior, Tensor], Result]


def alone(gan: LatentPosterior, scores: Tensor) -> Result:
    z = gan.prior.sample((NUM_OUTPUTS,))
    return Result(z, gan.log_weight({"z": gan.transforms["z"](z)}), 1.0, {})


def resampled(gan: LatentPosterior, scores: Tensor) -> Result:
    samples, log_ratio, report = ImportanceResampler(gan, min_ess=1)(NUM_OUTPUTS, NUM_OUTPUTS * COST)
    return Result(samples["z"], log_ratio, 1 + NUM_OUTPUTS / report.tail.ess, {})


def rejected(**options: Any) -> Sampler:
    def run(gan: LatentPosterior, scores: Tensor) -> Result:
        sampler = RejectionSampler(gan, **options)
        samples, log_ratio, report = sampler(NUM_OUTPUTS, max_draws=NUM_OUTPUTS * COST)
        figures = {"acceptance": report.acceptance, "exact": report.exact, "above_bound": report.num_exceedances}
        return Result(samples["z"], log_ratio, 1.0, figures)

    return run


def chains(make: Callable[[LatentPosterior, Tensor], BatchKernel], cost_of_a_step: int) -> Sampler:
    def run(gan: LatentPosterior, scores: Tensor) -> Result:
        steps = COST * DRAWS // cost_of_a_step
        thin = max(1, round(0.7 * steps / DRAWS))
        kernel = make(gan, scores)
        mcmc = VectorizedMCMC(
            kernel, DRAWS, steps - thin * DRAWS, num_chains=NUM_CHAINS, thin=thin, disable_progbar=True
        )
        mcmc.run()
        log_ratio = mcmc.sample_stats["log_ratio"].double()
        effect = float(DRAWS * log_ratio.mean(1).var() / log_ratio.var())
        figures = {
            "acceptance": float(mcmc.sample_stats["accept_prob"].mean()),
            "never_moved": mcmc.never_moved,
            "frozen": mcmc.frozen,
            "r_hat": worst_r_hat(mcmc),
        }
        if getattr(kernel, "data_start", None) is not None:
            figures |= {"waiting": kernel.data_start.num_waiting / NUM_CHAINS}
        return Result(mcmc.get_samples()["z"], log_ratio.flatten().to(scores), max(effect, 1.0), figures)

    return run


def real_start(policy: str) -> Callable[[LatentPosterior, Tensor], BatchKernel]:
    return lambda gan, scores: IndependenceMH(gan, initial_log_ratio=scores, policy=policy)


def walk(gan: LatentPosterior, scores: Tensor) -> BatchKernel:
    """Return pCN in a Gaussian with the mean and standard deviation of the prior."""
    z = gan.transforms["z"](gan.prior.sample((10_000,)))
    return PCN(gan, proposal=torch.distributions.Independent(torch.distributions.Normal(z.mean(0), z.std(0)), 1))


SAMPLERS: dict[str, Sampler] = {
    "G alone": alone,
    "ImportanceResampler": resampled,
    "RejectionSampler": rejected(),
    "RejectionSampler, gamma 95 (DRS)": rejected(gamma=95),
    "RejectionSampler, budget (OBRS)": rejected(budget=1 / COST),
    "IndependenceMH": chains(lambda gan, _: IndependenceMH(gan), 1),
    "IndependenceMH, real data, continue": chains(real_start("continue"), 1),
    "IndependenceMH, real data, drop": chains(real_start("drop"), 1),
    "IndependenceMH, real data, restart (MH-GAN)": chains(real_start("restart"), 1),
    "RandomWalk": chains(lambda gan, _: RandomWalk(gan), 1),
    "PCN": chains(walk, 1),
    "ULA (DDLS)": chains(lambda gan, _: ULA(gan), 3),
    "MALA (REP-GAN)": chains(lambda gan, _: MALA(gan), 3),
    "BatchHMC": chains(lambda gan, _: BatchHMC(gan, num_steps=5), 15),
}
UNBIASED = ("ImportanceResampler", "IndependenceMH")
ALL_PAIRS = [
    (mnist, "own D, Platt", "mnist"),
    (mnist, "fresh conv critic", "mnist"),
    (gaussians25, "own critic, Platt", "gaussians25"),
    (gaussians25, "fresh MLP", "gaussians25"),
]
PAIRS = ALL_PAIRS if FULL else [ALL_PAIRS[0], ALL_PAIRS[-1]]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("pair", "ratio", "name"), PAIRS, ids=[f"{name}, {ratio}" for _, ratio, name in PAIRS])
def test_equal_cost(pair: ModuleType, ratio: str, name: str, sampler: str, figure) -> None:
    posterior, true = pair.POSTERIORS[ratio](0), pair.true_values(ratio)
    pyro.set_rng_seed(7)
    counter = Counter(posterior.log_ratio)
    gan = LatentPosterior(posterior.generator, counter, posterior.prior)
    with torch.no_grad():
        scores = posterior.log_ratio(pair.held_out())
    counter.cost = 0
    result = SAMPLERS[sampler](gan, scores)
    cost = counter.cost
    x = gan.decode(result.z)
    ours = estimate(Run(x, result.log_ratio, result.design_effect), pair.statistics)
    gaps = agrees(ours, true)
    tail: WeightTail = true.tail
    if sampler == "G alone":
        exact = {key: float(value) for key, (value, _) in true.values.items() if value.dim() == 0}
        figure(
            "equal cost",
            pair=name,
            ratio=ratio,
            sampler="truth",
            outputs=TRUTH_RUNS * JUDGED,
            cost=TRUTH_DRAWS / JUDGED,
            **exact,
            ess_fraction=tail.ess_fraction,
        )
    figure(
        "equal cost",
        pair=name,
        ratio=ratio,
        sampler=sampler,
        outputs=len(result.z),
        cost=round(cost / max(len(result.z), 1), 1),
        distinct=len(result.z.unique(dim=0)) / len(result.z),
        **{key: float(value) for key, (value, _) in ours.items() if value.dim() == 0},
        gap_in_se=max(gaps.values()),
        ess_fraction=tail.ess_fraction,
        design_effect=result.design_effect,
        **result.figures,
    )
    # All samplers cost the same, except for the extra steps of a start at real data.
    if "real data" not in sampler:
        assert cost <= 1.05 * NUM_OUTPUTS * COST + 20_000
    assert math.isfinite(max(gaps.values()))
