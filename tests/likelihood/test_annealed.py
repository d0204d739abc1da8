"""Annealed importance sampling and its sandwich against closed forms; step sizes adapt on other particles."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan.distributions import EntropicGAN
from pyro_gan.likelihood import AnnealedImportance, EntropicModel, ImportanceWeighted, LinearGaussian, Sandwich
from pyro_gan.mcmc import MALA, PCN, BatchHMC
from tests.likelihood.linear_models import POINTS, THREE, double, gan_of, random_linear, zigzag
from tests.statistics import assert_close_in_se, assert_mean

pytestmark = pytest.mark.filterwarnings("ignore:.*effective sample size")

KERNELS = {"mala": MALA, "pcn": PCN, "hmc": lambda target: BatchHMC(target, num_steps=3, target_accept_prob=0.7)}


def test_one_temperature_is_the_prior(seed: int) -> None:
    """The same draws give the same value, up to the rounding of two routines for the distance."""
    model = gan_of(THREE).model()
    pyro.set_rng_seed(seed)
    annealed = AnnealedImportance(num_temperatures=1, num_particles=50)(model, POINTS[:1])
    pyro.set_rng_seed(seed)
    prior = ImportanceWeighted(num_particles=50)(model, POINTS[:1])
    assert torch.allclose(annealed.value, prior.value, rtol=0, atol=1e-12)
    assert torch.allclose(annealed.ess, prior.ess)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("num_temperatures", [2, 15])
def test_mean_weights_are_unbiased(kernel: str, num_temperatures: int) -> None:
    """For many equal data points the mean of f-hat over f is 1, in both directions and with few temperatures."""
    # With one latent and wide noise the spread of the mean weight is finite and small enough for a test.
    linear = LinearGaussian(double([1.0], [0.5]), double(0, 0), 2.0)
    model = gan_of(linear).model()
    y = torch.tensor([[1.0, -0.5]], dtype=torch.float64).expand(400, 2)
    estimator = AnnealedImportance(num_temperatures=num_temperatures, num_particles=10, kernel=KERNELS[kernel])
    schedule = estimator.schedule(model, y)
    up = estimator.lower(model, y, schedule)
    assert_mean((up.value - linear.log_prob(y)).exp(), 1.0, "upwards")
    z = linear.posterior()(y).sample()
    down = estimator.upper(model, z, y, schedule)
    assert_mean((linear.log_prob(y) - down.value).exp(), 1.0, "downwards")
    assert (up.is_bound, down.is_bound) == ("lower", "upper")


def test_a_forgotten_increment_would_be_seen() -> None:
    """Negative control for the check above."""
    model = gan_of(THREE).model()
    y = POINTS[:1].expand(400, 3)
    estimator = AnnealedImportance(num_temperatures=5, num_particles=10)
    schedule = estimator.schedule(model, y)
    short = schedule._replace(betas=(*schedule.betas[:-1], 0.9))
    with pytest.raises(AssertionError):
        assert_mean((estimator.lower(model, y, short).value - THREE.log_prob(y)).exp(), 1.0)


@pytest.mark.parametrize(("latent", "dim"), [(2, 5), (4, 4), (5, 3)])
def test_random_models_are_met_and_never_exceeded(latent: int, dim: int) -> None:
    linear = random_linear(latent, dim)
    model = gan_of(linear).model()
    y = linear.marginal.sample((10,))
    estimate = AnnealedImportance(num_temperatures=60, num_particles=40)(model, y)
    error = estimate.value - linear.log_prob(y)
    # By Markov's inequality no value is above by t nats with more than probability exp(-t).
    assert bool((error < math.log(10 / 1e-5)).all())
    assert_close_in_se(error.mean(), 0.0, 0.15)
    # The delta method holds where weights are this even.
    even = estimate.ess > 10
    assert_close_in_se(error[even], 0.0, 1.2 * estimate.standard_error[even])


def test_the_sandwich_holds_and_closes() -> None:
    linear = zigzag()
    model = gan_of(linear).model()
    gaps = []
    for num_temperatures in (5, 100):
        sandwich = Sandwich(AnnealedImportance(num_temperatures=num_temperatures, num_particles=16))(model, 20)
        exact = linear.log_prob(sandwich.y)
        lower, upper = sandwich.lower.value - exact, sandwich.upper.value - exact
        se = [float(side.std()) / math.sqrt(20) for side in (lower, upper)]
        assert float(lower.mean()) < 4.4 * se[0] and float(upper.mean()) > -4.4 * se[1]
        gaps.append(float(sandwich.gap.mean()))
    assert 0.1 < gaps[0] and gaps[1] < 0.5 * gaps[0]
    assert sandwich.lower.is_bound == "lower" and sandwich.upper.is_bound == "upper"


def test_bounded_latents_and_images() -> None:
    """In unconstrained coordinates and with event dimensions, against weighted draws of the prior."""
    prior = dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)
    generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Unflatten(-1, (1, 2, 2)))
    model = EntropicModel(generator, prior, loss="l1", regularization=0.5, chunk_size=64)
    y = model.simulate(3)[1]
    annealed = AnnealedImportance(num_temperatures=50, num_particles=50)(model, y)
    weighed = ImportanceWeighted(num_particles=20_000)(model, y)
    se = (annealed.standard_error.square() + weighed.standard_error.square()).sqrt()
    assert_close_in_se(annealed.value, weighed.value, 1.5 * se)
    gap = Sandwich(AnnealedImportance(num_temperatures=50, num_particles=20))(model, 5).gap
    assert gap.shape == (5,) and bool((gap.abs() < 1.5).all())


def test_data_do_not_mix() -> None:
    """The particles of a data point see that point only: an outlier changes no other value beyond its error."""
    model = gan_of(THREE).model()
    y = torch.cat([POINTS, 30 * torch.ones(1, 3, dtype=torch.float64)])
    estimate = AnnealedImportance(num_temperatures=200, num_particles=50)(model, y)
    assert_close_in_se(estimate.value[:4], THREE.log_prob(POINTS), 1.2 * estimate.standard_error[:4])


class RarelyNan(nn.Module):
    """NaN for negative latents, but only once it is armed: after the checks of the constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z < 0, torch.nan, z) if self.armed else z


def test_nan_is_named() -> None:
    generator = RarelyNan()
    model = EntropicModel(generator, dist.Normal(torch.zeros(2), 1.0).to_event(1), regularization=0.5)
    model.latents.generator.armed = True
    with pytest.raises(ValueError, match="likelihood is NaN"):
        AnnealedImportance(num_temperatures=3)(model, torch.zeros(2, 2))


def test_bad_arguments() -> None:
    for bad in ({"num_temperatures": 0}, {"num_particles": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            AnnealedImportance(**bad)
    with pytest.raises(ValueError, match="estimator to be an AnnealedImportance"):
        Sandwich(ImportanceWeighted())
    with pytest.raises(ValueError, match="num_data"):
        Sandwich()(gan_of(THREE).model(), 0)
    with pytest.raises(ValueError, match="differentiable function of y"):
        EntropicGAN(nn.Linear(2, 3), dist.Normal(torch.zeros(2), 1.0).to_event(1), regularization=0.5,
                    estimator=AnnealedImportance())  # fmt: skip
