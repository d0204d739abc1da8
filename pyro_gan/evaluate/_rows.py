"""Samples as rows and as images, checked; and pooled for a classifier, with equal rows kept together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import extra, instance, numbers, random_seed, rows, tensor

__all__ = ["LARGEST", "as_images", "as_rows", "black_and_white", "classifier_for", "pool_rows", "seeded", "two_sets"]

_MIN_ROWS = 50
_MIN_PART = 5
# Where rows repeat, only the spread of the distinct rows tells the error, and fewer tell it badly.
_MIN_DISTINCT = 20
# Lower end, median and upper end of what sets the scale of a feature.
_MIDDLE = (0.01, 0.5, 0.99)
#: Squares of larger numbers, summed over a row, overflow in float32.
LARGEST = 1e15


@final
class Pool(NamedTuple):
    """All rows of two sets, with what a fair split needs to know about them."""

    #: Flattened rows in float32, minus the median if both sets were float64, outputs first, `(row, feature)`.
    rows: np.ndarray
    #: 1 for a real row, 0 for an output, `(row,)`.
    is_real: np.ndarray
    #: A number that equal rows share, `(row,)`.
    identity: np.ndarray
    #: The part that a row falls into; equal rows fall into one part, `(row,)`.
    part: np.ndarray


def seeded(seed: int) -> torch.Generator:
    """Return a generator of torch's with a seed that NumPy and scikit-learn take too."""
    return torch.Generator().manual_seed(random_seed(seed))


def as_rows(
    samples: Float[Tensor, "draw *event"], name: str, *, minimum: int = 1, event_shape: tuple[int, ...] | None = None
) -> Float[Tensor, "draw feature"]:
    """Return samples detached and flattened to rows, whole numbers as float64.

    Raises:
        ValueError: if there is no event dimension or the event has another shape, there are fewer rows than `minimum`,
            or a row holds NaN, infinity or more than 1e15.
    """
    samples = tensor(name, samples).detach()
    if samples.dim() < 2:
        raise ValueError(
            f"Expected {name} of shape (draw, *event); got {tuple(samples.shape)}. One number a draw needs a "
            "dimension of its own: samples[:, None]."
        )
    if not (samples.is_floating_point() or samples.is_complex()):
        samples = samples.double()
    return rows(name, samples, minimum=minimum, event_shape=event_shape, largest=LARGEST).flatten(1)


def two_sets(outputs: Tensor, real: Tensor, *, minimum: int = 1) -> tuple[Tensor, Tensor]:
    """Return outputs and real data as rows of one event shape, at least `minimum` of each."""
    x = as_rows(outputs, "outputs", minimum=minimum)
    return x, as_rows(real, "real", minimum=minimum, event_shape=tuple(outputs.shape[1:]))


def as_images(
    images: Float[Tensor, "draw *channel height width"], *, num_channels: tuple[int, ...] = (), side: int = 1
) -> Float[Tensor, "draw channel height width"]:
    """Return finite images with a channel dimension, detached, whole numbers as float64.

    Args:
        images: Grey `(draw, height, width)`, or with channels.
        num_channels: Numbers of channels allowed; any if empty.
        side: Pixels of the shorter side, at least.

    Raises:
        ValueError: if the shape is another, there is no image, or a value is not finite.
    """
    images = images.unsqueeze(1) if tensor("images", images).dim() == 3 else images
    sizes = images.shape[1:] if images.dim() == 4 else (0,)
    if min(sizes) < 1 or min(sizes[1:]) < side or sizes[0] not in (num_channels or sizes):
        raise ValueError(
            "Expected images (draw, height, width) or (draw, channel, height, width), of "
            f"{' or '.join(map(str, num_channels)) or 'any number of'} channels and {side} pixels or more a side; got "
            f"{tuple(images.shape)}. Unflatten rows of pixels first."
        )
    as_rows(images, "images")
    return images.detach()


def black_and_white(value_range: tuple[float, float]) -> tuple[float, float]:
    """Return the values of black and of white: two finite numbers, the first below the second."""
    shades = numbers("value_range", value_range)
    if len(shades) != 2 or not shades[0] < shades[1]:
        raise ValueError(f"Expected value_range with black below white; got {value_range}. Pass (0, 1), for example.")
    return shades[0], shades[1]


