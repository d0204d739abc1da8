"""Which sampler, at one cost, for a sharp ratio, where one in a thousand or ten thousand prior draws counts?

Two targets are known exactly, a Gaussian in ten dimensions and 25 needles in two; the third is the zoo's MNIST GAN with
a fresh conv critic, trained until it separates, at two temperatures. The default takes minutes: few repeats, and no
MNIST. `PYRO_GAN_NUMBERS=full` makes the full table; `python -m tests.numbers.test_sharp_ratio`
prints it from numbers.json.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, LogRatio, VectorizedMCMC, fit_log_ratio, toys
from pyro_gan.annealing import SMC, Schedule
from pyro_gan.mcmc import ISIR, MALA, PCN, BatchHMC, BatchKernel, ChEES, IndependenceMH, LocalGlobal
from pyro_gan.toys.base import DensityRatio
from pyro_gan.toys.mixture import GridMixture
from tests import zoo
from tests.numbers.size import FULL
from tests.numbers.test_equal_cost import Counter

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore")]

#: Repeats on the exact targets, and on MNIST.
REPEATS, MNIST_REPEATS = (20, 20) if FULL else (8, 2)
#: Outputs, and the cost of a run in forwards of generator and critic; a value with its gradient counts 3.
NUM_OUTPUTS, COST = 200, 65_000
TRUTH_RUNS, TRUTH_DRAWS = 10, 200_000 if FULL else 50_000


class Case(NamedTuple):
    """A target, and the truth about its log ratio and its latents' squared norm."""

    gan: LatentPosterior
    ess_fraction: float
    mean: float
    mean_se: float
    sd: float  # of the log ratio over the target
    square: float  # mean squared norm of the latents
    square_sd: float


class Outputs(NamedTuple):
    log_ratio: Tensor
    z: Tensor
    cost: int
    ancestors: int
    log_normaliser: float = math.nan
    families: float = math.nan


Sampler = Callable[[LatentPosterior], Outputs]


# Cases


def gaussian(ess_fraction: float, dim: int = 10) -> Case:
    """N(0, s^2 I) in a prior N(0, I): the ESS fraction is (s sqrt(2 - s^2))^dim."""
    root = ess_fraction ** (1 / dim)
    variance = 1 - math.sqrt(1 - root**2)
    toy = toys.affine_gaussian(torch.eye(dim) / math.sqrt(variance))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mean = 0.5 * dim * (variance - 1 - math.log(variance))
    spread = math.sqrt(dim / 2)
    return Case(gan, ess_fraction, mean, 0.0, (1 - variance) * spread, dim * variance, 2 * variance * spread)


def needles(ess_fraction: float, width: float = 2.0) -> Case:
    """25 narrow Gaussians in a prior N(0, 4 I): a local move never reaches another one."""
    axis = torch.linspace(-2, 2, 5)
    crowd = float((axis.square() / (2 * width**2)).exp().sum()) ** 2
    scale = math.sqrt(ess_fraction * width**2 * crowd / (2 * 25**2))
    data = GridMixture(axis, torch.full((5, 5), 1 / 25), scale=scale)
    # The ratio also evaluates this prior where trajectories have diverged; the kernel rejects such positions.
    prior = dist.Normal(torch.zeros(2), torch.full((2,), width), validate_args=False).to_event(1)
    gan = LatentPosterior(nn.Identity(), DensityRatio(data, prior), prior)
    squares = (data.means.square().sum(-1) / (2 * width**2)).double()
    mean = math.log(width**2 / (25 * scale**2)) - 1 + float(squares.mean()) + scale**2 / width**2
    # The log density within a needle is its maximum minus an exponential variable.
    spread = float(squares.std(unbiased=False))
    square = 2 * width**2 * float(squares.mean()) + 2 * scale**2
    return Case(gan, ess_fraction, mean, 0.0, math.sqrt(1 + spread**2), square, 2 * width**2 * spread)


