"""What a gradient kernel's step costs over the bare value and gradient: the ratio in brackets, group by group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_gan import LatentPosterior, LogRatio, toys
from pyro_gan.mcmc import MALA, BatchHMC, BatchKernel
from pyro_gan.objectives import Bernoulli

DIM = 64
NUM_STEPS = 10  # a trajectory's, for BatchHMC: divide its time by this


@pytest.fixture(scope="module")
def gan() -> LatentPosterior:
    """A generator and critic of the size that MNIST takes, untrained: the time is the same."""
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


def stepper(kernel: BatchKernel, num_chains: int) -> Callable[[], Any]:
    kernel.bind(num_chains)
    kernel.setup(warmup_steps=0)
    params = kernel.initial_params

    def step() -> None:
        nonlocal params
        params = kernel.sample(params)

    return step


CASES: dict[str, Callable[[LatentPosterior, int], Callable[[], Any]]] = {
    "value and gradient": bare,
    "MALA": lambda gan, n: stepper(MALA(gan, step_size=0.01), n),
    f"BatchHMC, {NUM_STEPS} gradients": lambda gan, n: stepper(BatchHMC(gan, num_steps=NUM_STEPS), n),
}


@pytest.mark.parametrize("num_chains", [1, 100, 1000])
@pytest.mark.parametrize("case", CASES)
def test_step(benchmark: Any, gan: LatentPosterior, case: str, num_chains: int) -> None:
    benchmark.group = f"a step of {num_chains} chains"
    benchmark(CASES[case](gan, num_chains))
