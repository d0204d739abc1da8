"""Explicit likelihoods as log densities with all constants, and the discriminator's term in a Pyro model."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_gan import LogRatio
from pyro_gan.objectives import Bernoulli
from pyro_gan.vi import ExplicitLikelihood, GaussianGuide, SyntheticLikelihood


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_explicit_likelihoods_are_densities(reduction: Any) -> None:
    """A weighted reconstruction loss plus d log(w / 2) or (d / 2) log(w / 2 pi); the weight of a mean is d times."""
    x, generated = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    weight = 3.0 if reduction == "sum" else 15.0
    for family, distance, constant in (
        ("laplace", (x - generated).abs().sum(-1), 5 * torch.tensor(1.5).double().log()),
        ("normal", 0.5 * (x - generated).square().sum(-1), 2.5 * torch.tensor(3 / (2 * torch.pi)).double().log()),
    ):
        found = ExplicitLikelihood(family, weight, reduction=reduction).log_prob(generated, x)
        torch.testing.assert_close(found, -3 * distance + constant, atol=1e-6, rtol=0)
    exact = dist.Laplace(generated, 1 / 3).to_event(1).log_prob(x)
    found = ExplicitLikelihood("laplace", weight, reduction=reduction).log_prob(generated, x)
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)


def test_an_explicit_likelihood_in_feature_space() -> None:
    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    explicit = ExplicitLikelihood("normal", 2.0, reduction="mean", features=features, event_dim=3)
    x, generated = torch.randn(4, 1, 5, 5), torch.randn(3, 4, 1, 5, 5, requires_grad=True)
    found = explicit.log_prob(generated, x)
    scale = (18 / 2) ** 0.5
    rows = features(generated.reshape(12, 1, 5, 5)).reshape(3, 4, 18)
    exact = dist.Normal(rows, scale).to_event(1).log_prob(features(x).flatten(1))
    torch.testing.assert_close(found, exact)
    assert not explicit.is_density
    found.sum().backward()
    assert generated.grad is not None and bool(generated.grad.any())
    assert all(p.grad is None for p in features.parameters())


@pytest.mark.parametrize("form", ["logit", "nonsaturating", "saturating"])
def test_forms(form: Any) -> None:
    critic = nn.Linear(3, 1)
    likelihood = SyntheticLikelihood(LogRatio(critic, Bernoulli()), form=form)
    x = torch.randn(2, 5, 3, requires_grad=True)
    f, d = critic(x).squeeze(-1), critic(x).squeeze(-1).sigmoid()
    exact = {"logit": f, "nonsaturating": d.log(), "saturating": -(1 - d).log()}[form]
    found = likelihood.log_weight(x)
    torch.testing.assert_close(found, exact)
    found.sum().backward()
    assert x.grad is not None and critic.weight.grad is None
    assert likelihood.is_bound is False


def test_in_a_model_it_is_scaled_as_every_site(seed: int) -> None:
    """Under subsampling the factor and the observed site both count N / B times."""
    critic, generator = nn.Linear(3, 1), nn.Linear(2, 3)
    likelihood = SyntheticLikelihood(critic, explicit_likelihood=ExplicitLikelihood("laplace", 1.0, reduction="sum"))
    data = torch.randn(40, 3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample_size=10) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            likelihood("x", generator(z), obs=x[index])

    trace = poutine.trace(model).get_trace(data)
    trace.compute_log_prob()
    assert trace.nodes["x_synthetic"]["scale"] == trace.nodes["x"]["scale"] == 4
    z = trace.nodes["z"]["value"]
    expected = 4 * critic(generator(z)).sum()
    torch.testing.assert_close(trace.nodes["x_synthetic"]["log_prob_sum"], expected)
    assert torch.equal(trace.nodes["x"]["fn"].base_dist.loc, generator(z))


def test_svi_leaves_the_discriminator_alone() -> None:
    """The model's networks move; the discriminator keeps its bits and has no gradient."""
    critic, generator = nn.Linear(3, 1), nn.Linear(2, 3)
    likelihood = SyntheticLikelihood(critic, explicit_likelihood=ExplicitLikelihood("laplace", 1.0, reduction="sum"))
    guide = GaussianGuide(nn.Linear(3, 4), dim=2)

    def model(x: Tensor) -> None:
        pyro.module("generator", generator)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            likelihood("x", generator(z), obs=x)

    before = [p.detach().clone() for p in (*critic.parameters(), *generator.parameters())]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(torch.randn(10, 3))
    after = [*critic.parameters(), *generator.parameters()]
    same = [torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert same == [True, True, False, False]
    assert all(p.grad is None for p in critic.parameters())


def test_alone_it_needs_no_data() -> None:
    likelihood = SyntheticLikelihood(nn.Linear(3, 1))
    trace = poutine.trace(lambda: likelihood("x", torch.zeros(3))).get_trace()
    assert trace.observation_nodes == ["x_synthetic"]


def test_doors() -> None:
    with pytest.raises(ValueError, match="obs=x with an explicit likelihood"):
        SyntheticLikelihood(nn.Linear(3, 1), explicit_likelihood=ExplicitLikelihood("laplace", 1.0, reduction="sum"))(
            "x", torch.zeros(3)
        )
    with pytest.raises(ValueError, match="no obs without an explicit likelihood"):
        SyntheticLikelihood(nn.Linear(3, 1))("x", torch.zeros(3), obs=torch.zeros(3))
    with pytest.raises(ValueError, match="form"):
        SyntheticLikelihood(nn.Linear(3, 1), form="hinge")
    with pytest.raises(ValueError, match="event_dim"):
        SyntheticLikelihood(
            nn.Linear(3, 1), explicit_likelihood=ExplicitLikelihood("laplace", 1.0, reduction="sum"), event_dim=3
        )
    with pytest.raises(ValueError, match="family"):
        ExplicitLikelihood("cauchy", 1.0, reduction="sum")
    with pytest.raises(ValueError, match="reduction"):
        ExplicitLikelihood("normal", 1.0, reduction="batchmean")
    with pytest.raises(ValueError, match="positive, finite weight"):
        ExplicitLikelihood("normal", 0.0, reduction="sum")
    with pytest.raises(ValueError, match="one output for each row"):
        SyntheticLikelihood(nn.Linear(3, 2)).log_weight(torch.zeros(4, 3))


def test_data_of_another_shape_do_not_broadcast() -> None:
    explicit = ExplicitLikelihood("normal", 1.0, reduction="sum")
    with pytest.raises(ValueError, match="event shape"):
        explicit.log_prob(torch.zeros(6, 3), torch.zeros(6, 1))
    likelihood = SyntheticLikelihood(nn.Linear(3, 1), explicit_likelihood=explicit)
    with pytest.raises(ValueError, match="event shape"):
        likelihood("x", torch.zeros(6, 3), obs=torch.zeros(6, 1))
