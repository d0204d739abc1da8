"""Closed forms of linear generators against fixed numbers and against one another."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan.distributions import EntropicGAN
from pyro_gan.likelihood import AffineGuide, EntropicModel, LinearGaussian
from tests.likelihood.linear_models import (
    GAP_LINEAR,
    POINTS,
    SWEEP,
    THREE,
    double,
    gan_of,
    random_linear,
    standard_normal,
    zigzag,
)

ZERO, EYE = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)


def close(value: Tensor, expected: Tensor, tolerance: float) -> bool:
    return torch.allclose(value, expected, rtol=0, atol=tolerance)


def test_likelihood_and_posterior() -> None:
    exact = double(-3.1075813, -5.3665977, -3.07938458, -7.5223354)
    assert close(THREE.log_prob(POINTS), exact, 1e-6)
    posterior = THREE.posterior()
    assert close(posterior.covariance, double([0.17213115, -0.01639344], [-0.01639344, 0.04918033]), 1e-8)
    assert close(posterior(POINTS).mean[:2], double([-0.05245902, 0.15737705], [1.04590164, -0.13770492]), 1e-8)
    assert close(THREE.surrogate(POINTS, posterior), THREE.log_prob(POINTS), 1e-10)


def test_coupling_with_the_models_own_data_is_the_posterior() -> None:
    coupling, posterior = (THREE.coupling(THREE.bias, THREE.marginal.covariance_matrix), THREE.posterior())
    assert close(coupling.gain, posterior.gain, 1e-10)
    assert close(coupling.covariance, posterior.covariance, 1e-10)


def test_mismatched_data() -> None:
    coupling = THREE.coupling(ZERO, EYE)
    gain = double([0.81260508, 0.35489606, 0.10281297], [-0.05140648, 0.40135321, -0.85411291])
    assert close(coupling.gain, gain, 1e-8)
    assert close(coupling.covariance, double([0.20315127, -0.01285162], [-0.01285162, 0.10676411]), 1e-8)
    surrogate = THREE.surrogate(POINTS, coupling)
    assert close(surrogate, double(-3.58143881, -6.98534332, -4.5039871, -11.36579405), 1e-6)
    gaps = double(0.47385751, 1.61874563, 1.42460252, 3.84345865)
    divergence = torch.distributions.kl_divergence(coupling(POINTS), THREE.posterior()(POINTS))
    assert close(THREE.log_prob(POINTS) - surrogate, gaps, 1e-6) and close(divergence, gaps, 1e-6)
    cost = THREE.transport_cost(ZERO, EYE)
    log_constant = -1.5 * math.log(math.pi * 0.5)
    assert abs(float(cost) - 4.15038123) < 1e-6
    assert abs(log_constant - float(cost) / 0.5 + 8.97813652) < 1e-6
    # The mean over N(0, I) of a quadratic function is its value at 0 and half its Hessian's trace.
    for function, mean in ((lambda y: THREE.surrogate(y, coupling), -8.97813652), (THREE.log_prob, -5.55020425)):
        at_zero, minus, plus = (function(x) for x in (ZERO[None], -EYE, EYE))
        assert abs(float(at_zero + ((plus + minus) / 2 - at_zero).sum()) - mean) < 1e-6


def test_one_dimension() -> None:
    linear = LinearGaussian(double([1.2]), double(0.4), 0.7)
    variance = double([2.25])
    assert abs(float(linear.transport_cost(double(0), variance)) - 1.1901636) < 1e-6
    coupling = linear.coupling(double(0), variance)
    q = coupling(double([1.0]))
    assert abs(float(q.mean) - 0.60499516) < 1e-7 and abs(float(q.covariance_matrix) - 0.17645692) < 1e-7
    assert abs(float(linear.surrogate(double([1.0]), coupling)) + 1.41828) < 1e-4
    assert abs(float(linear.log_prob(double([1.0]))) + 1.310605) < 1e-6


def test_the_cheapest_generator_of_one_dimension() -> None:
    """In the KL form w^2 = S - lambda / 2, and there the bound is the entropy of the data."""
    from scipy import optimize

    def cost(w: float) -> float:
        return float(LinearGaussian(double([w]), double(0), 0.7).transport_cost(double(0), double([2.25])))

    best = optimize.minimize_scalar(cost, bounds=(0.5, 3.0), method="bounded", options={"xatol": 1e-9})
    assert abs(best.x - 1.378405) < 1e-5 and abs(best.x**2 - (2.25 - 0.35)) < 1e-5
    entropy = 0.5 * math.log(2 * math.pi * math.e * 2.25)
    assert abs(best.fun - 1.00126332) < 1e-7
    assert abs(best.fun - 0.7 * (-0.5 * math.log(math.pi * 0.7) + entropy)) < 1e-9


@pytest.mark.parametrize("dim", SWEEP)
def test_dimension_sweep(dim: int) -> None:
    mean, eye = torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    exact = dict(zip(SWEEP, (-7.094693, -14.189385, -28.378771, -42.568156, -90.812066), strict=True))
    wider = dict(zip(SWEEP, (-7.097620, -14.195241, -28.390482, -42.585723, -90.849542), strict=True))
    surrogate = dict(zip(SWEEP, (-7.125941, -14.251882, -28.503764, -42.755646, -91.212045), strict=True))

    def expected(linear: LinearGaussian) -> tuple[float, float]:
        """Mean exact likelihood and mean surrogate over N(0, I)."""
        variance = linear.marginal.covariance_matrix
        likelihood = linear.marginal.log_prob(mean) - 0.5 * torch.trace(torch.linalg.inv(variance))
        log_constant = -0.5 * dim * math.log(math.pi * 0.1)
        return float(likelihood), log_constant - float(linear.transport_cost(mean, eye)) / 0.1

    for value in expected(LinearGaussian(math.sqrt(0.95) * eye, mean, 0.1)):
        assert abs(value - exact[dim]) < 1e-5
    likelihood, bound = expected(LinearGaussian(eye, mean, 0.1))
    assert abs(likelihood - wider[dim]) < 1e-5 and abs(bound - surrogate[dim]) < 1e-5
    assert abs((likelihood - bound) / dim - GAP_LINEAR) < 1e-6


@pytest.mark.parametrize(("latent", "dim"), [(2, 5), (4, 4), (6, 3)])
def test_the_coupling_has_the_priors_marginal_and_the_best_surrogate(latent: int, dim: int) -> None:
    linear = random_linear(latent, dim)
    factor = torch.randn(dim, dim, dtype=torch.float64)
    mean, covariance = (torch.randn(dim, dtype=torch.float64), factor @ factor.T + 0.1 * torch.eye(dim).double())
    coupling = linear.coupling(mean, covariance)
    marginal = coupling.gain @ covariance @ coupling.gain.T + coupling.covariance
    assert close(marginal, torch.eye(latent).double(), 1e-9)

    def mean_surrogate(guide: AffineGuide) -> float:
        root = torch.linalg.cholesky(covariance).T * math.sqrt(dim)
        return float(linear.surrogate(torch.cat([mean + root, mean - root]), guide).mean())

    log_constant = -0.5 * dim * math.log(math.pi * linear.regularization)
    cost = float(linear.transport_cost(mean, covariance))
    assert abs(mean_surrogate(coupling) - (log_constant - cost / linear.regularization)) < 1e-8
    # A rotated coupling has the same marginal, so it is still a plan, but a more costly one.
    turn = torch.linalg.qr(torch.eye(latent).double() + 0.1 * torch.randn(latent, latent).double()).Q
    other = AffineGuide(turn @ coupling.gain, mean, turn @ coupling.covariance @ turn.T)
    assert mean_surrogate(other) < mean_surrogate(coupling) + 1e-12


def test_no_guide_exceeds_the_likelihood() -> None:
    linear = zigzag()
    y = linear.marginal.sample((2,))
    for _ in range(1000):
        root = torch.randn(5, 5, dtype=torch.float64) * float(10 ** (torch.rand(()) - 0.7))
        gain = linear.posterior().gain + 0.1 * torch.randn(5, 10, dtype=torch.float64)
        guide = AffineGuide(gain, torch.randn(10).double(), root @ root.T + 1e-3 * torch.eye(5).double())
        assert bool((linear.surrogate(y, guide) <= linear.log_prob(y) + 1e-9).all())


def test_it_is_read_off_a_network() -> None:
    linear = LinearGaussian.of(gan_of(THREE).model())
    assert close(linear.weight, THREE.weight, 1e-12) and close(linear.bias, THREE.bias, 1e-12)
    half = EntropicGAN(
        nn.Linear(2, 3, dtype=torch.float64),
        standard_normal(2),
        loss="half_squared_l2",
        regularization=0.5,
        reduction="mean",
    )
    assert LinearGaussian.of(half.model()).regularization == pytest.approx(0.5 * 2 * 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)}, "standard normal prior"),
        ({"prior": dist.Normal(torch.zeros(2), 2.0).to_event(1)}, "standard normal prior"),
        ({"generator": nn.Sequential(nn.Linear(2, 3), nn.Tanh())}, "got one that bends"),
        ({"loss": "l1"}, "squared L2"),
    ],
)
def test_no_closed_form(options: dict[str, object], words: str) -> None:
    settings = {
        "generator": nn.Linear(2, 3),
        "prior": dist.Normal(torch.zeros(2), 1.0).to_event(1),
        "loss": "squared_l2",
    } | options
    model = EntropicModel(**settings, regularization=0.5)
    with pytest.raises(ValueError, match=words):
        LinearGaussian.of(model)


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match=r"bias of shape \(3,\); got \(2,\)"):
        LinearGaussian(torch.eye(3), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="positive, finite regularization"):
        LinearGaussian(torch.eye(3), torch.zeros(3), 0.0)
