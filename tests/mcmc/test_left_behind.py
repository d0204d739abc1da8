"""Langevin chains that start where no proposal of the common step size is accepted: none stays there."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_gan import VectorizedMCMC
from pyro_gan.mcmc import MALA
from pyro_gan.mcmc.laggards import Laggards
from tests.statistics import assert_mean

NUM_CHAINS = 200


def log_gamma(shape: float, rate: float) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return the potential of the log of a Gamma variable."""
    return lambda params: rate * params["x"].exp() - shape * params["x"]


def half_cauchy(params: dict[str, Tensor]) -> Tensor:
    """Return the potential of the log of the width of five normal draws with squares of .88, a HalfCauchy(1) before."""
    width = params["x"].exp()
    return (1 + width.square()).log() + 4 * params["x"] + 0.44 / width.square()


def mean_width() -> float:
    x = torch.linspace(-10, 20, 300_001, dtype=torch.float64)
    weight = (-half_cauchy({"x": x})).softmax(0)
    return float((weight * x.exp()).sum())


TARGETS = {
    "Gamma(.7)": (log_gamma(0.7, 1.0), 0.7),
    "Gamma(.7) and data": (log_gamma(11.7, 21.0), 11.7 / 21.0),
    "Gamma(.7) and more data": (log_gamma(200.7, 401.0), 200.7 / 401.0),
    "HalfCauchy(1) and data": (half_cauchy, mean_width()),
}


@pytest.mark.parametrize("name", TARGETS)
def test_no_chain_is_left_at_its_start(name: str) -> None:
    """The starts are those of any Pyro model, U(-2, 2): with a plain mean a fifth of the chains would stay there."""
    potential, mean = TARGETS[name]
    mcmc = VectorizedMCMC(
        MALA(potential_fn=potential),
        200,
        warmup_steps=200,
        num_chains=NUM_CHAINS,
        initial_params={"x": 4 * torch.rand(NUM_CHAINS) - 2},
        disable_progbar=True,
    )
    mcmc.run()
    assert mcmc.never_moved == 0
    assert_mean(mcmc.get_samples(group_by_chain=True)["x"].exp().mean(1), mean)


def test_a_model_with_a_positive_site() -> None:
    def model(counts: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(0.7), torch.tensor(1.0)))
        with pyro.plate("row", len(counts)):
            pyro.sample("count", dist.Poisson(rate), obs=counts)

    counts = torch.tensor([1.0, 0.0] * 10 + [1.0])
    mcmc = VectorizedMCMC(MALA(model), 50, warmup_steps=100, num_chains=NUM_CHAINS, disable_progbar=True)
    mcmc.run(counts)
    assert mcmc.never_moved == 0
    assert_mean(mcmc.get_samples(group_by_chain=True)["rate"].mean(1), (0.7 + float(counts.sum())) / 22.0)


def test_chains_that_move_leave_the_mean_as_it_is() -> None:
    laggards = Laggards()
    for _ in range(100):
        accept_prob = torch.rand(50)
        assert float(laggards.weigh(accept_prob)) == pytest.approx(float(accept_prob.mean()), rel=1e-5)


def test_one_stuck_chain_of_many_lowers_the_mean_until_it_moves() -> None:
    laggards = Laggards()
    accept_prob = torch.full((1000,), 0.6)
    accept_prob[0] = 0
    results = [float(laggards.weigh(accept_prob)) for _ in range(60)]
    assert results[0] == pytest.approx(0.6, rel=0.01) and results[-1] < 0.1
    accept_prob[0] = 0.6
    assert float(laggards.weigh(accept_prob)) == pytest.approx(0.6, rel=0.01)


def test_a_single_chain_adapts_to_its_own_acceptance() -> None:
    assert float(Laggards().weigh(torch.tensor([0.3]))) == pytest.approx(0.3)
