"""The implicit distribution: shapes, separate noise for each element, gradients, and no density."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_gan.distributions import Implicit
from tests.statistics import assert_same_distribution

NOISE = dist.Normal(0.0, 1.0).expand([2]).to_event(1)


def make(context: torch.Tensor | None = None) -> Implicit:
    if context is None:
        return Implicit(lambda e: 3 + 2 * e, NOISE, event_shape=(2,))
    return Implicit(lambda x, e: x[:, :2] + e, NOISE, event_shape=(2,), context=context)


def test_shapes() -> None:
    x = torch.zeros(4, 5, 3)
    for made, batch in ((make(), ()), (make(x), (4, 5)), (make(x[0]).expand([7, 5]), (7, 5))):
        assert (made.batch_shape, made.event_shape) == (torch.Size(batch), torch.Size((2,)))
        assert made().shape == (*batch, 2)
        assert made.sample((6,)).shape == (6, *batch, 2)
        assert made.shape((6,)) == (6, *batch, 2)
    assert make(x).to_event(1).event_shape == (5, 2)
    assert make(x).mask(False)().shape == (4, 5, 2)


def test_each_element_has_its_own_noise() -> None:
    """This holds after `expand` too, where a value drawn outside the site would be repeated."""
    for made in (make().expand([50]), make(torch.zeros(5, 3)).expand([10, 5]), make(torch.zeros(5, 3))):
        drawn = made((3,))
        assert len(drawn.flatten().unique()) == drawn.numel()
    with pyro.plate("particles", 20, dim=-2), pyro.plate("data", 5, dim=-1):
        z = pyro.sample("z", make(torch.zeros(5, 3)))
    assert z.shape == (20, 5, 2) and len(z.flatten().unique()) == z.numel()


def test_each_element_sees_its_own_context() -> None:
    """An expanded batch keeps each row of context with its own noise."""
    context = torch.arange(5.0)[:, None] * 1000 + torch.tensor([0.0, 0.0, 7.0])
    drawn = make(context).expand([6, 5])((3,))
    assert (drawn - context[:, :2]).abs().max() < 10
    assert torch.equal(make(context).expand([6, 5]).expanded_context()[4], context)


def test_it_follows_its_distribution() -> None:
    exact = dist.Normal(3.0, 2.0).expand([2]).to_event(1)
    assert_same_distribution(make().sample((4000,)), exact.sample((4000,)))
    assert_same_distribution(make().expand([4000]).sample(), exact.sample((4000,)))


def test_gradients_reach_network_and_context() -> None:
    network, context = nn.Linear(5, 2), torch.zeros(4, 3, requires_grad=True)
    made = Implicit(lambda x, e: network(torch.cat([x, e], -1)), NOISE, event_shape=(2,), context=context)
    made.rsample((2,)).square().sum().backward()
    assert context.grad is not None and bool(context.grad.any()) and network.weight.grad is not None
    assert not made.sample().requires_grad


def test_it_follows_the_noise_in_dtype() -> None:
    noise = dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)
    assert Implicit(lambda e: e, noise, event_shape=(2,))().dtype == torch.float64


def test_it_has_no_density() -> None:
    """There is a flag, and an error that names the remedy, also through the wrappers that Pyro puts around it."""
    assert Implicit.has_density is False and make().has_rsample
    for made in (make(), make().expand([3]), make(torch.zeros(3, 3)).to_event(1)):
        with pytest.raises(NotImplementedError, match="RatioELBO"):
            made.log_prob(made())
    assert copy.deepcopy(make(torch.zeros(3, 3)))().shape == (3, 2)


def test_a_trace_holds_it() -> None:
    trace = poutine.trace(lambda: pyro.sample("z", make())).get_trace()
    assert isinstance(trace.nodes["z"]["fn"], Implicit)
    with pytest.raises(NotImplementedError, match="SyntheticLikelihood"):
        trace.log_prob_sum()


def test_doors() -> None:
    with pytest.raises(ValueError, match=r"noise with batch_shape \(\); got \(2,\)"):
        Implicit(lambda e: e, dist.Normal(0.0, 1.0).expand([2]), event_shape=(2,))
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        Implicit(lambda x, e: e, NOISE, event_shape=(2,), context=torch.zeros(4, 3), context_event_dim=3)
    with pytest.raises(ValueError, match=r"\(5, 2\).*got \(5, 3\)"):
        Implicit(lambda x, e: x, NOISE, event_shape=(2,), context=torch.zeros(5, 3))()
    with pytest.raises(RuntimeError):
        make(torch.zeros(5, 3)).expand([4])
