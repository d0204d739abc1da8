"""From encoders to samplers: starts at real data, exact mixtures, and proposals that say that they are not exact."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import MALA, IndependenceMH
from pyro_gan.vi import (
    AggregatedRatio,
    ApproximateProposal,
    ConditionalRatio,
    GaussianGuide,
    ImplicitGuide,
    encoder_proposal,
    encoder_starts,
)
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
    """Chains then go to the target as from anywhere."""
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
    gan = LatentPosterior(
        nn.Identity(), lambda x: 0 * x.squeeze(-1), dist.Uniform(0.0, 1.0).expand([1]).to_event(1)
    )
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


def test_an_implicit_encoder_is_no_exact_proposal() -> None:
    with pytest.raises(ValueError, match="ApproximateProposal"):
        encoder_proposal(implicit(), toy.data(5))


def test_an_approximate_proposal_says_so() -> None:
    proposal = ApproximateProposal(
        implicit(), ratio=AggregatedRatio(nn.Linear(1, 1)), x=toy.data(5), prior=toy.prior()
    )
    assert proposal.exact is False and proposal.is_bound is None
    assert proposal.has_rsample is False


@pytest.mark.parametrize("conditional", [False, True])
def test_with_the_exact_ratio_it_is_right(conditional: bool) -> None:
    """The mixture of five encoded data by T(x, z), or the law of all encodings by T(z)."""
    if conditional:
        x = toy.data(5)
        ratio = ConditionalRatio(lambda x, z: toy.exact_t(x, z))
    else:
        x = toy.data(100_000)
        ratio = AggregatedRatio(lambda z: -toy.f_code(z))
    proposal = ApproximateProposal(implicit(), ratio=ratio, x=x, prior=toy.prior())
    z = proposal.sample((3000,))
    if conditional:
        exact = encoder_proposal(explicit(), x)
    else:
        exact = dist.Normal(torch.tensor([toy.Q_MEAN]).double(), toy.Q_SD).to_event(1)
    torch.testing.assert_close(proposal.log_prob(z[:, None]), exact.log_prob(z)[:, None], atol=1e-9, rtol=0)
    assert_same_distribution(z, exact.sample((3000,)))
    mcmc = VectorizedMCMC(
        IndependenceMH(posterior(), proposal=proposal), num_samples=1, warmup_steps=60, num_chains=1000,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run()
    follows_target(mcmc.get_samples()["z"])


def test_a_wrong_ratio_goes_straight_into_the_result() -> None:
    """Negative control: T off by z tilts the target by exp(-z), whose mean is then 0 and not .5."""
    ratio = AggregatedRatio(lambda z: -toy.f_code(z) + z.squeeze(-1))
    proposal = ApproximateProposal(implicit(), ratio=ratio, x=toy.data(100_000), prior=toy.prior())
    mcmc = VectorizedMCMC(
        IndependenceMH(posterior(), proposal=proposal), num_samples=1, warmup_steps=60, num_chains=2000,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run()
    z = mcmc.get_samples()["z"]
    with pytest.raises(AssertionError):
        follows_target(z)
    exact = dist.Normal(0.0, 0.5**0.5)
    assert_follows(z, lambda value: exact.cdf(torch.as_tensor(value)).numpy())


def test_doors() -> None:
    ratio = AggregatedRatio(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="batch_shape"):
        ApproximateProposal(implicit(), ratio=ratio, x=toy.data(5), prior=dist.Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match="at least one"):
        ApproximateProposal(implicit(), ratio=ratio, x=toy.data(0), prior=toy.prior())


def test_encodings_outside_the_support_are_refused() -> None:
    """Pyro's transforms would clamp them to its edge, where no chain moves."""
    gan = LatentPosterior(nn.Identity(), lambda x: x.sum(-1), dist.Uniform(-1.0, 1.0).expand([1]).to_event(1))
    with pytest.raises(ValueError, match="support"):
        encoder_starts(explicit(), torch.full((9, 1), 50.0), model=gan)
