"""Two sets of rows made fit to judge a critic: checked, scored, and split into disjoint, balanced halves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyro_gan._typing import Critic
from pyro_gan.ratio.heads import critic_scores

__all__ = ["balanced_indices", "check_rows", "score_rows"]

#: Rows scored at once.
CHUNK_SIZE = 1000

# Rows of one number (scores, say) do meet by chance in float32; rows of more do so only if the data are discrete, and
# then they repeat within a set as well.
CHANCE_MEETINGS = 10


def check_rows(real: Tensor, generated: Tensor) -> None:
    """Raise unless two sets of rows can be compared: same kind, no NaN, none empty, nothing shared.

    Args:
        real: `(real, *event)`.
        generated: `(generated, *event)`.

    Raises:
        ValueError: naming the trouble and the cure.
    """
    for rows, name in ((real, "real"), (generated, "generated")):
        if rows.dim() < 1 or not len(rows):
            raise ValueError(
                f"Expected {name} data of shape (batch, *event), not empty; got {tuple(rows.shape)}."
            )
        if rows.is_floating_point() and not torch.isfinite(rows).all():
            num_bad = int((~torch.isfinite(rows.reshape(len(rows), -1))).any(1).sum())
            raise ValueError(
                f"Expected finite {name} data; got NaN or infinity in {num_bad} of {len(rows)} rows. Drop them."
            )
    if real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"Expected real and generated data of one event shape; got {tuple(real.shape[1:])} and "
            f"{tuple(generated.shape[1:])}."
        )
    if real.dtype != generated.dtype:
        raise ValueError(
            f"Expected real and generated data of one dtype; got {real.dtype} and {generated.dtype}. "
            "Convert one: the critic must not be able to tell them apart by rounding."
        )
    _check_overlap(real, generated)


def score_rows(critic: Critic, rows: Float[Tensor, "row *event"], name: str) -> Float[Tensor, " row"]:
    """Return a critic's scores, in chunks and without gradient.

    Args:
        critic: Any callable on data.
        rows: `(row, *event)`.
        name: Whose rows they are, for the error.

    Returns:
        `(row,)`.

    Raises:
        ValueError: if a score is NaN, infinite or no float, or the critic's parameters have another dtype.
    """
    if isinstance(critic, nn.Module) and rows.is_floating_point():
        dtype = next((p.dtype for p in critic.parameters() if p.is_floating_point()), rows.dtype)
        if dtype != rows.dtype:
            raise ValueError(
                f"Expected data of the critic's dtype, {dtype}; got {rows.dtype}. Convert one of them."
            )
    with torch.no_grad():
        scores = torch.cat([critic_scores(critic, chunk) for chunk in rows.split(CHUNK_SIZE)])
    if not scores.is_floating_point():
        raise ValueError(
            f"Expected real-valued scores from the critic; got {scores.dtype}. Return floats, not classes."
        )
    if not torch.isfinite(scores).all():
        raise ValueError(
            f"Expected finite scores; the critic gave {int(torch.isnan(scores).sum())} NaN and "
            f"{int(torch.isinf(scores).sum())} infinite ones for {len(scores)} {name} rows. A logit taken from a "
            "saturated sigmoid is infinite: see LogRatio.from_probability."
        )
    return scores


def balanced_indices(
    num_real: int, num_generated: int, *, holdout: float, seed: int, minimum: int
) -> tuple[Int[Tensor, " real"], Int[Tensor, " generated"], int, int]:
    """Shuffle the rows of both classes, and say how many of each to use and how many of those are held out.

    Args:
        num_real: Rows to choose from in one class.
        num_generated: In the other.
        holdout: Share to hold out, strictly between 0 and 1.
        seed: Of a local generator.
        minimum: Rows that each class must have on each side.

    Returns:
        Row indices of each class in random order; how many of each, from the front, balance the classes; and how many
        of those, from the front, are held out.

    Raises:
        ValueError: if the share is out of range or a side gets fewer than the minimum.
    """
    if not 0 < holdout < 1:
        raise ValueError(
            f"Expected holdout strictly between 0 and 1; got {holdout}. It is a share of the rows."
        )
    number = min(num_real, num_generated)
    held = round(number * holdout)
    if min(held, number - held) < minimum:
        raise ValueError(
            f"Expected at least {minimum} rows of each class to fit on and {minimum} to hold out; {num_real} real and "
            f"{num_generated} generated rows give {number - held} and {held}. Generate or collect more."
        )
    generator = torch.Generator().manual_seed(seed)
    real, generated = (torch.randperm(n, generator=generator) for n in (num_real, num_generated))
    return real, generated, number, held


def _check_overlap(real: Tensor, generated: Tensor) -> None:
    """Raise if rows coincide between the sets more often than repeats within the sets can explain.

    For independent draws from any laws p and q, the expected number of equal pairs between the sets,
    n m sum p q, is at most the expected number within them, n^2/2 sum p^2 + m^2/2 sum q^2.
    """
    (keys, counts), (other_keys, other_counts) = _row_counts(real), _row_counts(generated)
    _, first, second = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
    between = float((counts[first].astype(float) * other_counts[second]).sum())
    within = sum(float((c.astype(float) * (c - 1)).sum()) / 2 for c in (counts, other_counts))
    chance = CHANCE_MEETINGS if real[0].numel() == 1 else 0
    if between > within + 5 * math.sqrt(within) + chance:
        raise ValueError(
            f"Expected real and generated data to be different rows; {len(first)} distinct rows are in both. "
            "Check that the generated set is not a copy of the data, or a batch that holds both."
        )


def _row_counts(rows: Tensor) -> tuple[Any, Any]:
    """Return the distinct hashes of rows' bytes, and how often each occurs."""
    # Bytes, so that every dtype will do; Python's 64-bit hash of them makes a false meeting a 1e-9 matter.
    table = rows.detach().reshape(len(rows), -1).contiguous().view(torch.uint8).cpu().numpy()
    return np.unique(
        np.fromiter((hash(row.tobytes()) for row in table), np.int64, len(table)), return_counts=True
    )
