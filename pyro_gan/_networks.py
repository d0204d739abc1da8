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
from pyro_gan.checks import tensor

__all__ = ["by_chunk", "check_eval", "chunk_rows", "critic_scores", "frozen_twin", "unchecked"]

# In training mode a row's output depends on the other rows of the batch, or on chance.
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_LAZY_BATCH_NORMS = (nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


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
        is_random = isinstance(module, _DROPOUTS) and module.p > 0
        if module.training and (is_random or isinstance(module, _BATCH_NORMS + _LAZY_BATCH_NORMS)):
            raise ValueError(
                f"Expected the {name} in evaluation mode; got its {type(module).__name__} at {path or 'the top'!r} "
                f"in training mode, where a row's value depends on the other rows or on chance. "
                f"Call {name.replace(' ', '_')}.eval() first."
            )


def frozen_twin(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a copy that shares the network's weights, is in evaluation mode and requires no gradient.

    The two share storage: training the original also changes the twin, until one of them is moved to another device
    or dtype. (A TorchScript module is copied with its weights.) No gradient reaches the original through the twin, and
    `train()` on one does not switch the other, but a state loaded into the twin is loaded into both.

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
        for parameter in module.parameters(recurse=False):
            if is_lazy(parameter):
                raise ValueError(
                    f"Expected a network that knows its input size; got a {type(module).__name__} that has not seen an "
                    "input yet. Run the network once first."
                )
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in module.buffers(recurse=False):
            memo[id(buffer)] = buffer.detach()
        # Reparametrised layers (spectral or weight norm) keep a computed, non-leaf weight as a plain attribute.
        for value in vars(module).values():
            if isinstance(value, Tensor):
                memo[id(value)] = value.detach()
    try:
        twin = copy.deepcopy(network, memo)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"Expected a network that can be copied; got a {type(network).__name__} that cannot: {error}. Remove the "
            "attributes that cannot be copied (locks, caches of computed tensors), or pass a plain function, "
            "lambda z: network(z)."
        ) from error
    twin.train(False)
    return twin


# Measured forward and backward on CPUs, for perceptrons and convolutions: the time of a row is the same from 125 to 500
# rows, half as long again at 2000, and three times as long in one batch of 200 000, whose activations leave the cache.
CPU_ROWS = 500
# Accelerators are faster with many rows. This number is not measured; it bounds the memory of a pass.
ACCELERATOR_ROWS = 10_000


def chunk_rows(chunk_size: int | None, like: Tensor) -> int:
    """Return the number of rows in one pass: the user's choice, or what suits the device."""
    return chunk_size or (CPU_ROWS if like.device.type == "cpu" else ACCELERATOR_ROWS)


def by_chunk(function: Callable[[Tensor], Tensor], rows: Tensor, chunk_size: int | None) -> Tensor:
    """Apply a row-by-row function in passes of that size, and join the results."""
    parts = [function(part) for part in rows.split(chunk_rows(chunk_size, rows))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def critic_scores(critic: Critic, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
    """Return a critic's raw scores, one number for each row.

    Args:
        critic: Any callable on data.
        x: Data, `(batch, *event)`.
        **context: Passed on to the critic.

    Returns:
        `(batch,)`.

    Raises:
        ValueError: if data or output are no tensors, or the output is neither `(batch,)` nor `(batch, 1, ..., 1)`.
    """
    if tensor("data", x).dim() < 1:
        raise ValueError("Expected data of shape (batch, *event); got a single number. Add a batch dimension.")
    output = critic(x, **context)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"Expected a tensor from the critic; got {type(output).__name__}. Let it return its score alone, such as "
            "lambda x: critic(x)[0]."
        )
    batch = len(x)
    if output.shape[:1] != (batch,) or output.numel() != batch:
        raise ValueError(
            f"Expected a critic output of shape ({batch},) or ({batch}, 1, ..., 1) for data of shape "
            f"{tuple(x.shape)}; got {tuple(output.shape)}. Give the critic one output for each row, such "
            "as nn.Linear(width, 1) at its end, and squeeze its last dimension only. Of a critic with a score for each "
            "patch take the mean, lambda x: critic(x).flatten(1).mean(1), and calibrate it."
        )
    return output.reshape(batch)


def unchecked(fn: Any) -> Any:
    """Return a copy of a distribution that does not check values, and neither do the distributions inside it."""
    twin = copy.copy(fn)
    inner = {name: unchecked(part) for name, part in vars(fn).items() if isinstance(part, Distribution)}
    # torch offers no public switch for a distribution that exists already.
    vars(twin).update(inner, _validate_args=False)
    return twin
