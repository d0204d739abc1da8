"""Sets of samples as rows: checked, pooled for a classifier, equal rows kept together, features scaled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Pool", "as_rows", "default_classifier", "pool_rows", "seen_by_default"]

_MIN_ROWS = 50
_MIN_PART = 5
# Where rows repeat, errors are those of so many clusters, known by their own spread only.
_MIN_DISTINCT = 20


class Pool(NamedTuple):
    """All rows of two sets, with what a fair split needs to know about them."""

    #: Flattened rows in float32, centred if both sets were float64, outputs first, `(row, feature)`.
    rows: np.ndarray
    #: 1 for a real row, 0 for an output, `(row,)`.
    is_real: np.ndarray
    #: A number that equal rows share, `(row,)`.
    identity: np.ndarray
    #: The part that a row falls into, equal rows into one, `(row,)`.
    part: np.ndarray


def as_rows(samples: Float[Tensor, "draw *event"], name: str) -> Float[Tensor, "draw feature"]:
    """Return samples detached and flattened to rows.

    Raises:
        ValueError: if there is no event dimension, or a row holds NaN or infinity.
    """
    if samples.dim() < 2:
        raise ValueError(f"Expected {name} of shape (draw, *event); got {tuple(samples.shape)}.")
    rows = samples.detach().flatten(1)
    num_bad = int((~rows.isfinite().all(1)).sum())
    if num_bad:
        raise ValueError(
            f"Expected finite {name}; {num_bad} of {len(rows)} rows hold NaN or infinity. Find the network that makes "
            "them (an input outside its range, half precision), or leave those rows out and say how many."
        )
    return rows


def pool_rows(outputs: Tensor, real: Tensor, *, num_parts: int, seed: int) -> Pool:
    """Pool outputs and real data and deal them into parts, equal rows into one.

    Rows that repeat, as resampling makes them, would otherwise be recognised where they are to be judged. The distinct
    rows of either set are dealt evenly.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or a part gets fewer than 5 distinct rows of a set, 20
            if the set's rows repeat.
    """
    if outputs.dim() < 2 or outputs.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"Expected outputs and real of shapes (draw, *event) with one event; got {tuple(outputs.shape)} and "
            f"{tuple(real.shape)}."
        )
    sets = {"outputs": outputs, "real": real}
    for name, samples in sets.items():
        if len(samples) < _MIN_ROWS:
            raise ValueError(f"Expected at least {_MIN_ROWS} rows of {name}; got {len(samples)}.")
    precise = outputs.dtype == real.dtype == torch.float64
    dtype = torch.float64 if precise else torch.float32
    rows = np.concatenate([as_rows(samples.to("cpu", dtype), name).numpy() for name, samples in sets.items()])
    if precise:
        # Far from 0 they differ in digits that float32 does not have.
        rows = (rows - rows.mean(0)).astype(np.float32)
    is_real = np.repeat([0, 1], [len(outputs), len(real)])
    _, identity = np.unique(rows, axis=0, return_inverse=True)
    identity = identity.reshape(-1)
    part_of = _deal(identity, is_real, num_parts, seed)
    for label, name in enumerate(sets):
        own = np.unique(identity[is_real == label])
        smallest = np.bincount(part_of[own], minlength=num_parts).min()
        needed = _MIN_PART if len(own) == len(sets[name]) else _MIN_DISTINCT
        if smallest < needed:
            raise ValueError(
                f"Expected at least {needed} distinct rows of {name} in each of {num_parts} parts, with equal rows in "
                f"one part; got {smallest}, of {len(own)} distinct rows among {len(sets[name])}. Pass more distinct "
                "rows, or ask for fewer parts."
            )
    return Pool(rows, is_real, identity, part_of[identity])


def default_classifier(seed: int) -> Any:
    """Return a network of two hidden layers, stopped early, for rows as `seen_by_default` makes them."""
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        (128, 128), alpha=0.01, early_stopping=True, n_iter_no_change=8, max_iter=200, random_state=seed
    )


def seen_by_default(rows: np.ndarray) -> np.ndarray:
    """Return centred, scaled features and their squares; labels play no part, so nothing leaks."""
    sd = rows.std(0)
    scaled = (rows - rows.mean(0)) / np.maximum(sd, 0.1 * sd.max() + np.finfo(np.float32).tiny)
    # A network finds a difference of scale from squares at once, and from the values only with much data. The
    # clip keeps one far outlier from drowning the rest.
    return np.concatenate([scaled, scaled**2 - 1], axis=1).clip(-10, 10)


def _deal(identity: np.ndarray, is_real: np.ndarray, num_parts: int, seed: int) -> np.ndarray:
    """Return the part of every identity: at random, evenly among those of the outputs, of the reals and of both."""
    count = identity.max() + 1
    in_outputs, in_real = np.zeros((2, count), dtype=int)
    in_outputs[identity[is_real == 0]] = 1
    in_real[identity[is_real == 1]] = 1
    shuffled = np.random.default_rng(seed).permutation(count)
    order = shuffled[np.argsort((in_outputs + 2 * in_real)[shuffled], kind="stable")]
    part = np.empty(count, dtype=int)
    part[order] = np.arange(count) % num_parts
    return part
