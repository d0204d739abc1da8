"""Networks as fixed functions: a twin that shares weights but cannot be trained, and what would make it unfit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["check_eval", "frozen_twin", "rng_fork"]

# In training mode these make a row's output depend on the other rows, or on a coin.
_COUPLING_OR_RANDOM: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
)


def check_eval(network: Any, name: str) -> None:
    """Raise if a network holds a BatchNorm or Dropout in training mode.

    Args:
        network: A module, or any callable (which passes).
        name: What to call the network in the error.

    Raises:
        ValueError: naming the layer, with the cure.
    """
    if not isinstance(network, nn.Module):
        return
    for path, module in network.named_modules():
        if module.training and isinstance(module, _COUPLING_OR_RANDOM):
            # InstanceNorm and a Dropout with p = 0 look the same in both modes.
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0:
                continue
            raise ValueError(
                f"Expected the {name} in evaluation mode; got its {type(module).__name__} at {path or 'the top'!r} "
                f"in training mode, where a row's value depends on the other rows or on chance. "
                f"Call {name.replace(' ', '_')}.eval() first."
            )


def frozen_twin(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a copy that shares the network's weights, is in evaluation mode and requires no gradient.

    Training the original goes on to move the twin, for they share storage, until one of them is moved to another
    device or dtype; TorchScript modules are copied. No gradient reaches the original through the twin and `train()`
    of one does not switch the other, but a state loaded into the twin is loaded into both.

    Args:
        network: A module; any other callable is returned as it is.

    Returns:
        The twin.

    Raises:
        ValueError: if the module cannot be copied, or has lazy parameters.
    """
    if not isinstance(network, nn.Module):
        return network
    memo: dict[int, Any] = {}
    for module in network.modules():
        for parameter in module._parameters.values():
            if parameter is not None and is_lazy(parameter):
                raise ValueError(
                    f"The {type(module).__name__} has not seen its input size yet: run the network once first."
                )
            if parameter is not None:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in module._buffers.values():
            if buffer is not None:
                memo[id(buffer)] = buffer.detach()
        # Reparametrised layers (spectral or weight norm) keep a computed, non-leaf weight as a plain attribute.
        for value in vars(module).values():
            if isinstance(value, Tensor):
                memo[id(value)] = value.detach()
    try:
        twin = copy.deepcopy(network, memo)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"Cannot hold a copy of this {type(network).__name__}: {error}. Take out what cannot be copied (locks, "
            "caches of computed tensors), or pass a plain function, lambda z: network(z)."
        ) from error
    twin.train(False)
    return twin


def rng_fork() -> Any:
    """Return a context in which draws leave torch's global generators as they were."""
    # Asking a GPU that nobody has used yet would open it, and a process that did so cannot fork any more.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices=devices)
