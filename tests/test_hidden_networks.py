"""Networks that a probe finds where they hide, noise that changes no value, and effective sizes of equal weights."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio
from pyro_gan.importance import effective_size
from pyro_gan.objectives import Bernoulli

NORMAL = dist.Normal(torch.zeros(2), 1.0).to_event(1)


class Holder:
    """An object that holds a network and is a function by its method."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def score(self, x: Tensor) -> Tensor:
        return self.network(x)[:, 0]

    __call__ = score


HIDDEN: dict[str, Callable[[nn.Module], Callable[..., Tensor]]] = {
    "a default": lambda network: lambda x, inner=network: inner(x)[:, 0],
    "a method's object": lambda network: Holder(network).score,
    "an attribute": Holder,
    "a function in a module": lambda network: LogRatio(lambda x: network(x)[:, 0], Bernoulli()),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_statistics_that_moved_are_found_and_put_back(place: str) -> None:
    # One row is always like the others of its batch, so that only the moved statistics tell.
    network = nn.Sequential(nn.BatchNorm1d(2, momentum=0.5))
    before = network[0].running_mean.clone()
    with pytest.raises(ValueError, match=r"statistics move with every call|other rows"):
        LatentPosterior(nn.Identity(), HIDDEN[place](network), NORMAL)
    assert torch.equal(network[0].running_mean, before)


def test_noise_that_changes_no_value_yet_is_noise() -> None:
    with pytest.raises(ValueError, match="draws noise"):
        LatentPosterior(nn.Identity(), lambda x: x.sum(-1) + 0 * torch.randn(len(x)), NORMAL)


def test_equal_weights_are_never_more_than_there_are() -> None:
    for number in range(1, 300):
        assert float(effective_size(torch.full((number,), 0.3))) <= number
