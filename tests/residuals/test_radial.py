"""The radial exponential distribution: its constant, its draws, its shapes."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from scipy import integrate, stats

from pyro_gan.distributions import RadialExponential
from pyro_gan.targets import make_target
from tests.statistics import assert_follows, assert_mean


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_it_integrates_to_one(dim: int, scale: float) -> None:
    noise = RadialExponential(torch.zeros(dim, dtype=torch.float64), scale)
    sphere = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2)

    def shell(r: float) -> float:
        y = torch.zeros(dim, dtype=torch.float64)
        y[0] = r
        return sphere * r ** (dim - 1) * float(noise.log_prob(y).exp())

    assert abs(integrate.quad(shell, 0, 60 * scale * dim)[0] - 1) < 1e-7


def test_one_dimension_is_laplace() -> None:
    y = torch.randn(7, 1, dtype=torch.float64)
    laplace = torch.distributions.Laplace(0.0, 0.7)
    noise = RadialExponential(torch.zeros(1, dtype=torch.float64), 0.7)
    assert torch.allclose(noise.log_prob(y), laplace.log_prob(y)[:, 0])


@pytest.mark.parametrize("dim", [1, 3, 20])
def test_draws_follow_it(dim: int) -> None:
    loc = torch.full((dim,), 2.0, dtype=torch.float64)
    noise = RadialExponential(loc, 0.5)
    residual = noise.sample((4000,)) - loc
    assert_follows(residual.norm(dim=-1), stats.gamma(dim, scale=0.5).cdf, "distance")
    assert_mean(residual, 0.0, "mean")
    assert_mean(residual.square(), noise.variance, "variance")
    if dim > 1:  # the direction is uniform on the sphere
        assert_mean(residual[:, :-1] * residual[:, 1:], 0.0, "covariance of neighbours")
    assert_mean(residual.norm(dim=-1), dim * 0.5, "mean distance")


def test_shapes_and_expand() -> None:
    noise = RadialExponential(torch.zeros(4, 1, 2, 3), torch.tensor([0.5, 1.0]), event_dim=2)
    assert (noise.batch_shape, noise.event_shape) == ((4, 2), (2, 3))
    y = noise.sample((5,))
    assert y.shape == (5, 4, 2, 2, 3) and noise.log_prob(y).shape == (5, 4, 2)
    wide = noise.expand((6, 4, 2))
    assert wide.batch_shape == (6, 4, 2) and torch.equal(wide.log_prob(y[0])[3], noise.log_prob(y[0]))
    assert wide.sample().shape == (6, 4, 2, 2, 3) and noise.mean.shape == noise.variance.shape == (4, 2, 2, 3)


def test_gradients() -> None:
    loc = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    noise = RadialExponential(loc, scale)
    assert torch.autograd.gradcheck(
        lambda m, s: RadialExponential(m, s).log_prob(torch.ones(2, 3).double()), (loc, scale)
    )
    noise.rsample((5,)).sum().backward()
    assert torch.allclose(loc.grad, torch.full((3,), 5.0).double()) and scale.grad.abs() > 0


def test_in_a_model() -> None:
    def model(y):
        scale = pyro.sample("scale", pyro.distributions.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", RadialExponential(torch.zeros(len(y), 3), scale), obs=y)

    guide = pyro.infer.autoguide.AutoDelta(model)
    y = RadialExponential(torch.zeros(2000, 3), 0.4).sample()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), pyro.infer.Trace_ELBO())
    for _ in range(200):
        svi.step(y)
    assert abs(float(guide.median()["scale"]) - 0.4) < 0.03  # .4 / sqrt(6000) is .005


def test_many_chains_at_once() -> None:
    def model():
        scale = pyro.sample("scale", pyro.distributions.LogNormal(0.0, 1.0))
        pyro.sample("y", RadialExponential(torch.zeros(3), scale), obs=torch.ones(3))

    target = make_target(model)
    z = torch.tensor([[-1.0], [0.5]])
    likelihood = RadialExponential(torch.zeros(2, 3), z[:, 0].exp()).log_prob(torch.ones(3))
    prior = pyro.distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
    torch.testing.assert_close(target.potential(z), -prior - likelihood)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="positive, finite scale"):
        RadialExponential(torch.zeros(3), -1.0)
    with pytest.raises(ValueError, match="event_dim"):
        RadialExponential(torch.tensor(0.0), 1.0)
    assert np.isclose(float(RadialExponential(torch.zeros(784), 5.0).log_prob(torch.zeros(784))), -4203.04193666)
