"""One-step invariance: exact draws stay exact in one transition, and flawed kernels are found.

Each check is a two-sample test at the false-alarm rate of `tests/statistics.py`, after Gandy and Scott, 2020,
https://arxiv.org/abs/2001.06465.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import (
    ISIR,
    MALA,
    ULA,
    BatchHMC,
    BatchKernel,
    IndependenceKernel,
    IndependenceMH,
    Info,
    LocalGlobal,
    MetropolisHastings,
    State,
    SteppedKernel,
    metropolis,
)
from pyro_gan.mcmc.isir import isir_step
from pyro_gan.mcmc.langevin import mala_step
from tests.exact_targets import TARGETS, ExactTarget, uniform_latents
from tests.mcmc.members import FOUND, settings, walk_in
from tests.mcmc.proposals import Unbalanced
from tests.statistics import assert_different, assert_follows, assert_mean, assert_same_distribution

# In a single step some chains do not move.
pytestmark = pytest.mark.filterwarnings("ignore:.*accepted nothing")

NUM_CHAINS = 20_000
# Rows of one pass: the targets are formulas, of which a pass with many rows costs little more than one with few.
CHUNK_SIZE = 10_000

KERNELS = settings(FOUND)


class NoProposalRatio(SteppedKernel):
    """MALA that accepts without the ratio of the proposal densities."""

    uses_gradient = True
    optimal_accept_prob = 0.574

    def transition(self, state: State) -> tuple[State, Info]:
        z = state.z - self.step_size / 2 * state.grad + self.step_size.sqrt() * torch.randn_like(state.z)
        proposal = self.evaluate(z)
        return metropolis(state, proposal, state.potential - proposal.potential)


class NoWeightRatio(IndependenceKernel):
    """An independence sampler that accepts every prior draw."""

    def transition(self, state: State) -> tuple[State, Info]:
        return metropolis(state, self.next_proposals(len(state.z)), torch.zeros_like(state.potential))


class NoKineticEnergy(SteppedKernel):
    """HMC that accepts without the kinetic energy."""

    uses_gradient = True
    optimal_accept_prob = 0.8

    def transition(self, state: State) -> tuple[State, Info]:
        end, momentum = state, torch.randn_like(state.z) - self.step_size / 2 * state.grad
        for _ in range(10):
            end = self.evaluate(end.z + self.step_size * momentum)
            momentum = momentum - self.step_size * end.grad
        return metropolis(state, end, state.potential - end.potential)


class StaleGradient(SteppedKernel):
    """MALA that follows the gradient of another chain's position."""

    uses_gradient = True
    optimal_accept_prob = 0.574

    def transition(self, state: State) -> tuple[State, Info]:
        return mala_step(state._replace(grad=state.grad.roll(1, 0)), self.target, self.step_size)


class Mixed(BatchKernel):
    """A jump and a local move, which most subclasses combine wrongly."""

    needs_prior = True

    def __init__(self, local_kernel: BatchKernel, global_kernel: IndependenceKernel) -> None:
        super().__init__(local_kernel.model, adaptation=local_kernel.adaptation)
        self.local_kernel, self.global_kernel = local_kernel, global_kernel

    def prepare(self, num_chains: int) -> None:
        for kernel in (self.local_kernel, self.global_kernel):
            kernel.attach(self.target, num_chains=num_chains)

    def evaluate(self, z: Tensor) -> State:
        return self.local_kernel.evaluate(z)


class Jumping(Mixed):
    """A jump, then a local move: the right way, and the control of the flawed ones below."""

    def transition(self, state: State) -> tuple[State, Info]:
        place, _ = self.global_kernel.transition(self.global_kernel.complete(state))
        return self.local_kernel.transition(self.local_kernel.complete(place))


class StaleAfterJump(Mixed):
    """A jump after which the local move follows the gradient of the old position."""

    def transition(self, state: State) -> tuple[State, Info]:
        place, _ = self.global_kernel.transition(self.global_kernel.complete(state))
        return self.local_kernel.transition(self.local_kernel.evaluate(place.z)._replace(grad=state.grad))


class StaleWeight(Mixed):
    """A jump that compares with the weight of a position that a local move has left."""

    def transition(self, state: State) -> tuple[State, Info]:
        known = self.global_kernel.complete(state)
        state, _ = self.local_kernel.transition(state)
        stale = known._replace(z=state.z, potential=state.potential)
        place, info = self.global_kernel.transition(stale)
        return self.local_kernel.complete(place), info


class JumpsFromTheLastAlone(Mixed):
    """Two jumps, after which the gradient is computed again only for chains that made the second."""

    def transition(self, state: State) -> tuple[State, Info]:
        place = self.global_kernel.complete(state)
        for _ in range(2):
            place, info = self.global_kernel.transition(place)
        arrived = self.local_kernel.evaluate(place.z)
        return self.local_kernel.transition(
            arrived._replace(
                grad=torch.where(info.accepted[:, None], arrived.grad, state.grad),
                potential=torch.where(info.accepted, arrived.potential, state.potential),
            )
        )


