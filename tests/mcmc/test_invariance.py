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
from pyro_gan.mcmc import (
    ISIR,
    MALA,
    PCN,
    ULA,
    BatchHMC,
    BatchKernel,
    ChEES,
    IndependenceMH,
    LocalGlobal,
    MetropolisHastings,
    RandomWalk,
)
from pyro_gan.mcmc.metropolis import Info, State, metropolis
from tests.exact_targets import TARGETS, ExactTarget, uniform_latents
from tests.mcmc.proposals import Drifting, Unbalanced
from tests.statistics import assert_different, assert_follows, assert_same_distribution

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
    **{
        f"ChEES {size}": lambda model, size=size: ChEES(model, step_size=size, trajectory_length=6 * size)
        for size in (0.03, 0.15, 0.4)
    },
    **{
        f"RandomWalk {size}": lambda model, size=size: RandomWalk(model, step_size=size)
        for size in (0.1, 1.0, 5.0)
    },
    # The targets' priors are not all Gaussian, and pCN walks in any Gaussian.
    **{
        f"PCN {size}": lambda model, size=size: PCN(model, step_size=size, proposal=walk_in(model))
        for size in (0.2, 1.5, 10.0)
    },
    "MetropolisHastings": lambda model: MetropolisHastings(model, proposal=Drifting()),
    "ISIR 2": lambda model: ISIR(model, num_particles=2),
    "ISIR 10": ISIR,
    "ISIR, another proposal": lambda model: ISIR(model, num_particles=4, proposal=walk_in(model)),
    **{
        f"LocalGlobal, MALA {size}": lambda model, size=size: LocalGlobal(
            MALA(model, step_size=size), ISIR(model), num_local=2
        )
        for size in (0.05, 0.4, 1.5)
    },
    "LocalGlobal, BatchHMC": lambda model: LocalGlobal(
        BatchHMC(model, step_size=0.15, num_steps=3), IndependenceMH(model), num_local=1, num_global=2
    ),
    "LocalGlobal, PCN": lambda model: LocalGlobal(
        PCN(model, step_size=1.5, proposal=walk_in(model)),
        ISIR(model, num_particles=3, proposal=walk_in(model)),
    ),
    "LocalGlobal, RandomWalk": lambda model: LocalGlobal(
        RandomWalk(model, step_size=1.0), IndependenceMH(model)
    ),
}


def walk_in(model: LatentPosterior) -> torch.distributions.Distribution:
    """A Gaussian with correlations, off centre: not the prior, and not the target."""
    z = model.transforms["z"](model.prior.sample()) if model.transforms else model.prior.sample()
    factor = 1.2 * torch.eye(len(z), dtype=z.dtype) + 0.4 * torch.ones(len(z), len(z), dtype=z.dtype).tril(-1)
    return torch.distributions.MultivariateNormal(torch.full_like(z, 0.2), scale_tril=factor)


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


class StaleAfterJump(LocalGlobal):
    """A jump after which the gradient of the old place is still believed."""

    def _arrive(self, state: State, z: Tensor, jumped: Tensor) -> State:
        return super()._arrive(state, z, jumped)._replace(grad=state.grad)


class StaleWeight(LocalGlobal):
    """Jumps that compare with the weight of a place that local moves have left."""

    def _transition(self, state: State) -> tuple[State, Info]:
        known = self.global_kernel.weigh(state.z, state.potential)
        state, _ = self.local_kernel._transition(state)
        place, info = self.global_kernel._transition(known._replace(z=state.z, potential=state.potential))
        return self._arrive(state, place.z, info.accepted), info


class NoOldParticle(ISIR):
    """Importance resampling among the fresh draws alone, taken for a Markov chain."""

    def _transition(self, state: State) -> tuple[State, Info]:
        return super()._transition(state._replace(log_weight=torch.full_like(state.log_weight, -1e9)))


class NoGaussianRatio(PCN):
    """pCN that takes its Gaussian for the prior, which it is not."""

    def _evaluate(self, z: Tensor) -> State:
        return State(z, self.target.potential(z), None, self.target.log_weight(z))


FLAWED: dict[str, Callable[..., BatchKernel]] = {
    "NoProposalRatio": lambda model: NoProposalRatio(model, step_size=0.4),
    "NoWeightRatio": NoWeightRatio,
    "NoKineticEnergy": lambda model: NoKineticEnergy(model, step_size=0.15),
    "StaleGradient": lambda model: StaleGradient(model, step_size=0.4),
    "NoOldParticle": lambda model: NoOldParticle(model, num_particles=3),
    "NoGaussianRatio": lambda model: NoGaussianRatio(model, step_size=1.5, proposal=walk_in(model)),
    "Unbalanced": lambda model: MetropolisHastings(model, proposal=Unbalanced()),
    "ULA": lambda model: ULA(model, step_size=0.4),
}

# What each part does alone is right; the error is between them.
FLAWED_MIXTURES: dict[str, Callable[..., BatchKernel]] = {
    **{
        f"StaleAfterJump {size}": lambda model, size=size: StaleAfterJump(
            MALA(model, step_size=size), ISIR(model), num_local=1
        )
        for size in (0.1, 0.2, 0.4)
    },
    "StaleWeight": lambda model: StaleWeight(BatchHMC(model, step_size=0.15), IndependenceMH(model)),
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


@pytest.mark.parametrize("kernel", FLAWED_MIXTURES)
def test_a_flawed_mixture_is_found(kernel: str) -> None:
    law = TARGETS["affine posterior"]()
    after = one_step(FLAWED_MIXTURES[kernel](model_of(law)), law.sample(2 * NUM_CHAINS))
    assert_different(after, law.sample(2 * NUM_CHAINS), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_step_leaves_bounded_latents_exact(kernel: str) -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior)
    start = gan.law.sample(NUM_CHAINS)
    after = one_step(KERNELS[kernel](model), model.transforms["z"](start))
    assert (after.abs() < 1).all()
    assert_follows(after, gan.law.cdf, kernel)
