"""Two sets dealt into disjoint blocks, and distances between blocks corrected for how few rows a block has."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.evaluate._rows import as_rows

__all__ = ["Mean", "between_blocks", "deal", "mean_over_repeats", "without_floor"]

_MIN_ROWS = 2
# One to decide whose floor is lower, and two for an error.
_MIN_REPEATS = 3


class Mean(NamedTuple):
    """A mean over independent repeats."""

    #: The mean.
    value: float
    #: Its standard error.
    standard_error: float


def deal(
    outputs: Tensor, real: Tensor, *, num_repeats: int, num_rows: int | None, most_rows: int | None, seed: int
) -> tuple[Float[Tensor, "repeat 2 row feature"], Float[Tensor, "repeat 2 row feature"]]:
    """Deal each set at random into two blocks a repeat, no row into two of them, float64 and on the CPU.

    Args:
        outputs: `(draw_a, *event)`.
        real: `(draw_b, *event)`.
        num_repeats: 3 or more.
        num_rows: Rows of a block; if None as many as there are, `most_rows` at most.
        most_rows: What None is limited to.
        seed: Of the deal; no global generator is moved.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few rows.
    """
    if outputs.dim() < 2 or outputs.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"Expected outputs and real of shapes (draw, *event) with one event; got {tuple(outputs.shape)} and "
            f"{tuple(real.shape)}."
        )
    if num_repeats < _MIN_REPEATS:
        raise ValueError(
            f"Expected {_MIN_REPEATS} repeats or more, an error is taken between them; got {num_repeats}."
        )
    fewest = min(len(outputs), len(real))
    size = min(fewest // (2 * num_repeats), most_rows or fewest) if num_rows is None else num_rows
    if size < _MIN_ROWS or 2 * num_repeats * size > fewest:
        raise ValueError(
            f"Expected 2 * {num_repeats} repeats * {max(size, _MIN_ROWS)} rows = "
            f"{2 * num_repeats * max(size, _MIN_ROWS)} rows or more in each set, for no row may be used twice; got "
            f"{len(outputs)} outputs and {len(real)} real. Pass more rows, or ask for fewer repeats or rows a block."
        )
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    for samples, name in ((outputs, "outputs"), (real, "real")):
        rows = as_rows(samples, name).to("cpu", torch.float64)
        order = torch.randperm(len(rows), generator=generator)[: 2 * num_repeats * size]
        blocks.append(rows[order].unflatten(0, (num_repeats, 2, size)))
    return blocks[0], blocks[1]


def between_blocks(p: Tensor, q: Tensor) -> list[tuple[Tensor, Tensor]]:
    """List the pairs of blocks to measure in a repeat: twice across the sets, within the first, within the second."""
    return [(p[0], q[0]), (p[1], q[1]), (p[0], p[1]), (q[0], q[1])]


def mean_over_repeats(values: Float[Tensor, " repeat"]) -> Mean:
    """Return the mean of independent repeats and its standard error."""
    return Mean(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def without_floor(
    across: Float[Tensor, " repeat"], within: Float[Tensor, "repeat 2"]
) -> tuple[Float[Tensor, " judged"], float]:
    """Subtract the distance of two blocks of one law, the smaller of both sets', and return that too.

    Which set's is smaller is decided on the first quarter of the repeats, and the others judge. The smaller of two
    noisy figures lies below both of their means, and to subtract it would push the difference above what it must stay
    below. (To decide for each repeat on all of the others leaves the mean right, but an error of a third too small.)
    """
    num_deciding = max(1, len(within) // 4)
    chosen = within[num_deciding:, int(within[:num_deciding].mean(0).argmin())]
    return across[num_deciding:] - chosen, float(chosen.mean())
