"""What a sampler costs: how often it asks the log ratio for a value, and for a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["VALUE", "VALUE_AND_GRADIENT", "Counter", "counted"]

#: A forward pass of both networks for one latent, and one with the way back, which takes about twice as long.
VALUE, VALUE_AND_GRADIENT = 1, 3


class Counter:
    """Adds up what is asked of a network, as a forward hook."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, network: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Count one call."""
        self.total += len(inputs[0]) * (VALUE_AND_GRADIENT if inputs[0].requires_grad else VALUE)


@contextmanager
def counted(network: nn.Module) -> Iterator[Counter]:
    """Count what is asked of a network inside the block."""
    counter = Counter()
    handle = network.register_forward_hook(counter)
    try:
        yield counter
    finally:
        handle.remove()
