"""How each ratio of latents is constructed for a test: one latent and one number of data, in double precision."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pyro_gan import vi
from pyro_gan.vi import GaussianGuide, Joined, LatentRatio
from tests.registry import concrete_members
from tests.vi import toy

#: Members that need more than a network.
SPECIAL: dict[str, Callable[[], LatentRatio]] = {
    "AdaptiveContrast": lambda: vi.AdaptiveContrast(
        network(uses_data=True), moments=GaussianGuide(toy.Gaussian(), dim=1).moments, prior=toy.prior()
    )
}

RATIOS: dict[str, type[LatentRatio]] = concrete_members(vi, LatentRatio)


def network(*, uses_data: bool) -> nn.Module:
    """A network of latents, or of data and latents."""
    return Joined(nn.Linear(2, 1).double()) if uses_data else nn.Linear(1, 1).double()


def ratio(name: str) -> LatentRatio:
    """A member by its name; by default the class gets one network."""
    if name in SPECIAL:
        return SPECIAL[name]()
    cls = RATIOS[name]
    return cls(network(uses_data=cls.uses_data))
