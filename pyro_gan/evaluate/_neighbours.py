"""Witnesses of the judges that look at neighbours: precision, density, coverage and recall."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_gan.evaluate._contrast import Witness, real_variance
from pyro_gan.evaluate._sides import Sides

__all__ = ["neighbour_witnesses"]

_CHUNK = 1000


def neighbour_witnesses(x: Tensor, real: Tensor, sides: Sides, *, num_neighbours: int) -> dict[str, Witness]:
    """Return four witnesses.

    The ball of a real row reaches to its k-th neighbour among the real rows. Precision is the share of outputs in some
    ball, density the mean number of balls around an output, divided by k, and coverage the share of balls that hold an
    output, among half of the outputs. Recall is the share of real rows in some output's ball. That ball reaches to the
    output's k-th neighbour among the other half of the outputs, both sides together: a side that is spread out makes
    no larger balls for itself.
    """
    num, num_real = len(x), len(real)
    radius = _nearest(real, real, num_neighbours + 1)
    reach = torch.zeros(2, num, dtype=x.dtype)
    block = torch.from_numpy(sides.block)
    for fold in (0, 1):
        own = torch.from_numpy(sides.fold == fold)
        # Rows that judge have no part in their own reach, and the rows that h comes from none in that of the judges.
        reach[0, own] = _nearest(x[own], x[~own], num_neighbours)
        reach[1, own] = _nearest(x[own], x[own], num_neighbours, block[own], block[own])
    # Equal distances stay equal, whatever the last digits are.
    norms = (x * x).sum(1) - 1e-9 * (real * real).sum(1).mean()
    inside, judging, learnt = torch.empty(3, num, num_real, dtype=torch.bool)
    for start in range(0, num, _CHUNK):
        part = slice(start, start + _CHUNK)
        squares, norm = _partial(x[part], real), norms[part, None]
        inside[part] = squares <= radius - norm
        judging[part] = squares <= reach[0, part, None] - norm
        learnt[part] = squares <= reach[1, part, None] - norm
    number = inside.sum(1)
    # Where a real row's ball is the only one around an output, the output's precision hangs on that row.
    alone = torch.where(number == 1, inside.to(torch.uint8).argmax(1), num_real)
    hanging, held = [], []
    for fold in (0, 1):
        pair = [torch.from_numpy(sides.of(side, fold)) for side in (0, 1)]
        lone = [torch.bincount(alone[own], minlength=num_real + 1)[:num_real] / own.sum() for own in pair]
        hanging.append(_difference(lone))
        held.append(_difference([inside[own].sum(0) / (num_neighbours * own.sum()) for own in pair]))
    return {
        "precision": _plain((number > 0).double(), hanging, sides),
        "density": _plain(number / num_neighbours, held, sides),
        "coverage": _reaching(inside, inside, sides),
        "recall": _reaching(learnt, judging, sides),
    }


def _difference(sides: list[Tensor]) -> np.ndarray:
    return (sides[1] - sides[0]).double().numpy() * len(sides[0])


def _plain(rows: Tensor, of_real: list[np.ndarray], sides: Sides) -> Witness:
    values = rows.double().numpy()
    before, after = (float(values[sides.is_after == side].mean()) for side in (False, True))
    return Witness(before, after, values, real_variance(*of_real))


def _reaching(learnt: Tensor, judging: Tensor, sides: Sides) -> Witness:
    """Return the witness of the share of real rows that half of a side's outputs reach.

    Args:
        learnt: Whether an output reaches a real row, for the slope, `(row, real)`.
        judging: The same for the outputs that are judged.
        sides: The sides and folds.
    """
    num_real = learnt.shape[1]
    rows = torch.zeros(len(learnt), dtype=torch.float64)
    shares, of_real = np.zeros((2, 2)), []
    for fold in (0, 1):
        b, a = (learnt[torch.from_numpy(sides.of(side, 1 - fold))].sum(0).double() for side in (0, 1))
        # The mean of exp(-count) between two mean counts, without bias: (1 - t)^a is exp(-t mean) on average.
        slope = (torch.lgamma(a + 1) + torch.lgamma(b + 1) - torch.lgamma(a + b + 2)).exp()
        own = torch.from_numpy(sides.fold == fold)
        rows[own] = _sums(judging[own], slope) * (int(own.sum()) / 2 / num_real)
        reached = [(count > 0).double() for count in (b, a)]
        shares[:, fold] = [float(share.mean()) for share in reached]
        of_real.append((reached[1] - reached[0]).numpy())
    before, after = shares.mean(1).tolist()
    return Witness(before, after, rows.numpy(), real_variance(*of_real))


def _sums(table: Tensor, values: Tensor) -> Tensor:
    return torch.cat([part.double() @ values for part in table.split(_CHUNK)])


def _partial(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances of rows of x to rows of y, minus the squared norm of x."""
    return torch.addmm((y * y).sum(1), x, y.T, alpha=-2)


def _nearest(x: Tensor, y: Tensor, k: int, block_x: Tensor | None = None, block_y: Tensor | None = None) -> Tensor:
    """Return the squared distance of each row of x to its k-th neighbour in y, if given of other blocks."""
    found = []
    for start in range(0, len(x), _CHUNK):
        squares = _partial(x[start : start + _CHUNK], y)
        if block_x is not None and block_y is not None:
            squares[block_x[start : start + _CHUNK, None] == block_y] = torch.inf
        found.append(squares.topk(min(k, len(y)), dim=1, largest=False).values[:, -1])
    return (torch.cat(found) + (x * x).sum(1)).clamp(min=0)
