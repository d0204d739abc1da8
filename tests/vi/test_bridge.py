"""From encoders to samplers: starts at real data, exact mixtures, and refused proposals without a density."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import MALA, IndependenceMH
from pyro_gan.vi import GaussianGuide, ImplicitGuide, encoder_proposal, encoder_starts
from tests.statistics import assert_follows, assert_same_distribution
from tests.vi import toy


def posterior() -> LatentPosterior:
    """Prior N(0, 1) and a log ratio that makes the target N(.5, .5)."""
    return LatentPosterior(nn.Identity(), lambda x: (-0.5 * (x - 1.0).square()).squeeze(-1), toy.prior())


def follows_target(z: torch.Tensor) -> None:
    exact = dist.Normal(0.5, 0.5**0.5)
    assert_follows(z, lambda value: exact.cdf(torch.as_tensor(value)).numpy())


def implicit() -> ImplicitGuide:
    return ImplicitGuide(toy.Noisy(), toy.prior(), event_shape=(1,))


def explicit() -> GaussianGuide:
    return GaussianGuide(toy.Gaussian(), dim=1)


@pytest.mark.parametrize("guide", [implicit, explicit])
def test_an_encoder_starts_chains_at_real_data(guide) -> None:
    """From there chains reach the target, as from any start."""
    starts = encoder_starts(guide(), toy.data(2000), model=posterior())
    assert starts["z"].shape == (2000, 1) and not starts["z"].requires_grad
    x = torch.full((2000, 1), 2.0).double()
    at_two = encoder_starts(guide(), x, model=posterior())["z"]
    exact = dist.Normal(toy.A * 2 + toy.B, toy.S)
    assert_follows(at_two, lambda value: exact.cdf(torch.as_tensor(value)).numpy())
    mcmc = VectorizedMCMC(
        MALA(posterior()), num_samples=1, warmup_steps=100, num_chains=2000, initial_params=starts,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run()
    follows_target(mcmc.get_samples()["z"])


def test_starts_are_unconstrained() -> None:
    gan = LatentPosterior(nn.Identity(), lambda x: 0 * x.squeeze(-1), dist.Uniform(0.0, 1.0).expand([1]).to_event(1))
    guide = ImplicitGuide(lambda x, e: torch.sigmoid(x + e), dist.Normal(0.0, 1.0).expand([1]).to_event(1),
                          event_shape=(1,))  # fmt: skip
    starts = encoder_starts(guide, torch.zeros(500, 1), model=gan)["z"]
    assert_same_distribution(starts, torch.randn(500, 1))  # the logit of the sigmoid


def test_an_explicit_encoders_mixture_is_exact() -> None:
    x = toy.data(30)
    proposal = encoder_proposal(explicit(), x)
    z = proposal.sample((4000,))
    components = torch.stack([explicit().conditional(row[None]).log_prob(z) for row in x])
    expected = components.logsumexp(0) - torch.tensor(30.0).log()
    torch.testing.assert_close(proposal.log_prob(z), expected.detach())
    mcmc = VectorizedMCMC(
        IndependenceMH(posterior(), proposal=proposal), num_samples=1, warmup_steps=60, num_chains=2000,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run()
    follows_target(mcmc.get_samples()["z"])


def test_an_implicit_encoder_cannot_propose() -> None:
    with pytest.raises(ValueError, match="an encoder with a density; got an implicit one.*encoder_starts"):
        encoder_proposal(implicit(), toy.data(5))


def test_encodings_outside_the_support_are_refused() -> None:
    """Pyro's transforms would clamp them to the edge of the support, where no chain moves."""
    gan = LatentPosterior(nn.Identity(), lambda x: x.sum(-1), dist.Uniform(-1.0, 1.0).expand([1]).to_event(1))
    with pytest.raises(ValueError, match="support"):
        encoder_starts(explicit(), torch.full((9, 1), 50.0), model=gan)
