"""A call of a network in which gradients reach its inputs and never its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["call_detached"]


def call_detached(network: Callable[..., Any], *inputs: Any) -> Any:
    """Call a module with its parameters detached; any other callable is called as it is.

    The module itself is called, in its present mode and on its present device, and nothing in it changes. So one
    player's loss can read another player's network without moving it and without leaving gradients on it.

    Args:
        network: A module, or any callable.
        *inputs: Passed on.

    Returns:
        What the network returns.
    """
    if not isinstance(network, nn.Module):
        return network(*inputs)
    # Each module once, by one of its paths: torch would leave a module met by two paths with detached parameters.
    detached = {
        f"{path}.{name}" if path else name: parameter.detach()
        for path, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
    }
    return torch.func.functional_call(network, detached, inputs, tie_weights=False)
