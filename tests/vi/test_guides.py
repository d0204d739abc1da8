"""Guides as Pyro programs: shapes, plates of more data than a batch, training with Pyro's SVI."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_gan.vi import Encoder, GaussianGuide, ImplicitGuide, Joined, RatioELBO
from pyro_gan.vi._detached_call import call_detached
from tests.statistics import assert_close_in_se

NOISE = dist.Normal(0.0, 1.0).expand([4]).to_event(1)


def guides(**options: Any) -> list[ImplicitGuide | GaussianGuide]:
    return [
        ImplicitGuide(Joined(nn.Linear(3 + 4, 2)), NOISE, event_shape=(2,), **options),
        GaussianGuide(nn.Linear(3, 4), dim=2, **options),
    ]


def test_a_guide_is_a_program_of_one_site_in_one_plate() -> None:
    for guide in guides(site="latent", plate="rows", num_data=60):
        assert isinstance(guide, Encoder)
        trace = poutine.trace(guide).get_trace(torch.zeros(6, 3))
        site = trace.nodes["latent"]
        assert site["value"].shape == (6, 2) and site["fn"].batch_shape == (6,)
        assert site["scale"] == 10
        assert [frame.name for frame in site["cond_indep_stack"]] == ["rows"]


def test_conditional_keeps_left_dimensions() -> None:
    for guide in guides():
        assert guide.conditional(torch.zeros(5, 6, 3)).batch_shape == (5, 6)
        assert guide.conditional(torch.zeros(3))().shape == (2,)


def test_images() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    guide = GaussianGuide(network, dim=2, x_event_dim=3)
    assert guide(torch.zeros(5, 1, 4, 4)).shape == (5, 2)


@pytest.mark.parametrize("which", [0, 1])
def test_a_batch_of_more_data_is_scaled_in_model_and_guide(which: int) -> None:
    """The loss of a batch estimates the loss of all data."""
    data = torch.randn(400, 3)
    guide = guides(num_data=400)[which]

    def model(x: Tensor) -> None:
        with pyro.plate("data", 400, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([*z.shape[:-1], 3]).to_event(1), obs=x)

    elbo = RatioELBO({"z": Joined(nn.Linear(5, 1))}) if which == 0 else Trace_ELBO()
    with torch.no_grad():
        whole = torch.tensor([elbo.loss(model, guide, data) for _ in range(20)]).mean()
        parts = torch.tensor([elbo.loss(model, guide, part) for part in data.split(10)])
    assert_close_in_se(parts.mean(), whole, parts.std() / len(parts) ** 0.5 + 0.01 * whole.abs(), "loss")


def test_the_gaussian_guide_trains_with_pyros_svi() -> None:
    guide, x = guides()[1], torch.randn(50, 3)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(z.mean(-1, keepdim=True), 1.0).expand([len(x), 3]).to_event(1), obs=x)

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(150)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_a_detached_call_gives_gradients_to_inputs_and_not_to_parameters() -> None:
    """Also with shared weights, reparametrised layers and batch statistics, which stay those of the module."""
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, nn.BatchNorm1d(3), shared, nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1)))
    x = torch.randn(6, 3, requires_grad=True)
    call_detached(network, x).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in network.parameters())
    assert all(p.requires_grad for p in network.parameters())
    network.eval()
    torch.testing.assert_close(call_detached(network, x), network(x))
    assert call_detached(lambda a, b: a + b, 1, 2) == 3


def test_a_detached_call_with_one_weight_in_two_layers() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    x = torch.randn(6, 3, requires_grad=True)
    call_detached(network, x).sum().backward()
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert network[1].weight is network[0].weight
    torch.testing.assert_close(call_detached(network, x), network(x))
