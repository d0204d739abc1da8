"""The time of a kernel's step relative to the bare value, or value and gradient; the ratio stands in brackets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_gan import LatentPosterior, LogRatio, VectorizedMCMC, toys
from pyro_gan.mcmc import MALA, PCN, ULA, BatchHMC, BatchKernel, IndependenceMH, RandomWalk
from pyro_gan.objectives import Bernoulli

DIM = 64
NUM_STEPS = 10  # of a trajectory of BatchHMC, and of a run: divide their time by this


@pytest.fixture(scope="module")
def gan() -> LatentPosterior:
    """A generator and critic of the size for MNIST, untrained, because training does not change the time."""
    generator = toys.MLP([DIM, 256, 256, 784]).eval()
    critic = toys.MLP([784, 256, 256, 1]).eval()
    prior = dist.Normal(torch.zeros(DIM), torch.ones(DIM)).to_event(1)
    return LatentPosterior(generator, LogRatio(critic, Bernoulli()), prior)


def bare(gan: LatentPosterior, num_chains: int) -> Callable[[], Any]:
    leaf = torch.randn(num_chains, DIM, requires_grad=True)

    def value_and_grad() -> Any:
        value = gan.potential_fn({"z": leaf})
        return value, torch.autograd.grad(value.sum(), leaf)

    return value_and_grad


def bare_value(gan: LatentPosterior, num_chains: int) -> Callable[[], Any]:
    z = {"z": torch.randn(num_chains, DIM)}

    def value() -> Any:
        with torch.no_grad():
            return gan.potential_fn(z)

    return value


def runner(kernel: BatchKernel, num_chains: int) -> Callable[[], Any]:
    return VectorizedMCMC(kernel, NUM_STEPS, 0, num_chains=num_chains, keep="last", disable_progbar=True).run


def stepper(kernel: BatchKernel, num_chains: int) -> Callable[[], Any]:
    kernel.bind(num_chains)
    kernel.setup(warmup_steps=0)
    params = kernel.initial_params

    def step() -> None:
        nonlocal params
        params = kernel.sample(params)

    return step


CASES: dict[str, dict[str, Callable[[LatentPosterior, int], Callable[[], Any]]]] = {
    "gradient": {
        "value and gradient": bare,
        "MALA": lambda gan, n: stepper(MALA(gan, step_size=0.01), n),
        "ULA": lambda gan, n: stepper(ULA(gan, step_size=0.01), n),
        f"BatchHMC, {NUM_STEPS} gradients": lambda gan, n: stepper(BatchHMC(gan, num_steps=NUM_STEPS), n),
        f"a run of MALA, {NUM_STEPS} steps": lambda gan, n: runner(MALA(gan, step_size=0.01), n),
    },
    "value": {
        "value": bare_value,
        "IndependenceMH": lambda gan, n: stepper(IndependenceMH(gan), n),
        "RandomWalk": lambda gan, n: stepper(RandomWalk(gan), n),
        "PCN": lambda gan, n: stepper(PCN(gan), n),
    },
}


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
@pytest.mark.parametrize("num_chains", [1, 100, 1000])
@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in CASES.items() for case in cases])
def test_step(benchmark: Any, gan: LatentPosterior, kind: str, case: str, num_chains: int) -> None:
    benchmark.group = f"{kind}: a step of {num_chains} chains"
    benchmark(CASES[kind][case](gan, num_chains))
