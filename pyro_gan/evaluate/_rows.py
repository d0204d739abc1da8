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


class Pool(NamedTuple):
    """All rows of two sets, with what a fair split needs to know about them."""

    #: Flattened rows in float32, outputs first, `(row, feature)`.
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

    Rows that repeat, as resampling makes them, would otherwise be recognised where they are to be judged.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few different rows.
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
    rows = np.concatenate(
        [as_rows(samples.to("cpu", torch.float32), name).numpy() for name, samples in sets.items()]
    )
    is_real = np.repeat([0, 1], [len(outputs), len(real)])
    _, identity = np.unique(rows, axis=0, return_inverse=True)
    identity = identity.reshape(-1)
    part = (np.random.default_rng(seed).permutation(identity.max() + 1) % num_parts)[identity]
    for label, name in enumerate(sets):
        smallest = np.bincount(part[is_real == label], minlength=num_parts).min()
        if smallest < _MIN_PART:
            raise ValueError(
                f"Expected at least {_MIN_PART} rows of {name} in each of {num_parts} parts, with equal rows in one "
                f"part; got {smallest}. Pass more distinct rows, or ask for fewer parts."
            )
    return Pool(rows, is_real, identity, part)


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
