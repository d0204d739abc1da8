"""Two sets dealt into disjoint blocks, and distances between blocks corrected for how few rows a block has."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import count, extra
from pyro_gan.evaluate._rows import seeded, two_sets
from pyro_gan.evaluate.metric import Estimate

__all__ = ["between_blocks", "deal", "mean_over_repeats", "without_floor"]

_MIN_ROWS = 2
# One repeat decides whose floor is lower, and two more give an error.
_MIN_REPEATS = 3


def deal(
    outputs: Tensor, real: Tensor, *, num_repeats: int, num_rows: int | None, most_rows: int | None, seed: int
) -> tuple[Float[Tensor, "repeat 2 row feature"], Float[Tensor, "repeat 2 row feature"]]:
    """Deal each set at random into two blocks a repeat, in float64 and on the CPU; no row falls into two blocks.

    Args:
        outputs: `(draw_a, *event)`.
        real: `(draw_b, *event)`.
        num_repeats: 3 or more.
        num_rows: Rows of a block; if None as many as there are, `most_rows` at most.
        most_rows: The largest block that None gives.
        seed: Of the deal; no global generator is moved.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few rows.
    """
    x, y = two_sets(outputs, real)
    count("num_repeats", num_repeats, minimum=_MIN_REPEATS, cure="The error is taken between them.")
    fewest = min(len(x), len(y))
    if num_rows is None:
        size = min(fewest // (2 * num_repeats), most_rows or fewest)
    else:
        size = count("num_rows", num_rows, minimum=_MIN_ROWS)
    needed = 2 * num_repeats * max(size, _MIN_ROWS)
    if needed > fewest:
        raise ValueError(
            f"Expected 2 * {num_repeats} repeats * {max(size, _MIN_ROWS)} rows = {needed} rows or more in each set, "
            f"because no row may be used twice; got {len(x)} outputs and {len(y)} real. Pass more rows, or ask for "
            "fewer repeats or rows a block."
        )
    generator = seeded(seed)
    blocks = []
    for rows in (x.to("cpu", torch.float64), y.to("cpu", torch.float64)):
        order = torch.randperm(len(rows), generator=generator)[: 2 * num_repeats * size]
        blocks.append(rows[order].unflatten(0, (num_repeats, 2, size)))
    return blocks[0], blocks[1]


def between_blocks(p: Tensor, q: Tensor) -> list[tuple[Tensor, Tensor]]:
    """List the pairs of blocks to measure in a repeat: twice across the sets, within the first, within the second."""
    return [(p[0], q[0]), (p[1], q[1]), (p[0], p[1]), (q[0], q[1])]


def mean_over_repeats(values: Float[Tensor, " repeat"]) -> Estimate[float]:
    """Return the mean of independent repeats and its standard error, widened for how badly few repeats tell a spread.

    Two errors cover the mean of normal repeats in 95.4 % of all cases, as if the spread were known: Student's quantile
    is in the error (1.2 times wider with eight repeats, 2.3 times with three).
    """
    with extra("evaluate"):
        from scipy.stats import norm, t
    wider = float(t.ppf(norm.cdf(2), len(values) - 1)) / 2
    return Estimate(float(values.mean()), wider * float(values.std()) / math.sqrt(len(values)))


def without_floor(
    across: Float[Tensor, " repeat"], within: Float[Tensor, "repeat 2"]
) -> tuple[Float[Tensor, " judged"], float]:
    """Subtract the distance of two blocks of one set, the smaller of both sets', and return that too.

    The first quarter of the repeats decides which set's is smaller, and the others judge. The smaller of two noisy
    figures lies below both of their means, and subtracting it would push the difference above what it must stay below.
    (Deciding for each repeat on all of the others leaves the mean right, but makes the error a third too small.)
    """
    num_deciding = max(1, len(within) // 4)
    chosen = within[num_deciding:, int(within[:num_deciding].mean(0).argmin())]
    return across[num_deciding:] - chosen, float(chosen.mean())
