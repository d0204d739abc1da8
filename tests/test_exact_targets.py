"""The exact targets are consistent: draws, potential and moments agree."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pyro_gan import toys
from tests.exact_targets import TARGETS, never_moved_probability, uniform_latents
from tests.statistics import assert_close_in_se, assert_follows, assert_mean, assert_sd


@pytest.mark.parametrize("name", TARGETS)
def test_draws_have_the_moments(name: str) -> None:
    target = TARGETS[name]()
    z = target.sample(200_000)
    assert z.shape == (200_000, target.dim) and z.dtype == torch.float64
    assert_mean(z, target.mean)
    assert_sd(z, target.sd)
    if target.cdf is not None:
        assert_follows(z, target.cdf)


@pytest.mark.parametrize("name", TARGETS)
def test_potential_belongs_to_the_draws(name: str) -> None:
    # Stein: E[z_i d_j U] = (i == j) and E[d_j U] = 0 if and only if U is the potential of z.
    target = TARGETS[name]()
    z = target.sample(100_000).requires_grad_()
    potential = target.potential(z)
    assert potential.shape == (100_000,)
    (grad,) = torch.autograd.grad(potential.sum(), z)
    z = z.detach()
    assert_mean(grad, 0.0, "E[grad U]")
    assert_mean(z[:, :, None] * grad[:, None, :], torch.eye(target.dim), "E[z grad U]")


@pytest.mark.parametrize("name", TARGETS)
def test_weight_carries_prior_to_target(name: str) -> None:
    target = TARGETS[name]()
    z = target.prior.sample((200_000,))
    weight = target.log_weight(z).softmax(0)
    mean = weight @ z
    se = (weight.square() @ (z - mean).square()).sqrt()
    assert_close_in_se(mean, target.mean, se, name)


def test_uniform_latents_match_the_truncated_normal() -> None:
    toy = uniform_latents()
    exact = stats.truncnorm(-3, 1, loc=0.5, scale=0.5)
    assert toy.law.mean == pytest.approx(exact.mean(), abs=1e-9)
    assert toy.law.sd == pytest.approx(exact.std(), abs=1e-9)
    # The ratio is normalised: E_G[r] = 1.
    assert toy.law.log_normaliser == pytest.approx(0.0, abs=1e-9)
    assert_follows(toy.law.sample(20_000), exact.cdf)
    z = toy.prior.sample((5,))
    assert toy.log_ratio(toy.generator(z)).shape == (5,)


@pytest.mark.parametrize("start", ["data", "prior"])
def test_never_moved_probability_matches_a_simulation(start: str) -> None:
    auc, num_steps, num_chains = 0.95, 40, 20_000
    toy = toys.gaussian_shift(auc)
    first = toy.sample_data(num_chains) if start == "data" else toy.prior.sample((num_chains,))
    score = toy.log_ratio(first)
    moved = torch.zeros(num_chains, dtype=torch.bool)
    for _ in range(num_steps):
        proposed = toy.log_ratio(toy.prior.sample((num_chains,)))
        # Until its first accept a chain is at its starting point.
        moved |= torch.rand(num_chains).log() < proposed - score
    exact = never_moved_probability(auc, num_steps, start=start)
    assert_close_in_se(1 - moved.double().mean(), exact, (exact * (1 - exact) / num_chains) ** 0.5, "never moved")
