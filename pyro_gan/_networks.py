"""A network as a fixed, row-by-row function: its frozen twin, its chunks, its scores, distributions without checks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.parameter import is_lazy

from pyro_gan._typing import Critic

__all__ = ["by_chunk", "check_eval", "chunk_rows", "critic_scores", "frozen_twin", "unchecked"]

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


# Measured forward and backward on CPUs, for perceptrons and convolutions: the time of a row is flat from 125 to 500
# rows, half as long again at 2000, and three times as long in one batch of 200 000, whose activations leave the cache.
CPU_ROWS = 500
# Accelerators want width. Not measured; bounds the memory of a pass.
ACCELERATOR_ROWS = 10_000


def chunk_rows(chunk_size: int | None, like: Tensor) -> int:
    """Return the rows of one pass: what the user chose, or what suits the device."""
    return chunk_size or (CPU_ROWS if like.device.type == "cpu" else ACCELERATOR_ROWS)


def by_chunk(function: Callable[[Tensor], Tensor], rows: Tensor, chunk_size: int | None) -> Tensor:
    """Apply a row-by-row function in passes of that size, and join what it returns."""
    parts = [function(part) for part in rows.split(chunk_rows(chunk_size, rows))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def critic_scores(
    critic: Critic, x: Float[Tensor, "batch *event"], **context: Tensor
) -> Float[Tensor, " batch"]:
    """Return a critic's raw scores as one number a row.

    Args:
        critic: Any callable on data.
        x: Data, `(batch, *event)`.
        **context: Passed on to the critic.

    Returns:
        `(batch,)`.

    Raises:
        ValueError: if the output is no tensor, or its shape is neither `(batch,)` nor `(batch, 1, ..., 1)`.
    """
    output = critic(x, **context)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"Expected a tensor from the critic; got {type(output).__name__}. Return its score alone."
        )
    batch = len(x)
    if output.shape[:1] != (batch,) or output.numel() != batch:
        raise ValueError(
            f"Expected a critic output of shape ({batch},) or ({batch}, 1, ..., 1) for data of shape "
            f"{tuple(x.shape)}; got {tuple(output.shape)}. Give the critic one output a row, such as "
            "nn.Linear(width, 1) at its end, and squeeze its last dimension only."
        )
    return output.reshape(batch)


def unchecked(fn: Any) -> Any:
    """Return a distribution that does not check the values it is asked about, nor do those inside it."""
    inner = {name: unchecked(part) for name, part in vars(fn).items() if isinstance(part, Distribution)}
    if not fn._validate_args and all(part is vars(fn)[name] for name, part in inner.items()):
        return fn
    twin = copy.copy(fn)
    vars(twin).update(inner, _validate_args=False)
    return twin
