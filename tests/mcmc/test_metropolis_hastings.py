"""A proposal of the user: what it must return, which errors it gets, and what a guided one can do."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import MALA, MetropolisHastings, State, StepSize


class Step:
    def __init__(self, z: Tensor | None = None, log_q_ratio: Tensor | None = None) -> None:
        self.z, self.log_q_ratio = z, log_q_ratio

    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        z = state.z + 0.1 * torch.randn_like(state.z) if self.z is None else self.z
        return z, torch.zeros(len(state.z)) if self.log_q_ratio is None else self.log_q_ratio


def run(proposal: object, num_samples: int = 3, warmup_steps: int = 0, *, num_chains: int = 5) -> VectorizedMCMC:
    toy = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    kernel = MetropolisHastings(gan, proposal=proposal)
    mcmc = VectorizedMCMC(kernel, num_samples, warmup_steps, num_chains=num_chains, disable_progbar=True)
    mcmc.run()
    return mcmc


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (5, 2)])
def test_a_ratio_of_the_wrong_shape_raises(shape) -> None:
    with pytest.raises(ValueError, match=r"one log_q_ratio for each chain, shape \(5,\).*Sum over"):
        run(Step(log_q_ratio=torch.zeros(shape)))


@pytest.mark.parametrize("z", [torch.zeros(5), torch.zeros(4, 2), torch.zeros(5, 2).double()])
def test_positions_of_the_wrong_shape_or_dtype_raise(z) -> None:
    with pytest.raises(ValueError, match=r"Step to return positions of shape \(5, 2\)"):
        run(Step(z=z))


def test_a_proposal_that_writes_into_the_state_raises() -> None:
    class Rude(Step):
        def propose(self, state: State) -> tuple[Tensor, Tensor]:
            state.z.add_(torch.randn_like(state.z))
            return state.z, torch.zeros_like(state.potential)

    with pytest.raises(ValueError, match="changed state.z in place"):
        run(Rude())


@pytest.mark.parametrize("given", [None, torch.zeros(5, 2), (torch.zeros(5, 2), 0.0)])
def test_anything_but_two_tensors_raises(given) -> None:
    class Odd(Step):
        def propose(self, state: State) -> tuple[Tensor, Tensor]:
            return given

    with pytest.raises(ValueError, match=r"return a pair \(z_new, log_q_ratio\)"):
        run(Odd())


def test_a_class_instead_of_an_instance_raises() -> None:
    with pytest.raises(ValueError, match=r"propose\(state\)"):
        run(Step)


@pytest.mark.parametrize("given", [torch.distributions.Normal(0.0, 1.0), None, "x", torch.zeros(3), 0])
def test_something_else_instead_of_a_proposal_raises(given) -> None:
    with pytest.raises(ValueError, match=r"propose\(state\)"):
        run(given)


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_unusable_ratio_is_rejected_and_counted(value) -> None:
    mcmc = run(Step(log_q_ratio=torch.full((5,), value)))
    assert mcmc.num_invalid == 15 and mcmc.never_moved == 1


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
def test_a_way_back_without_density_is_rejected_and_no_error() -> None:
    mcmc = run(Step(log_q_ratio=torch.full((5,), -torch.inf)))
    assert mcmc.num_invalid == 0 and mcmc.never_moved == 1


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
def test_positions_that_are_not_finite_are_rejected_and_counted() -> None:
    mcmc = run(Step(z=torch.full((5, 2), torch.nan)))
    assert mcmc.num_invalid == 15


class Langevin:
    """MALA as a proposal."""

    uses_gradient = True

    def __init__(self) -> None:
        self.adaptation = StepSize(0.1, target_accept_prob=0.574)

    def propose_state(self, state: State, evaluate: Callable[[Tensor], State]) -> tuple[State, Tensor]:
        step_size = self.adaptation.value
        noise = torch.randn_like(state.z)
        new = evaluate(state.z - 0.5 * step_size * state.grad + step_size.sqrt() * noise)
        back = noise - 0.5 * step_size.sqrt() * (state.grad + new.grad)
        return new, 0.5 * (noise.square() - back.square()).sum(-1)


class Walk:
    """A random walk with an adapted step size and without a gradient."""

    uses_gradient = False

    def __init__(self) -> None:
        self.adaptation = StepSize(1e-3, target_accept_prob=0.3)

    def propose_state(self, state: State, evaluate: Callable[[Tensor], State]) -> tuple[State, Tensor]:
        new = evaluate(state.z + self.adaptation.value.sqrt() * torch.randn_like(state.z))
        assert new.grad is None
        return new, torch.zeros_like(new.potential)


def test_a_guided_proposal_makes_the_draws_of_mala(seed) -> None:
    toy = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    runs = []
    for kernel in (MALA(gan), MetropolisHastings(gan, proposal=Langevin())):
        pyro.set_rng_seed(seed)
        mcmc = VectorizedMCMC(kernel, 20, 30, num_chains=10, disable_progbar=True)
        mcmc.run()
        runs.append(mcmc)
    mala, guided = runs
    assert torch.equal(mala.get_samples()["z"], guided.get_samples()["z"])
    for name, values in mala.sample_stats.items():
        assert torch.equal(values, guided.sample_stats[name]), name
    assert float(guided.sample_stats["step_size"][0, 0]) != pytest.approx(0.1)


def test_a_guided_proposal_without_a_gradient_meets_its_target_acceptance() -> None:
    mcmc = run(Walk(), 200, 200, num_chains=200)
    assert float(mcmc.sample_stats["accept_prob"].mean()) == pytest.approx(0.3, abs=0.05)
    assert len(mcmc.sample_stats["step_size"].unique()) == 1


def test_a_guided_proposal_must_return_a_state() -> None:
    class Position(Walk):
        def propose_state(self, state: State, evaluate: Callable[[Tensor], State]) -> tuple[Tensor, Tensor]:
            return state.z + 1.0, torch.zeros_like(state.potential)

    with pytest.raises(ValueError, match=r"Position to return a pair \(state_new, log_q_ratio\)"):
        run(Position())
