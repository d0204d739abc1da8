"""The cost of samplers beyond their networks: a step over a bare gradient, a proposal over a bare forward, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.annealing import anneal, linear, tune
from pyro_gan.mcmc import MALA, IndependenceMH
from pyro_gan.targets import make_target
from tests.benchmarks.conftest import Figure
from tests.benchmarks.paired import Ratio, paired, timed
from tests.benchmarks.pairs import bare_forward, bare_gradient, conv_pair, mlp_pair

PAIRS = {"conv": conv_pair, "MLP": mlp_pair}
NUM_STEPS = 10
BATCHES = (64, 125, 250, 500, 1000, 2000)
NUM_IMAGES, NUM_PARTICLES, NUM_RUNGS = 100, 16, 20

pytestmark = pytest.mark.filterwarnings("ignore:.*accepted nothing")


@pytest.fixture(scope="module")
def gan(request: pytest.FixtureRequest) -> LatentPosterior:
    return PAIRS[request.param]()


@pytest.mark.parametrize(
    ("gan", "num_chains", "target"),
    [("conv", 64, "<= 1.05"), ("MLP", 1000, "<= 1.10"), ("MLP", 100, "<= 1.30"), ("MLP", 1, "")],
    indirect=["gan"],
)
def test_mala_step(figure: Figure, gan: LatentPosterior, num_chains: int, target: str) -> None:
    """A step of the kernel alone, over the value and gradient of the same potential."""
    kernel = MALA(gan, step_size=0.01)
    kernel.bind(num_chains)
    kernel.setup(warmup_steps=0)
    params = kernel.initial_params

    def step() -> None:
        nonlocal params
        params = kernel.sample(params)

    figure(lambda: paired(step, bare_gradient(gan, num_chains)), target=target)


@pytest.mark.parametrize(
    ("gan", "num_chains", "target"),
    [("conv", 64, "<= 1.05"), ("MLP", 1000, "<= 1.10"), ("MLP", 100, "<= 1.30")],
    indirect=["gan"],
)
def test_mala_run(figure: Figure, gan: LatentPosterior, num_chains: int, target: str) -> None:
    """A whole run with its start, steps, moments and records, over its gradients, that at the start included."""
    warmup = NUM_STEPS
    gradient = bare_gradient(gan, num_chains)

    def run() -> None:
        kernel = MALA(gan, step_size=0.01)
        VectorizedMCMC(kernel, 2 * NUM_STEPS, warmup, num_chains=num_chains, keep="last", disable_progbar=True).run()

    def bare() -> None:
        for _ in range(warmup + 2 * NUM_STEPS + 1):
            gradient()

    figure(lambda: paired(run, bare), target=target)


@pytest.mark.parametrize(
    ("gan", "num_chains", "target"),
    [("MLP", 1000, "<= 1.05"), ("MLP", 100, "<= 1.05"), ("MLP", 10, ""), ("conv", 64, "<= 1.05")],
    indirect=["gan"],
)
def test_independence_proposal(figure: Figure, gan: LatentPosterior, num_chains: int, target: str) -> None:
    """A proposal, with its prior draw and accept, over a forward pass at the best batch size."""
    num_rows = 4000 if gan.prior.event_shape[0] == 64 else 1000
    kernel = IndependenceMH(gan)
    kernel.bind(num_chains)
    kernel.setup(warmup_steps=0)
    params = kernel.initial_params
    # Proposals are scored in blocks. With parts of blocks the ratio would depend on where a round begins.
    ahead = max(1, 1000 // num_chains)
    steps = -(-num_rows // (ahead * num_chains)) * ahead

    def propose() -> None:
        nonlocal params
        for _ in range(steps):
            params = kernel.sample(params)

    def best() -> Callable[[], Any]:
        runs = {batch: bare_forward(gan, steps * num_chains, batch) for batch in BATCHES}
        for run in runs.values():
            run()
        return min(runs.values(), key=lambda run: min(timed(run) for _ in range(3)))

    figure(lambda: paired(propose, best()), target=target)


@pytest.mark.parametrize("gan", ["MLP"], indirect=True)
def test_annealing(figure: Figure, gan: LatentPosterior) -> None:
    """Annealing of sixteen particles for each of a hundred images, over its gradients."""
    target = make_target(gan)
    num_rows = NUM_IMAGES * NUM_PARTICLES
    schedule = tune(target, target.sample_prior(num_rows), linear(NUM_RUNGS), num_groups=NUM_IMAGES)
    gradient = bare_gradient(gan, num_rows)

    def climb() -> None:
        anneal(target, target.sample_prior(num_rows), schedule, num_groups=NUM_IMAGES)

    def bare() -> None:
        # One for each rung except the last, which has no moves, and one at the start.
        for _ in range(NUM_RUNGS):
            gradient()

    figure(lambda: paired(climb, bare), target="<= 1.2")


RUN = """
import resource
import pyro.distributions as dist
import torch
from pyro_gan import VectorizedMCMC
from pyro_gan.mcmc import MALA
from tests.benchmarks.pairs import tiny_pair

torch.set_num_threads(1)
VectorizedMCMC(
    MALA(tiny_pair(8), step_size=0.01), {steps}, 0, num_chains=10_000, keep="last", disable_progbar=True
).run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_of_long_runs(figure: Figure) -> None:
    """Peak memory of a process that makes 1000 steps of 10 000 chains, over one that makes 50."""

    def peak(steps: int) -> float:
        out = subprocess.run(
            [sys.executable, "-c", RUN.format(steps=steps)], check=True, capture_output=True, text=True
        )
        return float(out.stdout) / 1024

    def measure() -> Ratio:
        long, short = peak(1000), peak(50)
        return Ratio(long / short, long / short, long / short, short, 1)

    figure(measure, target="flat")
