"""Likelihoods of entropic GANs: annealing against closed forms, the dimension sweep, and a real image model."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pyro_gan.annealing import geometric
from pyro_gan.likelihood import (
    AnnealedImportance,
    Coupling,
    EntropicModel,
    Estimator,
    ImportanceWeighted,
    Laplace,
    LinearGaussian,
    Sandwich,
    Surrogate,
)
from pyro_gan.objectives import EntropicTransport, fit_transport
from tests import zoo
from tests.likelihood.linear_models import SWEEP, gan_of, zigzag
from tests.numbers.size import SEEDS
from tests.statistics import FALSE_ALARM

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore:.*effective sample size")]
LAMBDA, NUM_IMAGES = 0.5, 10


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def beyond_chance(error: Tensor) -> float:
    """The mean of that many independent errors exceeds this once in 100 000 times, if its expectation is zero."""
    return float(stats.t.isf(FALSE_ALARM, len(error) - 1)) * float(error.std()) / math.sqrt(len(error))


@pytest.mark.parametrize("seed", SEEDS)
def test_annealing_in_ten_dimensions(seed: int, figure) -> None:
    pyro.set_rng_seed(seed)
    linear = zigzag()
    model = gan_of(linear).model()
    gaps = []
    for num_temperatures in (10, 100, 1000):
        annealed = AnnealedImportance(num_temperatures=num_temperatures, num_particles=32)
        sandwich = Sandwich(annealed)(model, 12)
        exact = linear.log_prob(sandwich.y)
        lower, upper = sandwich.lower.value - exact, sandwich.upper.value - exact
        gaps.append(float(sandwich.gap.mean()))
        figure(
            "annealing", dim=10, temperatures=num_temperatures, particles=32, data=12, seed=seed,
            lower=float(lower.mean()), upper=float(upper.mean()), worst=float(lower.abs().max()),
            ess=float(sandwich.lower.ess.mean()),
        )  # fmt: skip
        for error, sign in ((lower, 1), (upper, -1)):
            assert sign * float(error.mean()) < beyond_chance(error)
    assert -0.3 < float(lower.mean()) < 0.1
    assert gaps[0] > gaps[1] > gaps[2] - 0.1 and gaps[2] < 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_dimension_sweep(seed: int, figure) -> None:
    """Data N(0, I) under G(z) = z and lambda 0.1: the surrogate is 0.0057 nats a dimension below the exact value."""
    pyro.set_rng_seed(seed)
    for dim in SWEEP:
        linear = LinearGaussian(torch.eye(dim).double(), torch.zeros(dim).double(), 0.1)
        model = gan_of(linear).model()
        y = torch.randn(10, dim, dtype=torch.float64)
        exact = linear.log_prob(y)
        coupling = linear.coupling(torch.zeros(dim).double(), torch.eye(dim).double())
        estimators: dict[str, Estimator] = {
            "surrogate": Surrogate(coupling, num_particles=4000),
            "IW prior": ImportanceWeighted(num_particles=10_000),
            "IW coupling": ImportanceWeighted(coupling, num_particles=1000),
            "IW Laplace": ImportanceWeighted(Laplace(), num_particles=1000),
            "AIS": AnnealedImportance(num_temperatures=1000, num_particles=16),
            "AIS geometric": AnnealedImportance(
                num_temperatures=1000, num_particles=16, ladder=partial(geometric, first=0.01)
            ),
        }
        figures = {}
        for name, estimator in estimators.items():
            estimate = estimator(model, y)
            error = estimate.value - exact
            figures[name] = float(error.mean())
            # The errors of data points are independent, but with shared draws of the prior only Markov's bound holds.
            limit = math.log(10 / FALSE_ALARM) if name == "IW prior" else beyond_chance(error) + 0.02
            assert figures[name] < limit, (name, dim)
            if name in ("IW coupling", "IW Laplace"):
                assert abs(figures[name]) < 0.1, (name, dim)
            if name == "surrogate":
                closed = linear.surrogate(y, coupling)
                se = estimate.standard_error
                assert bool(((estimate.value - closed).abs() < 5 * se).all()), dim
        figure("dimension sweep", dim=dim, seed=seed, exact=float(exact.mean()), **figures)
        # Both errors grow as the posterior narrows; far less if more temperatures are at small powers.
        assert figures["AIS"] > -0.15 * dim and figures["AIS geometric"] > -0.08 * dim


def potential_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.SiLU(), nn.Linear(256, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_image_model(seed: int, figure: Callable[..., None]) -> None:
    """The zoo's MNIST GAN in float32, on real digits: annealing is far above the surrogate, and both are finite."""
    pyro.set_rng_seed(seed)
    generator, prior = zoo.mnist_generator(), zoo.mnist_prior()
    train = zoo.mnist_train().images
    y = zoo.mnist_test().images[:: 10_000 // NUM_IMAGES][:NUM_IMAGES]
    model = EntropicModel(generator, prior, regularization=LAMBDA)
    objective = EntropicTransport(regularization=LAMBDA)
    critic = potential_network()
    adam = torch.optim.Adam(critic.parameters(), lr=1e-3)
    fit_transport(
        generator, critic, prior=prior, data=train, objective=objective, optimizer=adam, num_steps=150,
        batch_size=64, num_report=1000, progress=False,
    )  # fmt: skip
    surrogate = Surrogate(Coupling(critic), num_particles=10_000)(model, y)
    estimator = AnnealedImportance(num_temperatures=1000, num_particles=16)
    annealed = estimator(model, y)
    gap = Sandwich(estimator)(model, 5).gap
    values: dict[str, Tensor] = {"surrogate": surrogate.value, "annealed": annealed.value, "gap": gap}
    figure(
        "image model", seed=seed, regularization=LAMBDA, **{name: float(v.mean()) for name, v in values.items()},
        surrogate_ess=float(surrogate.ess.mean()), annealed_ess=float(annealed.ess.mean()),
    )  # fmt: skip
    assert annealed.value.dtype == torch.float32
    assert all(bool(value.isfinite().all()) for value in values.values())
    # By chance one of 10 000 prior draws may be near the posterior of a digit that all 16 particles miss.
    above = annealed.value > surrogate.value
    assert int(above.sum()) >= NUM_IMAGES - 1
    assert float((annealed.value - surrogate.value).mean()) > 10
