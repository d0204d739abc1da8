"""A proposal of the user's: what it must give, and what is said when it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import MetropolisHastings
from pyro_gan.mcmc.metropolis import State


class Step:
    def __init__(self, z: Tensor | None = None, log_q_ratio: Tensor | None = None) -> None:
        self.z, self.log_q_ratio = z, log_q_ratio

    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        z = state.z + 0.1 * torch.randn_like(state.z) if self.z is None else self.z
        return z, torch.zeros(len(state.z)) if self.log_q_ratio is None else self.log_q_ratio


def run(proposal: Step, num_samples: int = 3) -> VectorizedMCMC:
    toy = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(
        MetropolisHastings(gan, proposal=proposal), num_samples, 0, num_chains=5, disable_progbar=True
    )
    mcmc.run()
    return mcmc


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (5, 2)])
def test_a_ratio_of_the_wrong_shape_raises(shape) -> None:
    with pytest.raises(ValueError, match=r"one log_q_ratio a chain, shape \(5,\).*Sum over"):
        run(Step(log_q_ratio=torch.zeros(shape)))


@pytest.mark.parametrize("z", [torch.zeros(5), torch.zeros(4, 2), torch.zeros(5, 2).double()])
def test_positions_of_the_wrong_shape_or_dtype_raise(z) -> None:
    with pytest.raises(ValueError, match=r"Step\.propose to give positions of shape \(5, 2\)"):
        run(Step(z=z))


def test_a_proposal_that_writes_into_the_state_raises() -> None:
    class Rude(Step):
        def propose(self, state: State) -> tuple[Tensor, Tensor]:
            state.z.add_(torch.randn_like(state.z))
            return state.z, torch.zeros_like(state.potential)

    with pytest.raises(ValueError, match="written into state.z"):
        run(Rude())


@pytest.mark.parametrize("given", [None, torch.zeros(5, 2), (torch.zeros(5, 2), 0.0)])
def test_another_thing_than_two_tensors_raises(given) -> None:
    class Odd(Step):
        def propose(self, state: State) -> tuple[Tensor, Tensor]:
            return given

    with pytest.raises(ValueError, match="two tensors"):
        run(Odd())


def test_a_class_in_place_of_an_instance_raises() -> None:
    with pytest.raises(ValueError, match=r"propose\(state\)"):
        run(Step)


def test_something_else_in_place_of_a_proposal_raises() -> None:
    with pytest.raises(ValueError, match=r"propose\(state\)"):
        run(torch.distributions.Normal(0.0, 1.0))


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_unusable_ratio_is_rejected_and_counted(value) -> None:
    mcmc = run(Step(log_q_ratio=torch.full((5,), value)))
    assert mcmc.num_invalid == 15 and mcmc.never_moved == 1


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
def test_a_way_back_of_no_density_is_rejected_and_no_error() -> None:
    mcmc = run(Step(log_q_ratio=torch.full((5,), -torch.inf)))
    assert mcmc.num_invalid == 0 and mcmc.never_moved == 1


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
def test_positions_that_are_not_finite_are_rejected_and_counted() -> None:
    mcmc = run(Step(z=torch.full((5, 2), torch.nan)))
    assert mcmc.num_invalid == 15