def pool_rows(outputs: Tensor, real: Tensor, *, num_parts: int, seed: int) -> Pool:
    """Pool outputs and real data and deal them into parts, with equal rows in one part.

    Resampling makes rows repeat. A classifier would otherwise recognise, among the rows that judge it, those that
    trained it. The distinct rows of either set are dealt evenly.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or a part gets fewer than 5 distinct rows of a set (20
            if the set's rows repeat).
    """
    seeded(seed)
    sets = dict(zip(("outputs", "real"), two_sets(outputs, real, minimum=_MIN_ROWS), strict=True))
    precise = outputs.dtype == real.dtype == torch.float64
    dtype = torch.float64 if precise else torch.float32
    rows = np.concatenate([samples.to("cpu", dtype).numpy() for samples in sets.values()])
    if precise:
        # Far from 0 they differ in digits that float32 does not have.
        rows = (rows - np.median(rows, axis=0)).astype(np.float32)
    is_real = np.repeat([0, 1], [len(outputs), len(real)])
    _, identity = np.unique(rows, axis=0, return_inverse=True)
    identity = identity.reshape(-1)
    part_of = _deal(identity, is_real, num_parts, seed)
    for label, (name, samples) in enumerate(sets.items()):
        own = np.unique(identity[is_real == label])
        smallest = np.bincount(part_of[own], minlength=num_parts).min()
        needed = _MIN_PART if len(own) == len(samples) else _MIN_DISTINCT
        if smallest < needed:
            raise ValueError(
                f"Expected at least {needed} distinct rows of {name} in each of {num_parts} parts, with equal rows in "
                f"one part; got {smallest}, of {len(own)} distinct rows among {len(samples)}. Pass more distinct "
                "rows, or ask for fewer parts."
            )
    return Pool(rows, is_real, identity, part_of[identity])


def classifier_for(
    rows: np.ndarray, classifier: Any, seed: int, *, is_table: bool
) -> tuple[np.ndarray, Callable[[], Any]]:
    """Return the rows as a classifier sees them, and a function that makes an unfitted copy of it.

    The default is a network of two hidden layers, stopped early, on scaled features.

    Args:
        rows: Flattened rows, `(row, feature)`.
        classifier: An unfitted classifier of scikit-learn's, or None.
        seed: Of the default.
        is_table: Whether each feature has a unit of its own, as columns have; pixels share one.
    """
    with extra("evaluate"):
        from sklearn.base import BaseEstimator, clone
        from sklearn.neural_network import MLPClassifier
    if classifier is None:
        rows = _scaled(rows, is_table=is_table)
        classifier = MLPClassifier(
            (128, 128), alpha=0.01, early_stopping=True, n_iter_no_change=8, max_iter=200, random_state=seed
        )
    cure = "Pass an unfitted scikit-learn classifier, such as LogisticRegression()."
    instance("classifier", classifier, BaseEstimator, cure=cure)
    return rows, lambda: clone(classifier)


def _scaled(rows: np.ndarray, *, is_table: bool) -> np.ndarray:
    """Return centred, scaled features and their squares; labels play no part, so nothing leaks.

    The centre is the median, and the scale is the standard deviation of rows that are cut to the middle 98 per cent,
    so that a far outlier sets neither. (The distance of quartiles is 0 for most pixels of a drawing.) A pixel that
    varies less than a tenth of the liveliest one stays small: what is hardly seen would otherwise count as much.
    """
    table = rows.astype(np.float64)
    edges = np.quantile(table, _MIDDLE, axis=0, method="nearest")
    rounding = np.finfo(np.float32).eps * np.abs(edges).max(0)
    table -= edges[1]
    sd = table.clip(edges[0] - edges[1], edges[2] - edges[1]).std(0)
    if is_table:
        # A column that differs in rare rows alone has the spread of all.
        sd = np.where(sd > rounding, sd, table.std(0))
        smallest = rounding
    else:
        smallest = np.full_like(sd, 0.1 * sd.max())
    scaled = table / np.maximum(sd, smallest + np.finfo(np.float32).tiny)
    # A network finds a difference of scale from squares at once, and from the values only with much data.
    return np.concatenate([scaled, scaled**2 - 1], axis=1).clip(-10, 10).astype(np.float32)


def _deal(identity: np.ndarray, is_real: np.ndarray, num_parts: int, seed: int) -> np.ndarray:
    """Return the part of every identity: at random, evenly among those of the outputs, of the reals and of both."""
    num_identities = identity.max() + 1
    in_outputs, in_real = np.zeros((2, num_identities), dtype=int)
    in_outputs[identity[is_real == 0]] = 1
    in_real[identity[is_real == 1]] = 1
    shuffled = np.random.default_rng(seed).permutation(num_identities)
    order = shuffled[np.argsort((in_outputs + 2 * in_real)[shuffled], kind="stable")]
    part = np.empty(num_identities, dtype=int)
    part[order] = np.arange(num_identities) % num_parts
    return part
