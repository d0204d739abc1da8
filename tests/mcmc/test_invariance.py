"""One-step invariance: exact draws in, one transition, exact draws out; and flawed kernels that this must find.

Each check is a two-sample test at the false-alarm rate of `tests/statistics.py`, after Gandy and Scott, 2020,
https://arxiv.org/abs/2001.06465.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import MALA, BatchHMC, BatchKernel, IndependenceMH
from pyro_gan.mcmc.metropolis import Info, State, metropolis
from tests.statistics import assert_different, assert_follows, assert_same_distribution
from tests.targets import TARGETS, ExactTarget, uniform_latents

# One step is asked for; chains that stay are part of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*accepted nothing")

NUM_CHAINS = 20_000

KERNELS: dict[str, Callable[..., BatchKernel]] = {
    "IndependenceMH": IndependenceMH,
    **{f"MALA {size}": lambda model, size=size: MALA(model, step_size=size) for size in (0.05, 0.4, 1.5)},
    **{
        f"BatchHMC {size}": lambda model, size=size: BatchHMC(model, step_size=size)
        for size in (0.03, 0.15, 0.4)
    },
}


class NoProposalRatio(MALA):
    """MALA whose accept leaves out the proposal densities."""

    def _transition(self, state: State) -> tuple[State, Info]:
        z = state.z - self.step_size / 2 * state.grad + self.step_size.sqrt() * torch.randn_like(state.z)
        proposal = self._evaluate(z)
        return metropolis(state, proposal, state.potential - proposal.potential)


class NoWeightRatio(IndependenceMH):
    """An independence sampler that accepts whatever the prior gives."""

    def _transition(self, state: State) -> tuple[State, Info]:
        proposal = self._evaluate(self._propose(len(state.z)))
        return metropolis(state, proposal, torch.zeros_like(state.potential))


class NoKineticEnergy(BatchHMC):
    """HMC whose accept leaves out the momenta."""

    def _transition(self, state: State) -> tuple[State, Info]:
        z, momentum = state.z, torch.randn_like(state.z) - self.step_size / 2 * state.grad
        for _ in range(self.num_steps):
            z = z + self.step_size * momentum
            potential, grad = self.target.potential_and_grad(z)
            momentum = momentum - self.step_size * grad
        return metropolis(state, State(z, potential, grad), state.potential - potential)


class StaleGradient(MALA):
    """MALA that drifts along another position's gradient and believes it its own."""

    def _transition(self, state: State) -> tuple[State, Info]:
        return super()._transition(state._replace(grad=state.grad.roll(1, 0)))


FLAWED: dict[str, Callable[..., BatchKernel]] = {
    "NoProposalRatio": lambda model: NoProposalRatio(model, step_size=0.4),
    "NoWeightRatio": NoWeightRatio,
    "NoKineticEnergy": lambda model: NoKineticEnergy(model, step_size=0.15),
    "StaleGradient": lambda model: StaleGradient(model, step_size=0.4),
}


def one_step(kernel: BatchKernel, z: Tensor) -> Tensor:
    mcmc = VectorizedMCMC(
        kernel,
        num_samples=1,
        warmup_steps=0,
        num_chains=len(z),
        initial_params={"z": z},
        disable_progbar=True,
    )
    mcmc.run()
    return mcmc.get_samples()["z"]


def model_of(target: ExactTarget) -> LatentPosterior:
    return LatentPosterior(torch.nn.Identity(), target.log_weight, target.prior)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_step_leaves_exact_draws_exact(kernel: str, target: str) -> None:
    law = TARGETS[target]()
    after = one_step(KERNELS[kernel](model_of(law)), law.sample(NUM_CHAINS))
    assert_same_distribution(after, law.sample(NUM_CHAINS), f"{kernel} on {target}")
    if law.cdf is not None:
        assert_follows(after, law.cdf, f"{kernel} on {target}")


@pytest.mark.parametrize("kernel", FLAWED)
def test_a_flawed_kernel_is_found(kernel: str) -> None:
    law = TARGETS["banana"]()
    after = one_step(FLAWED[kernel](model_of(law)), law.sample(5 * NUM_CHAINS))
    assert_different(after, law.sample(5 * NUM_CHAINS), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_step_leaves_bounded_latents_exact(kernel: str) -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior)
    start = gan.law.sample(NUM_CHAINS)
    after = one_step(KERNELS[kernel](model), model.transforms["z"](start))
    assert (after.abs() < 1).all()
    assert_follows(after, gan.law.cdf, kernel)
