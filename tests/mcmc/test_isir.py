"""i-SIR: which particle a chain chooses, what is reported, what is computed once, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import ISIR, State
from pyro_gan.mcmc.isir import isir_step
from tests.statistics import assert_close_in_se, assert_mean, assert_sd

PRIOR = dist.Normal(torch.zeros(2), 1.0).to_event(1)


def choices(current: float, others: list[float], chains: int = 40_000) -> tuple[Tensor, object]:
    """Return the particle that each of many chains with the same weights has chosen; 0 is its own state."""
    fresh = len(others)
    state = State(torch.zeros(chains, 1), torch.zeros(chains), None, torch.full((chains,), current))
    label = torch.arange(1.0, fresh + 1).repeat(chains)
    particles = State(label.unsqueeze(1), label, None, torch.tensor(others).repeat(chains))
    new, info = isir_step(state, particles)
    assert torch.equal(new.z[:, 0], new.potential)
    taken = new.z[:, 0].long()
    torch.testing.assert_close(new.log_weight, torch.tensor([current, *others])[taken])
    assert torch.equal(info.accepted, taken > 0)
    assert torch.equal(info.energy, new.potential)
    return taken, info


@pytest.mark.parametrize("constant", [0.0, -300.0, 5000.0])
def test_a_particle_is_chosen_by_its_weight_and_leaving_has_its_probability(constant) -> None:
    weights = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64)
    log_weights = (weights.log() + constant).tolist()
    taken, info = choices(log_weights[0], log_weights[1:])
    share = torch.bincount(taken, minlength=4).double() / len(taken)
    se = (weights * (1 - weights) / len(taken)).sqrt()
    assert_close_in_se(share, weights, se, "shares")
    torch.testing.assert_close(info.accept_prob, torch.full_like(info.accept_prob, 0.6), rtol=1e-3, atol=0)
    assert not info.invalid.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_unusable_weight_is_zero_and_flagged(bad) -> None:
    taken, info = choices(0.0, [bad, 0.0])
    assert not (taken == 1).any() and (taken == 2).any()
    assert info.invalid.all() and info.diverging.all()
    assert torch.equal(info.accept_prob, torch.full_like(info.accept_prob, 0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_chain_where_the_proposal_has_no_density_stays_and_is_flagged(bad) -> None:
    state = State(torch.zeros(5, 1), torch.zeros(5), None, torch.full((5,), bad))
    new, info = isir_step(state, State(torch.ones(10, 1), torch.ones(10), None, torch.zeros(10)))
    assert not new.z.any() and not info.accepted.any()
    assert info.invalid.all() and (info.accept_prob == 0).all()


def test_where_all_proposals_weigh_nothing_a_chain_stays() -> None:
    taken, info = choices(-50.0, [-math.inf, -math.inf])
    assert not taken.any() and not info.invalid.any()
    assert (info.accept_prob == 0).all()


class Counting:
    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return -x.square().sum(-1)


@pytest.mark.parametrize(("chains", "particles"), [(100, 11), (3, 5), (2000, 4)])
def test_proposals_are_scored_once_and_the_current_state_never_again(chains, particles) -> None:
    counting = Counting()
    gan = LatentPosterior(torch.nn.Identity(), counting, PRIOR, chunk_size=10**6)
    kernel = ISIR(gan, num_particles=particles)
    kernel.bind(chains)
    kernel.setup(0)
    counting.rows.clear()
    params, a_step = kernel.initial_params, chains * (particles - 1)
    ahead = max(1, 1000 // a_step)
    for _ in range(2 * ahead):
        params = kernel.sample(params)
    assert counting.rows == [ahead * a_step] * 2


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
def test_more_particles_reach_the_target_in_one_step() -> None:
    # The target is N(0, 1/3) a coordinate, and chains start at the prior.
    gan = LatentPosterior(torch.nn.Identity(), lambda x: -x.square().sum(-1), PRIOR)
    spread = []
    for particles in (2, 10, 200):
        mcmc = VectorizedMCMC(ISIR(gan, num_particles=particles), 1, 0, num_chains=5000, disable_progbar=True)
        mcmc.run()
        spread.append(mcmc.get_samples()["z"])
    assert spread[0].std() > spread[1].std() > spread[2].std()
    assert_mean(spread[2], 0.0)
    # After a step with 200 particles about a hundredth of the prior is left.
    assert float(spread[2].std()) == pytest.approx(3**-0.5, abs=0.02)


@pytest.mark.parametrize("num_particles", [1, 0, -3])
def test_one_particle_raises(num_particles) -> None:
    gan = LatentPosterior(torch.nn.Identity(), Counting(), PRIOR)
    with pytest.raises(ValueError, match="num_particles of at least 2"):
        ISIR(gan, num_particles=num_particles)


def test_a_bare_potential_with_a_proposal_is_sampled() -> None:
    def potential(params: dict[str, Tensor]) -> Tensor:
        return (params["z"].double() - 1).square().sum(-1) / 2

    proposal = dist.StudentT(4.0, torch.zeros(1, dtype=torch.float64), 2.0).to_event(1)
    start = {"z": torch.zeros(4000, 1, dtype=torch.float64)}
    mcmc = VectorizedMCMC(
        ISIR(potential_fn=potential, proposal=proposal), 1, 60, start, num_chains=4000, disable_progbar=True
    )
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert_mean(z, 1.0)
    assert_sd(z, 1.0)


def potential_of(name: str) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda params: params[name].square().sum(-1) / 2


def test_a_bare_potential_without_a_proposal_raises() -> None:
    with pytest.raises(ValueError, match="proposal= with a bare potential_fn.*no prior that ISIR could propose from"):
        ISIR(potential_fn=potential_of("z"))
