"""How many rows one pass through the networks takes, and passes over more rows than that."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["by_chunk", "chunk_rows"]

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
