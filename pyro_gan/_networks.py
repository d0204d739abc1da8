"""A network as a fixed, row-by-row function: frozen twin, chunks, scores, many chains; distributions without checks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.parameter import is_lazy

from pyro_gan._typing import Critic
from pyro_gan.checks import tensor

__all__ = ["by_chunk", "by_row", "check_eval", "chunk_rows", "critic_scores", "frozen_twin", "under_vmap", "unchecked"]

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


#: Whether a model runs under `torch.func.vmap` now, once for all chains.
_UNDER_VMAP: ContextVar[bool] = ContextVar("under_vmap", default=False)


@contextmanager
def under_vmap(is_under: bool) -> Iterator[None]:
    """Tell `by_row` whether the code inside runs under `torch.func.vmap`."""
    token = _UNDER_VMAP.set(is_under)
    try:
        yield
    finally:
        _UNDER_VMAP.reset(token)


def by_row(function: Callable[..., Tensor], rows: Tensor, **context: Any) -> Tensor:
    """Call a row-by-row function; under `vmap`, make all chains' rows the rows of one call.

    Many layers have no batching rule (recurrent ones, fused attention), and nothing may branch on values under `vmap`.
    A row-by-row function needs neither: it has a batch dimension already.

    Args:
        function: `(row, *event)` and tensors `(row, ...)` by keyword to `(row, *value)`.
        rows: `(row, *event)`.
        **context: Tensors with one entry for each row; anything else is passed on.

    Returns:
        `(row, *value)`.
    """
    if not _UNDER_VMAP.get():
        return function(rows, **context)
    names = [name for name, value in context.items() if isinstance(value, Tensor)]
    others = {name: value for name, value in context.items() if name not in names}

    def run(rows: Tensor, *tensors: Tensor) -> Tensor:
        return function(rows, **dict(zip(names, tensors, strict=True)), **others)

    folded: Tensor = _Folded.apply(run, rows, *(context[name] for name in names))
    return folded


@final
class _Folded(torch.autograd.Function):
    """A row-by-row function whose batching rule is to have more rows."""

    @staticmethod
    def forward(run: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        # No argument depends on the chain, so no gradient can be asked for.
        return run(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: there is no backward pass here."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        by_chain = [
            value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
            for value, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        num_rows = by_chain[0].shape[1]
        # One value for all rows of a chain becomes one for each.
        folded = [
            (
                value if value.shape[1:2] == (num_rows,) else value[:, None].expand(size, num_rows, *value.shape[1:])
            ).flatten(0, 1)
            for value in by_chain
        ]
        # These are tensors without the chains' dimension, so autograd records the networks as it does outside.
        with under_vmap(False):
            parts = [
                run(*part) for part in zip(*(value.split(chunk_rows(None, value)) for value in folded), strict=True)
            ]
        return torch.cat(parts).unflatten(0, (size, -1)), 0


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
