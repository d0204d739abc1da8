"""Tempered targets are exact at both ends and right in between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior
from pyro_gan.targets import Target, TemperedTarget, make_target
from tests.exact_targets import affine_toy, uniform_latents

BETAS = [0.0, 0.3, 1.0]


def affine_target() -> Target:
    toy = affine_toy()
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    return make_target(gan)


def uniform_target() -> Target:
    latents = uniform_latents()
    gan = LatentPosterior(latents.generator, latents.log_ratio, latents.prior)
    return make_target(gan)


class CountingRatio(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return -x.square().sum(-1)


@pytest.mark.parametrize("make", [affine_target, uniform_target])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_tempering_is_prior_plus_beta_weight(make, as_tensor):
    target = make()
    z = target.sample_prior(7)
    for beta in BETAS:
        rung = TemperedTarget(target, torch.tensor(beta) if as_tensor else beta)
        expected = -target.log_prior(z) - beta * target.log_weight(z)
        torch.testing.assert_close(rung.potential(z), expected)
        value, grad = rung.potential_and_grad(z)
        torch.testing.assert_close(value, expected)
        leaf = z.clone().requires_grad_(True)
        (numeric,) = torch.autograd.grad(_differences(rung, leaf).sum(), leaf)
        torch.testing.assert_close(grad, numeric, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rung.log_weight(z), beta * target.log_weight(z))
        assert torch.equal(rung.log_prior(z), target.log_prior(z))
        torch.testing.assert_close(
            TemperedTarget(rung, 0.5).potential(z), TemperedTarget(target, beta / 2).potential(z)
        )
        assert rung.shapes == target.shapes and rung.dim == target.dim


def test_tempering_is_exact_at_both_ends():
    target = affine_target()
    z = target.sample_prior(7)
    for one in (1.0, 1, torch.tensor(1.0)):
        value, grad = TemperedTarget(target, one).potential_and_grad(z)
        assert torch.equal(value, target.potential_and_grad(z)[0])
        assert torch.equal(grad, target.potential_and_grad(z)[1])
    for zero in (0.0, 0, torch.tensor(0.0)):
        assert torch.equal(TemperedTarget(target, zero).potential(z), -target.log_prior(z))
        assert torch.equal(TemperedTarget(target, zero).potential_and_grad(z)[0], -target.log_prior(z))


def test_power_zero_runs_no_network():
    toy = affine_toy()
    ratio = CountingRatio()
    target = make_target(LatentPosterior(toy.generator, ratio, toy.prior))
    z = target.sample_prior(3)
    twin = target._model.log_ratio
    before = twin.calls
    TemperedTarget(target, 0.0).potential(z)
    TemperedTarget(target, 0.0).potential_and_grad(z)
    assert twin.calls == before
    TemperedTarget(target, 0.5).potential(z)
    assert twin.calls > before


def test_a_power_for_every_chain():
    target = affine_target()
    z = target.sample_prior(3)
    rung = TemperedTarget(target, torch.tensor(BETAS))
    value, grad = rung.potential_and_grad(z)
    for i, beta in enumerate(BETAS):
        one_value, one_grad = TemperedTarget(target, beta).potential_and_grad(z[i : i + 1])
        torch.testing.assert_close(value[i : i + 1], one_value, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(grad[i : i + 1], one_grad, rtol=1e-6, atol=1e-6)


def test_a_weight_of_zero_stays_finite_at_power_zero():
    toy = affine_toy()
    gan = LatentPosterior(toy.generator, lambda x: torch.where(x[:, 0] > 0, 0.0, -torch.inf).to(x), toy.prior)
    target = make_target(gan)
    z = target.sample_prior(50)
    assert torch.isinf(target.potential(z)).any()
    for zero in (0.0, torch.tensor(0.0)):
        assert torch.equal(TemperedTarget(target, zero).potential(z), -target.log_prior(z))


def test_tempering_needs_a_split_and_a_power():
    bare = make_target(None, lambda p: p["z"].square().sum(-1), prototype={"z": torch.zeros(2)})
    with pytest.raises(ValueError, match="does not say which part of it is the prior"):
        TemperedTarget(bare, 0.5)
    for beta in (-0.1, None, "x", float("nan"), [0.5]):
        with pytest.raises(ValueError, match="beta of at least 0"):
            TemperedTarget(affine_target(), beta)
        with pytest.raises(ValueError, match="beta of at least 0"):
            TemperedTarget(TemperedTarget(affine_target(), 0.5), beta)
    with pytest.raises(ValueError, match=r"beta of shape \(\) or \(chain,\)"):
        TemperedTarget(affine_target(), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="target of type WeightedTarget; got None"):
        TemperedTarget(None, 0.5)


def _differences(target: Target, leaf: Tensor) -> Tensor:
    """Return values whose gradient is the finite difference of a potential, with a step that suits float64."""
    step = 1e-5
    ahead, behind = (
        torch.stack([target.potential((leaf + s * step * e).detach()) for e in torch.eye(target.dim).to(leaf)])
        for s in (1, -1)
    )
    return leaf * ((ahead - behind) / (2 * step)).T
