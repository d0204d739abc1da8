"""A network called so that no gradient reaches its parameters, while gradients pass through it to its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["call_frozen"]


def call_frozen(network: Callable[..., Any], *inputs: Any) -> Any:
    """Call a module with its parameters detached; any other callable is called as it is.

    Unlike a frozen twin this is the module itself, in whatever mode and on whatever device it is now, and nothing of
    it is switched: a judge that another player's loss reads is neither moved nor left with stale gradients.

    Args:
        network: A module, or any callable.
        *inputs: Passed on.

    Returns:
        What the network returns.
    """
    if not isinstance(network, nn.Module):
        return network(*inputs)
    # Every module once, by one of its paths: torch would leave a module met by two paths with detached parameters.
    detached = {
        f"{path}.{name}" if path else name: parameter.detach()
        for path, module in network.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }
    return torch.func.functional_call(network, detached, inputs, tie_weights=False)