@functools.cache
def critic() -> LogRatio:
    """A fresh critic without dropout, trained for 3000 steps however small the overlap becomes."""
    pyro.set_rng_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 1),
    )  # fmt: skip
    return fit_log_ratio(
        zoo.mnist_generator(),
        zoo.mnist_prior(),
        zoo.mnist_train().images[:50_000],
        network,
        num_steps=3000,
        min_ess_fraction=0.0,
        eval_every=250,
        progress=False,
    )


@functools.cache
def mnist_draws() -> tuple[Tensor, Tensor]:
    """Log weights and squared norms of prior draws, `(run, draw)` each."""
    pyro.set_rng_seed(100)
    gan = LatentPosterior(zoo.mnist_generator(), critic(), zoo.mnist_prior())
    log_weights, squares = [], []
    for _ in range(TRUTH_RUNS):
        draws = gan.sample_prior(TRUTH_DRAWS)
        log_weights.append(gan.log_weight(draws))
        squares.append(draws["z"].square().sum(-1))
    return torch.stack(log_weights).double(), torch.stack(squares).double()


def mnist(temperature: float) -> Case:
    log_weight, square = mnist_draws()
    log_weight = log_weight / temperature
    share = log_weight.flatten().softmax(0)
    mean = float(share @ log_weight.flatten())
    runs = (log_weight.softmax(-1) * log_weight).sum(-1)
    mean_square = float(share @ square.flatten())
    return Case(
        LatentPosterior(zoo.mnist_generator(), critic(), zoo.mnist_prior(), temperature=temperature),
        1 / float(share.square().sum()) / share.numel(),
        mean,
        float(runs.std()) / math.sqrt(TRUTH_RUNS),
        math.sqrt(float(share @ (log_weight.flatten() - mean).square())),
        mean_square,
        math.sqrt(float(share @ (square.flatten() - mean_square).square())),
    )


CASES: dict[str, Callable[[], Case]] = {
    "Gaussian, 1e-3": lambda: gaussian(1e-3),
    "Gaussian, 1e-4": lambda: gaussian(1e-4),
    "25 needles, 1e-3": lambda: needles(1e-3),
    "25 needles, 1e-4": lambda: needles(1e-4),
    "MNIST, T = 1.1": lambda: mnist(1.1),
    "MNIST, T = 0.9": lambda: mnist(0.9),
}


# Samplers


def resampled(gan: LatentPosterior) -> Outputs:
    result = ImportanceResampler(gan, min_ess=1)(NUM_OUTPUTS, COST)
    tail = result.report.tail
    return Outputs(result.log_ratio, result.samples["z"], COST, result.report.distinct, tail.log_mean_weight, tail.ess)


def chains(kernel: Callable[[Any], BatchKernel], cost_of_a_step: int) -> Sampler:
    """One chain for each output, of which the last draw is taken; half of the steps are warmup."""

    def run(gan: LatentPosterior) -> Outputs:
        steps = COST // NUM_OUTPUTS // cost_of_a_step
        mcmc = VectorizedMCMC(
            kernel(gan),
            1,
            steps // 2,
            thin=steps - steps // 2,
            num_chains=NUM_OUTPUTS,
            keep="last",
            disable_progbar=True,
        )
        mcmc.run()
        log_ratio, z = mcmc.sample_stats["log_ratio"].flatten(), mcmc.get_samples()["z"]
        return Outputs(log_ratio, z, steps * cost_of_a_step * NUM_OUTPUTS, len(z.unique(dim=0)))

    return run


