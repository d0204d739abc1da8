"""Two sets of rows to judge a critic by: their checks, their scores, and their split into disjoint parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic

__all__ = ["check_rows", "data_rows", "disjoint_parts", "first_of_equal", "score_rows"]

#: Rows scored at once.
CHUNK_SIZE = 1000

# In float32 rows of a single number (scores, for instance) coincide by chance. Rows of several numbers do so only if
# the data are discrete, and then they repeat within a set as well.
CHANCE_MEETINGS = 10


def data_rows(name: str, data: Any) -> Tensor:
    """Return data `(row, *event)` of any dtype, or raise if they are empty or not finite."""
    value = checks.tensor(f"{name} data", data)
    checks.rows(f"{name} data", value if value.is_floating_point() else value.float())
    return value


def check_rows(real: Tensor, generated: Tensor) -> None:
    """Raise unless two sets of rows can be compared: not empty, finite, of one kind, without shared rows.

    Args:
        real: `(real, *event)`.
        generated: `(generated, *event)`.

    Raises:
        ValueError: naming what is wrong and the cure.
    """
    data_rows("real", real)
    data_rows("generated", generated)
    if real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"Expected real and generated data of one event shape; got {tuple(real.shape[1:])} and "
            f"{tuple(generated.shape[1:])}. Reshape one of them."
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
        name: Which rows they are, for the error.

    Returns:
        `(row,)`.

    Raises:
        ValueError: if a score is NaN, infinite or no float, or the critic's parameters have another dtype.
    """
    if isinstance(critic, nn.Module) and rows.is_floating_point():
        dtype = next((p.dtype for p in critic.parameters() if p.is_floating_point()), rows.dtype)
        if dtype != rows.dtype:
            raise ValueError(
                f"Expected data of the critic's dtype, {dtype}; got {rows.dtype}. Convert one of them with .to(...)."
            )
    with torch.no_grad():
        scores = torch.cat([critic_scores(critic, chunk) for chunk in rows.split(CHUNK_SIZE)])
    cure = "Return floats, not classes. A logit of a saturated sigmoid is infinite: see LogRatio.from_probability."
    return checks.rows(f"scores of {name} rows", scores, event_shape=(), cure=cure)


def disjoint_parts(
    num_rows: int, shares: Sequence[float], *, name: str, minimum: int, generator: torch.Generator
) -> list[Int[Tensor, " row"]]:
    """Split rows at random into parts for different purposes: what chooses something must not judge it.

    Args:
        num_rows: Number of rows.
        shares: Share of the rows for each part but the last, which gets the rest.
        name: Which rows they are, for the error.
        minimum: Fewest rows of a part.
        generator: Makes the random order.

    Returns:
        Row indices of each part, in random order.

    Raises:
        ValueError: if a part has fewer rows than the minimum.

    Example:
        >>> parts = disjoint_parts(10, (0.5, 0.2), name="real", minimum=1, generator=torch.Generator())
        >>> [len(part) for part in parts], torch.cat(parts).sort().values.tolist() == list(range(10))
        ([5, 2, 3], True)
    """
    sizes = [round(share * num_rows) for share in shares]
    sizes.append(num_rows - sum(sizes))
    if min(sizes) < minimum:
        raise ValueError(
            f"Expected at least {minimum} {name} rows in each of {len(sizes)} parts; {num_rows} rows give "
            f"{' and '.join(map(str, sizes))}. Generate or collect more."
        )
    return list(torch.randperm(num_rows, generator=generator).split(sizes))


def _check_overlap(real: Tensor, generated: Tensor) -> None:
    """Raise if rows coincide between the sets more often than repeats within the sets can explain.

    For independent draws from any distributions p and q, the expected number of equal pairs between the sets,
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


def first_of_equal(rows: Float[Tensor, "row *event"]) -> Int[Tensor, " distinct"]:
    """Return the index of the first of each set of equal rows, in order.

    Example:
        >>> first_of_equal(torch.tensor([[1.0], [2.0], [1.0]]))
        tensor([0, 1])
    """
    return torch.from_numpy(np.sort(np.unique(_hashes(rows), return_index=True)[1]))


def _row_counts(rows: Tensor) -> tuple[Any, Any]:
    """Return the distinct hashes of rows' bytes, and how often each occurs."""
    return np.unique(_hashes(rows), return_counts=True)


def _hashes(rows: Tensor) -> Any:
    # Bytes, because every dtype has them. With Python's 64-bit hash two rows coincide falsely about once in 1e9 calls.
    table = rows.detach().reshape(len(rows), -1).contiguous().view(torch.uint8).cpu().numpy()
    return np.fromiter((hash(row.tobytes()) for row in table), np.int64, len(table))
