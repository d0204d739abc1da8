"""Laws of two-sample losses: exact on Gaussians, unbiased, differentiable, and bad input raises."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from pyro_gan.objectives import MMD, GaussianKernel, MomentMatching, RationalQuadraticKernel
from tests.objectives.gaussian_pair import P, Q
from tests.objectives.members import TWO_SAMPLE_LOSSES
from tests.statistics import assert_close_in_se, assert_mean

each = pytest.mark.parametrize("name", TWO_SAMPLE_LOSSES)


def by_pairs(kernel, x: Tensor, y: Tensor) -> Tensor:
    """Return the squared MMD by its definition, pair by pair."""

    def mean(a: Tensor, b: Tensor, skip: bool) -> Tensor:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return torch.stack([kernel((a[i] - b[j]).square().sum()[None, None])[0, 0] for i, j in pairs]).mean()

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize("kernel", [GaussianKernel([0.5, 2.0]), RationalQuadraticKernel([0.3, 1.0])], ids=repr)
def test_mmd_is_its_definition(kernel) -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), 0.5 + torch.randn(4, 3, dtype=torch.float64)
    assert torch.allclose(MMD(kernel)(x, y), by_pairs(kernel, x, y))


@pytest.mark.parametrize(("bandwidth", "exact"), [(0.5, 0.05671803), (1.0, 0.06562523), (2.0, 0.03949982)])
def test_mmd_of_a_gaussian_pair(bandwidth: float, exact: float) -> None:
    loss = MMD(GaussianKernel([bandwidth]))
    values = torch.stack([loss(P.sample((30, 1)), Q.sample((40, 1))) for _ in range(600)])
    assert_mean(values, exact, "MMD^2")


@each
def test_unbiased_where_the_two_are_the_same(name: str) -> None:
    """Its mean is zero, so about half of it is negative."""
    values = torch.stack([TWO_SAMPLE_LOSSES[name]()(torch.randn(10, 2), torch.randn(20, 2)) for _ in range(600)])
    assert_mean(values, 0.0, name)
    assert (values < 0).any()


def test_a_mixture_is_the_mean_of_its_parts() -> None:
    x, y = torch.randn(6, 2), torch.randn(7, 2)
    parts = [MMD(GaussianKernel([h]))(x, y) for h in (0.5, 1.0, 4.0)]
    assert torch.allclose(MMD(GaussianKernel([0.5, 1.0, 4.0]))(x, y), torch.stack(parts).mean(), atol=1e-6)


def test_far_from_the_origin_in_float32() -> None:
    """Distances are computed relative to a common centre, so no large squares cancel."""
    x, y = torch.randn(50, 2), 1 + torch.randn(50, 2)
    for loss in (MMD(GaussianKernel([0.5, 1.0, 2.0])), MomentMatching(lambda x: x)):
        shift = 4096.0  # a power of two: shifting rounds to 2^-11 at most
        near = loss((x + shift) - shift, (y + shift) - shift)
        assert torch.allclose(loss(x + shift, y + shift), near, rtol=1e-3, atol=1e-4)


def test_moment_matching_is_mmd_of_the_linear_kernel() -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)

    def features(x: Tensor) -> Tensor:
        return torch.cat([x, x.square()], -1)

    s, t = features(x), features(y)
    within = [(a @ a.T).fill_diagonal_(0).sum() / (len(a) * (len(a) - 1)) for a in (s, t)]
    assert torch.allclose(MomentMatching(features)(x, y), within[0] + within[1] - 2 * (s @ t.T).mean())


def test_moment_matching_of_a_gaussian_pair() -> None:
    """Means .5 and 0, second moments .89 and 1."""
    loss = MomentMatching(lambda x: torch.cat([x, x.square()], -1))
    values = torch.stack([loss(P.sample((20, 1)), Q.sample((30, 1))) for _ in range(1000)])
    assert_close_in_se(values.mean(), 0.25 + 0.11**2, values.std() / math.sqrt(1000), "squared distance of moments")


@each
def test_the_generator_gets_finite_gradients_that_lower_it(name: str) -> None:
    real = torch.randn(64, 2)
    generated = (3 + 2 * torch.randn(64, 2)).requires_grad_()
    loss = TWO_SAMPLE_LOSSES[name]()(real, generated)
    (gradient,) = torch.autograd.grad(loss, generated)
    assert loss.shape == () and gradient.isfinite().all()
    step = 1e-3 / gradient.norm()
    assert TWO_SAMPLE_LOSSES[name]()(real, (generated - step * gradient).detach()) < loss


@each
def test_equal_rows_have_finite_gradients(name: str) -> None:
    x = torch.zeros(4, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(TWO_SAMPLE_LOSSES[name]()(torch.zeros(3, 2), x), x)
    assert gradient.isfinite().all()


@each
@pytest.mark.parametrize("event", [(), (3,), (1, 4, 4)])
def test_any_event(name: str, event: tuple[int, ...]) -> None:
    x, y = torch.randn(5, *event), torch.randn(6, *event)
    flat = TWO_SAMPLE_LOSSES[name]()(x.reshape(5, -1), y.reshape(6, -1))
    assert torch.equal(TWO_SAMPLE_LOSSES[name]()(x, y), flat)


@each
def test_bad_shapes_raise(name: str) -> None:
    for bad in (torch.randn(1, 2), torch.randn(0, 2), torch.tensor(0.0)):
        with pytest.raises(ValueError, match="real data .* with a batch of at least 2"):
            TWO_SAMPLE_LOSSES[name]()(bad, torch.randn(4, 2))
        with pytest.raises(ValueError, match="generated data .* with a batch of at least 2"):
            TWO_SAMPLE_LOSSES[name]()(torch.randn(4, 2), bad)
    with pytest.raises(ValueError, match=r"one event shape; got \(2,\) and \(3,\)"):
        TWO_SAMPLE_LOSSES[name]()(torch.randn(4, 2), torch.randn(4, 3))


def test_features_that_lose_rows_raise() -> None:
    with pytest.raises(ValueError, match=r"features of shape \(4, ...\)"):
        MomentMatching(lambda x: x.mean(0))(torch.randn(4, 2), torch.randn(4, 2))


@pytest.mark.parametrize("kernel", [GaussianKernel, RationalQuadraticKernel])
@pytest.mark.parametrize("values", [[], [0.0], [1.0, -1.0], [math.nan], [math.inf]])
def test_bad_kernels_raise(kernel, values: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        kernel(values)


@each
def test_pickle(name: str) -> None:
    again = pickle.loads(pickle.dumps(TWO_SAMPLE_LOSSES[name]()))
    x, y = torch.randn(5, 2), torch.randn(5, 2)
    assert repr(again) == repr(TWO_SAMPLE_LOSSES[name]()) and torch.equal(again(x, y), TWO_SAMPLE_LOSSES[name]()(x, y))