def learnt(gan: LatentPosterior, *, warmup_steps: int = 10, max_num_steps: int = 10) -> Outputs:
    """ChEES. It learns the length of trajectories, so it runs until the cost is reached; half of it is warmup."""
    counter = Counter(gan.log_ratio)
    counted = LatentPosterior(gan.generator, counter, gan.prior, temperature=gan.temperature)
    kernel = ChEES(counted, max_num_steps=max_num_steps)
    kernel.bind(NUM_OUTPUTS)
    kernel.setup(warmup_steps)
    params, steps, longest = kernel.initial_params, 0, max_num_steps
    while steps < warmup_steps or counter.cost + 3 * NUM_OUTPUTS * longest <= COST:
        params = kernel.sample(params)
        steps += 1
        if steps > warmup_steps:
            longest = math.ceil(float(kernel.trajectory_length / kernel.step_size))
    cost = counter.cost
    return Outputs(gan.log_weight(params), params["z"], cost, len(params["z"].unique(dim=0)))


def mixed(gan: LatentPosterior) -> Outputs:
    """Nine fresh draws, then three MALA moves, each half of the cost. A chain that jumps needs one more gradient."""
    counter = Counter(gan.log_ratio)
    counted = LatentPosterior(gan.generator, counter, gan.prior, temperature=gan.temperature)
    counter.cost = 0

    def kernel(model: LatentPosterior) -> BatchKernel:
        return LocalGlobal(MALA(model), ISIR(model, num_particles=10), num_local=3)

    return chains(kernel, 19)(counted)._replace(cost=counter.cost)


def annealed(num_particles: int = NUM_OUTPUTS, **options: Any) -> Sampler:
    def run(gan: LatentPosterior) -> Outputs:
        samples, log_ratio, report = SMC(gan, num_particles, **options)()
        # They are in random order, so the first ones are as good as any.
        return Outputs(
            log_ratio[:NUM_OUTPUTS],
            samples["z"][:NUM_OUTPUTS],
            report.num_forwards + 3 * report.num_gradients,
            report.ancestors,
            report.log_normaliser,
            report.effective_families,
        )

    return run


def hamiltonian(model: Any) -> BatchKernel:
    return BatchHMC(model, num_steps=5)


SAMPLERS: dict[str, Sampler] = {
    "ImportanceResampler": resampled,
    "IndependenceMH": chains(IndependenceMH, 1),
    "MALA": chains(MALA, 3),
    "BatchHMC, 5 steps": chains(hamiltonian, 15),
    "ChEES": learnt,
    "LocalGlobal, ISIR and MALA": mixed,
    "SMC, MALA": annealed(num_draws=NUM_OUTPUTS, num_moves=12),
    "SMC, 20 000 draws, MALA": annealed(num_draws=20_000, num_moves=15),
    "SMC, 20 000 draws, PCN": annealed(num_draws=20_000, kernel=PCN, num_moves=50),
    "SMC, 1000 of 10 000, PCN": annealed(1000, num_draws=10_000, kernel=PCN, num_moves=8),
    "resampled, then PCN": annealed(
        num_draws=COST // 2, kernel=PCN, schedule=Schedule((0.0, 1.0), None, COST // 2 // NUM_OUTPUTS)
    ),
}


@functools.cache
def target(case: str) -> Case:
    return CASES[case]()


@functools.cache
def once(case: str, sampler: str, seed: int) -> tuple[Outputs, float]:
    """Return the outputs of a run and its CPU seconds."""
    gan = target(case).gan
    pyro.set_rng_seed(seed)
    start = time.process_time()
    outputs = SAMPLERS[sampler](gan)
    return outputs, time.process_time() - start


