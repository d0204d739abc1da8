"""Who plays in an adversarial objective: a network and what it minimises, before optimisers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor, nn

__all__ = ["AdversarialLoss", "Role"]


class Role(NamedTuple):
    """A network in an adversarial objective.

    Attributes:
        module: The network.
        loss: Takes the arguments of a step and gives a scalar; it may read every role's network.
    """

    module: nn.Module
    loss: Callable[..., Tensor]


class AdversarialLoss(Protocol):
    """An objective of several networks, each with a loss of its own."""

    def roles(self) -> Mapping[str, Role]:
        """Return who may be trained, by name."""
