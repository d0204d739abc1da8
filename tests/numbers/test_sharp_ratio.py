"""The sharp ratio, where one draw of the prior in a thousand or ten thousand counts: which sampler, at one cost?

Two targets are known exactly, a Gaussian in ten dimensions and 25 needles in two; the third is the zoo's MNIST GAN with
a fresh conv critic, trained until it separates, at two temperatures. `PYRO_GAN_SHARP_REPEATS=20` makes the full table;
`python -m tests.numbers.test_sharp_ratio` prints it from numbers.json.
"""

from __future__ import annotations

import functools
import json
import math
import os
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
from pyro_gan.mcmc import MALA, PCN, BatchHMC, BatchKernel, IndependenceMH
from pyro_gan.toys.base import DensityRatio
from pyro_gan.toys.mixture import GridMixture
from tests import zoo

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore")]

REPEATS = int(os.environ.get("PYRO_GAN_SHARP_REPEATS", "3"))
#: Outputs, and what a run may cost in forwards of generator and critic; a value with its gradient counts 3.
NUM_OUTPUTS, COST = 200, 65_000
TRUTH_RUNS, TRUTH_DRAWS = 10, 200_000


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
    """25 narrow Gaussians in a prior N(0, 4 I): what finds one of them does not find the others."""
    axis = torch.linspace(-2, 2, 5)
    crowd = float((axis.square() / (2 * width**2)).exp().sum()) ** 2
    scale = math.sqrt(ess_fraction * width**2 * crowd / (2 * 25**2))
    data = GridMixture(axis, torch.full((5, 5), 1 / 25), scale=scale)
    prior = dist.Normal(torch.zeros(2), torch.full((2,), width)).to_event(1)
    gan = LatentPosterior(nn.Identity(), DensityRatio(data, prior), prior)
    squares = (data.means.square().sum(-1) / (2 * width**2)).double()
    mean = math.log(width**2 / (25 * scale**2)) - 1 + float(squares.mean()) + scale**2 / width**2
    # The height within a needle is an exponential variable.
    spread = float(squares.std(unbiased=False))
    square = 2 * width**2 * float(squares.mean()) + 2 * scale**2
    return Case(gan, ess_fraction, mean, 0.0, math.sqrt(1 + spread**2), square, 2 * width**2 * spread)


@functools.cache
def critic() -> LogRatio:
    """A fresh critic without dropout, trained for 3 000 steps whatever is left of the overlap."""
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
    return Outputs(
        result.log_ratio, result.samples["z"], COST, result.report.distinct, tail.log_mean_weight, tail.ess
    )


def chains(kernel: Callable[[Any], BatchKernel], cost_of_a_step: int) -> Sampler:
    """As many chains as outputs, of each its last draw, half of the steps for warmup."""

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


def annealed(num_particles: int = NUM_OUTPUTS, **options: Any) -> Sampler:
    def run(gan: LatentPosterior) -> Outputs:
        samples, log_ratio, report = SMC(gan, num_particles, **options)()
        # In random order; of more particles than outputs the first will do.
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
    "SMC, MALA": annealed(num_draws=NUM_OUTPUTS, num_moves=12),
    "SMC, 20 000 draws, MALA": annealed(num_draws=20_000, num_moves=15),
    "SMC, 20 000 draws, PCN": annealed(num_draws=20_000, kernel=PCN, num_moves=50),
    "SMC, 1000 of 10 000, PCN": annealed(1000, num_draws=10_000, kernel=PCN, num_moves=8),
    "resampled, then PCN": annealed(
        num_draws=COST // 2, kernel=PCN, schedule=Schedule((0.0, 1.0), None, COST // 2 // NUM_OUTPUTS)
    ),
}


@functools.cache
def row(case: str, sampler: str, repeats: int = REPEATS) -> dict[str, Any]:
    """Repeat a sampler, and return what its mean log ratio is worth."""
    gan, ess_fraction, mean, mean_se, sd, square, square_sd = CASES[case]()
    runs, seconds = [], 0.0
    for seed in range(repeats):
        pyro.set_rng_seed(seed)
        start = time.process_time()
        runs.append(SAMPLERS[sampler](gan))
        seconds += (time.process_time() - start) / repeats
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
        # Independent outputs that would have such an error.
        "worth": sd**2 / error**2,
        "worth_per_second": sd**2 / error**2 / seconds,
        # The same for the squared norm, which tells needles apart that are equally high.
        "worth_of_square": square_sd**2 / float((squares - square).square().mean()),
        "cost": average[0],
        "ancestors": average[1],
        "log_normaliser": average[2],
        "families": average[3],
        "cpu_seconds": seconds,
    }


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("case", CASES)
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


def table(rows: list[dict[str, Any]]) -> str:
    """Return one Markdown table a case."""
    head = [
        "sampler",
        "cost",
        "bias",
        "sd",
        "worth",
        "per CPU s",
        "by norm",
        "ancestors",
        "families",
        "log Z",
    ]
    blocks = []
    for case in dict.fromkeys(line["case"] for line in rows):
        mine = [line for line in rows if line["case"] == case]
        first = mine[0]
        lines = [
            f"**{case}** (ESS fraction {first['ess_fraction']:.1e}; true mean log r {first['true']:.2f}"
            f" +- {first['true_se']:.2f}; {first['repeats']} repeats)",
            "",
            "| " + " | ".join(head) + " |",
            "|---" + "|--:" * (len(head) - 1) + "|",
        ]
        for line in mine:
            optional = ["" if math.isnan(line[key]) else line[key] for key in ("families", "log_normaliser")]
            lines.append(
                f"| {line['sampler']} | {line['cost']:.0f} | {line['bias']:+.2f} | {line['sd']:.2f} | "
                f"{line['worth']:.0f} | {line['worth_per_second']:.0f} | {line['worth_of_square']:.0f} | "
                f"{line['ancestors']:.0f} | "
                + " | ".join(
                    text if isinstance(text, str) else f"{text:.{d}f}" for d, text in enumerate(optional)
                )
                + " |"
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    sys.stdout.write(table(json.loads(Path("numbers.json").read_text())["figures"]["sharp ratio"]) + "\n")