class NoOldParticle(IndependenceKernel):
    """Importance resampling among fresh draws alone, without the old state."""

    def transition(self, state: State) -> tuple[State, Info]:
        lost = state._replace(log_weight=torch.full_like(state.log_weight, -1e9))
        return isir_step(lost, self.next_proposals(2 * len(state.z)))


class NoGaussianRatio(SteppedKernel):
    """pCN that walks in another Gaussian than the prior, and accepts by the weight over the prior."""

    needs_prior = True
    optimal_accept_prob = 0.4

    def evaluate(self, z: Tensor) -> State:
        return self.target.evaluate_weighted(z)

    def transition(self, state: State) -> tuple[State, Info]:
        gaussian, step_size = walk_in(self.model), self.step_size
        rho = (4 - step_size) / (4 + step_size)
        noise = gaussian.sample((len(state.z),)) - gaussian.mean
        proposal = self.evaluate(gaussian.mean + rho * (state.z - gaussian.mean) + (1 - rho**2).sqrt() * noise)
        return metropolis(state, proposal, proposal.log_weight - state.log_weight)


FLAWED: dict[str, Callable[..., BatchKernel]] = {
    "NoProposalRatio": lambda model: NoProposalRatio(model, step_size=0.4),
    "NoWeightRatio": NoWeightRatio,
    "NoKineticEnergy": lambda model: NoKineticEnergy(model, step_size=0.15),
    "StaleGradient": lambda model: StaleGradient(model, step_size=0.4),
    "NoOldParticle": NoOldParticle,
    "NoGaussianRatio": lambda model: NoGaussianRatio(model, step_size=1.5),
    "Unbalanced": lambda model: MetropolisHastings(model, proposal=Unbalanced()),
    "ULA": lambda model: ULA(model, step_size=0.4),
}

# Both kernels are right; the error is in their combination.
FLAWED_MIXTURES: dict[str, Callable[..., BatchKernel]] = {
    **{
        f"StaleAfterJump {size}": lambda model, size=size: StaleAfterJump(MALA(model, step_size=size), ISIR(model))
        for size in (0.1, 0.2, 0.4)
    },
    "JumpsFromTheLastAlone": lambda model: JumpsFromTheLastAlone(MALA(model, step_size=0.2), IndependenceMH(model)),
    "StaleWeight": lambda model: StaleWeight(BatchHMC(model, step_size=0.15), IndependenceMH(model)),
}


def one_step(kernel: BatchKernel, z: Tensor) -> Tensor:
    return steps(kernel, z, num_steps=1)


def steps(kernel: BatchKernel, z: Tensor, *, num_steps: int) -> Tensor:
    mcmc = VectorizedMCMC(
        kernel,
        num_samples=1,
        thin=num_steps,
        warmup_steps=0,
        num_chains=len(z),
        initial_params={"z": z},
        disable_progbar=True,
    )
    mcmc.run()
    return mcmc.get_samples()["z"]


def model_of(target: ExactTarget) -> LatentPosterior:
    return LatentPosterior(torch.nn.Identity(), target.log_weight, target.prior, chunk_size=CHUNK_SIZE)


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


@pytest.mark.parametrize("kernel", FLAWED_MIXTURES)
def test_a_flawed_mixture_is_found(kernel: str) -> None:
    law = TARGETS["affine posterior"]()
    after = one_step(FLAWED_MIXTURES[kernel](model_of(law)), law.sample(2 * NUM_CHAINS))
    assert_different(after, law.sample(2 * NUM_CHAINS), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_step_leaves_bounded_latents_exact(kernel: str) -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior, chunk_size=CHUNK_SIZE)
    start = gan.law.sample(NUM_CHAINS)
    after = one_step(KERNELS[kernel](model), model.transforms["z"](start))
    assert (after.abs() < 1).all()
    assert_follows(after, gan.law.cdf, kernel)


def test_a_mixture_without_a_flaw_passes() -> None:
    """The flawed mixtures differ from this one by one line."""
    law = TARGETS["affine posterior"]()
    for size in (0.1, 0.2, 0.4):
        kernel = Jumping(MALA(model_of(law), step_size=size), ISIR(model_of(law)))
        after = one_step(kernel, law.sample(2 * NUM_CHAINS))
        assert_same_distribution(after, law.sample(2 * NUM_CHAINS), f"jump and move at {size}")


@pytest.mark.parametrize("num_global", [2, 3])
def test_several_jumps_in_a_step_leave_exact_draws_exact(num_global: int) -> None:
    """All chains that made any of the jumps arrive, not only those that made the last one."""
    toy = toys.gaussian_shift(0.8, dtype=torch.float64)
    model = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=CHUNK_SIZE)
    kernel = LocalGlobal(MALA(model, step_size=0.05), IndependenceMH(model), num_local=1, num_global=num_global)
    # Ten steps: the error of one step is small, and adds up.
    after = steps(kernel, toy.posterior.sample((NUM_CHAINS,)), num_steps=10)
    assert_mean(after, toy.posterior.mean, f"{num_global} jumps")
    assert_same_distribution(after, toy.posterior.sample((NUM_CHAINS,)), f"{num_global} jumps")
