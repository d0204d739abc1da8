"""Two sets of outputs made comparable: equally many rows, their independent blocks, and two folds of blocks."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import shaped

__all__ = ["Sides", "effective_blocks", "make_sides"]

_MIN_BLOCKS = 8


@final
class Sides(NamedTuple):
    """The rows of before and after that are compared, before first, and the blocks that are independent of each other.

    A block that both sides share (outputs that were resampled from the other side's rows) has one number.
    """

    #: Indices of the rows that are kept, one array for each side, of equal length.
    kept: tuple[np.ndarray, np.ndarray]
    #: Whether a row belongs to after, `(row,)`.
    is_after: np.ndarray
    #: Number of a row's block, `(row,)`.
    block: np.ndarray
    #: Fold of a row, 0 or 1; whole blocks lie in one fold, `(row,)`.
    fold: np.ndarray
    #: Fold of a real row, `(real,)`.
    real_fold: np.ndarray
    #: Copies on each side: rows that equal an earlier row of their side.
    copies: tuple[int, int]

    @property
    def is_uneven(self) -> bool:
        """Whether the blocks of one side are worth less than nine tenths of the other's."""
        worth = [effective_blocks(self.block[self.is_after == side]) for side in (False, True)]
        return min(worth) < 0.9 * max(worth)

    def of(self, side: int, fold: int) -> np.ndarray:
        """Return which rows belong to a side (0 before, 1 after) and a fold, `(row,)`."""
        return (self.is_after == bool(side)) & (self.fold == fold)


def make_sides(
    before: Float[Tensor, "draw_b feature"],
    after: Float[Tensor, "draw_a feature"],
    num_real: int,
    *,
    blocks_before: Int[Tensor, " draw_b"] | None,
    blocks_after: Int[Tensor, " draw_a"] | None,
    seed: int,
) -> Sides:
    """Find the blocks, cut the larger side by whole blocks (the last one in part), and deal the blocks into two folds.

    Raises:
        ValueError: if blocks are no whole numbers, one for each row, or a side has fewer than 8 effective blocks.
    """
    rng = np.random.default_rng(seed)
    rows = np.concatenate([before.cpu().numpy(), after.cpu().numpy()])
    _, identity = np.unique(rows, axis=0, return_inverse=True)
    identity = identity.reshape(-1)
    same = identity[: len(before)], identity[len(before) :]
    names = ("blocks_before", blocks_before, same[0]), ("blocks_after", blocks_after, same[1])
    labels: list[np.ndarray] = []
    for number, (name, given, equal) in enumerate(names):
        # Numbers of given blocks lie above those of equal rows, and those of the two sides differ.
        labels.append(equal if given is None else (number + 1) * 2**40 + _checked(name, given, len(equal)))
    size = min(len(before), len(after))
    kept = tuple(_cut(own, size, rng) for own in labels)
    _, block = np.unique(
        np.concatenate([own[rows] for own, rows in zip(labels, kept, strict=True)]), return_inverse=True
    )
    block = block.reshape(-1)
    is_after = np.repeat([False, True], size)
    for name, side in (("before", ~is_after), ("after", is_after)):
        effective = effective_blocks(block[side])
        if effective < _MIN_BLOCKS:
            raise ValueError(
                f"Expected at least {_MIN_BLOCKS} independent blocks in {name}, counted as blocks of equal size; got "
                f" {len(np.unique(block[side]))} blocks, worth {effective:.1f}, in {size} rows. Run more chains, or "
                "resample from more draws."
            )
    copies = tuple(size - len(np.unique(own[rows])) for own, rows in zip(same, kept, strict=True))
    fold = _deal(block, is_after, rng)
    real_fold = rng.permutation(num_real) % 2
    return Sides((kept[0], kept[1]), is_after, block, fold, real_fold, (copies[0], copies[1]))


def effective_blocks(block: np.ndarray) -> float:
    """Return the number of blocks of equal size that tell as much as these blocks: (sum size)^2 / sum size^2."""
    size = np.unique(block, return_counts=True)[1].astype(float)
    return float(size.sum() ** 2 / (size**2).sum())


def _checked(name: str, blocks: Tensor, num_rows: int) -> np.ndarray:
    cure = "Pass the number of each row's chain, such as torch.arange(num_chains).repeat_interleave(num_draws)."
    blocks = shaped(name, blocks, (num_rows,), cure=cure)
    if blocks.dtype in (torch.bool, torch.float16, torch.bfloat16) or blocks.is_floating_point() or blocks.is_complex():
        raise ValueError(f"Expected {name} as whole numbers; got {blocks.dtype}. {cure}")
    return np.unique(blocks.detach().cpu().numpy(), return_inverse=True)[1].reshape(-1)


def _cut(label: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices of `size` rows: whole blocks in random order, the last one cut; in the order of the rows."""
    if len(label) == size:
        return np.arange(size)
    _, number = np.unique(label, return_inverse=True)
    place = rng.permutation(number.max() + 1)[number.reshape(-1)]
    return np.sort(np.argsort(place, kind="stable")[:size])


def _deal(block: np.ndarray, is_after: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of every row: each block goes where its sides have fewer rows, the largest blocks first."""
    num_blocks = int(block.max()) + 1
    sizes = np.stack([np.bincount(block[is_after == side], minlength=num_blocks) for side in (False, True)], axis=1)
    order = rng.permutation(num_blocks)
    order = order[np.argsort(-sizes.sum(1)[order], kind="stable")]
    fold_of = np.zeros(num_blocks, dtype=int)
    excess = rng.integers(0, 2, size=2) - 0.5
    for number in order:
        step = sizes[number]
        # The fold whose side has fewer rows; `excess` counts fold 1 minus fold 0.
        fold_of[number] = int(((excess + step) ** 2).sum() < ((excess - step) ** 2).sum())
        excess = excess + step if fold_of[number] else excess - step
    return fold_of[block]