def row(case: str, sampler: str, repeats: int | None = None) -> dict[str, Any]:
    """Repeat a sampler, and return the error of its mean log ratio."""
    repeats = repeats or (MNIST_REPEATS if case.startswith("MNIST") else REPEATS)
    _, ess_fraction, mean, mean_se, sd, square, square_sd = target(case)
    runs, times = zip(*(once(case, sampler, seed) for seed in range(repeats)), strict=True)
    seconds = sum(times) / repeats
    means = torch.stack([run.log_ratio.double().mean() for run in runs])
    squares = torch.stack([run.z.double().square().sum(-1).mean() for run in runs])
    error = float((means - mean).square().mean().sqrt())
    average = [sum(float(run[field]) for run in runs) / repeats for field in range(2, 6)]
    return {
        "case": case,
        "ess_fraction": ess_fraction,
        "true": mean,
        "true_se": mean_se,
        "sampler": sampler,
        "repeats": repeats,
        "bias": float(means.mean()) - mean,
        "sd": float(means.std()),
        "rmse": error,
        # The number of independent outputs with the same error.
        "worth": sd**2 / error**2,
        "worth_per_second": sd**2 / error**2 / seconds,
        # The same for the squared norm, which differs between needles of the same height.
        "worth_of_square": square_sd**2 / float((squares - square).square().mean()),
        "cost": average[0],
        "ancestors": average[1],
        "log_normaliser": average[2],
        "families": average[3],
        "cpu_seconds": seconds,
    }


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("case", [case for case in CASES if FULL or "MNIST" not in case])
def test_sharp_ratio(case: str, sampler: str, figure) -> None:
    torch.set_num_threads(1)
    values = row(case, sampler)
    figure("sharp ratio", **values)
    assert values["cost"] <= 1.35 * COST
    assert math.isfinite(values["rmse"])


@pytest.mark.parametrize("case", ["Gaussian, 1e-3", "Gaussian, 1e-4", "25 needles, 1e-4"])
@pytest.mark.parametrize("sampler", ["SMC, 20 000 draws, MALA", "SMC, 20 000 draws, PCN"])
def test_annealing_beats_resampling_where_the_truth_is_known(case: str, sampler: str) -> None:
    ours, theirs = row(case, sampler), row(case, "ImportanceResampler")
    assert ours["rmse"] < theirs["rmse"]
    assert abs(ours["log_normaliser"]) < 0.5


def overview(rows: list[dict[str, Any]]) -> str:
    """Return one Markdown table of all cases: error of the mean log ratio by sampler, with its sd over the repeats."""
    cases = list(dict.fromkeys(line["case"] for line in rows))
    found = {(line["sampler"], line["case"]): f"{line['bias']:+.2f} ± {line['sd']:.2f}" for line in rows}
    lines = [f"| sampler | {' | '.join(cases)} |", "|---" + "|--:" * len(cases) + "|"]
    for sampler in SAMPLERS:
        lines.append(f"| {sampler} | {' | '.join(found.get((sampler, case), '') for case in cases)} |")
    return "\n".join(lines)


#: Columns of the table: heading, key of the figure, and number format.
COLUMNS = {
    "cost": ("cost", ".0f"),
    "CPU s": ("cpu_seconds", ".2f"),
    "bias": ("bias", "+.2f"),
    "sd": ("sd", ".2f"),
    "worth": ("worth", ".0f"),
    "worth per CPU s": ("worth_per_second", ".0f"),
    "worth by norm": ("worth_of_square", ".0f"),
    "ancestors or distinct": ("ancestors", ".0f"),
    "families": ("families", ".0f"),
    "log Z": ("log_normaliser", "+.1f"),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Return one Markdown table for each case."""
    blocks = []
    for case in dict.fromkeys(line["case"] for line in rows):
        mine = [line for line in rows if line["case"] == case]
        first = mine[0]
        lines = [
            f"**{case}** (ESS fraction {first['ess_fraction']:.1e}; true mean log r {first['true']:.2f}"
            f" ± {first['true_se']:.2f}; {first['repeats']} repeats)",
            "",
            f"| sampler | {' | '.join(COLUMNS)} |",
            "|---" + "|--:" * len(COLUMNS) + "|",
        ]
        for line in mine:
            cells = ["" if math.isnan(line[key]) else f"{line[key]:{form}}" for key, form in COLUMNS.values()]
            lines.append(f"| {line['sampler']} | {' | '.join(cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    figures = json.loads(Path("numbers.json").read_text())["figures"]["sharp ratio"]
    sys.stdout.write(overview(figures) + "\n\n" + table(figures) + "\n")
