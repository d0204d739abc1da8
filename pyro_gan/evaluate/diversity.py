"""How different outputs are from one another: distances of pairs, MS-SSIM, and the number of different outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import by_chunk
from pyro_gan.checks import count, extra
from pyro_gan.evaluate._rows import as_images, as_rows, black_and_white, seeded

__all__ = ["PairMean", "ms_ssim", "num_distinct", "pair_distance"]

# The weights of the scales by Wang, Simoncelli and Bovik, the finest first; and the shortest side at which the window
# of torchmetrics, 11 pixels, still fits into the coarsest of so many scales.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SHORTEST_SIDES = (11, 22, 44, 99, 176)

_MAX_CLIPPED = 0.05


@final
class PairMean(NamedTuple):
    """The mean of a figure over random pairs of outputs."""

    #: The mean.
    value: float
    #: Its standard error, for independent samples; no sample is in two pairs.
    standard_error: float
    #: Number of pairs.
    num_pairs: int


def pair_distance(samples: Float[Tensor, "draw *event"], *, num_pairs: int | None = None, seed: int = 0) -> PairMean:
    """Return the mean Euclidean distance between two outputs.

    Compare it with that of held-out real data. Below it, outputs are too alike; above it, they are too far apart, which
    outliers and noise cause. In pixels it mostly sees brightness; pass features (`extract_features`) to see more.

    Args:
        samples: Outputs or their features, `(draw, *event)`.
        num_pairs: Number of pairs, none of which shares a sample with another; `draw // 2` at most and by default.
        seed: Of the pairs; no global generator is moved.

    Returns:
        The mean over pairs and its standard error.

    Raises:
        ValueError: if there are fewer than 4 samples, too many pairs are asked for, or an entry is not finite.

    Example:
        >>> distance = pair_distance(torch.randn(20_000, 2))
        >>> abs(distance.value - math.pi**0.5) < 5 * distance.standard_error
        True
    """
    rows = as_rows(samples, "samples", minimum=4).double()
    return _over_pairs(rows, lambda a, b: (a - b).norm(dim=-1), num_pairs, seed)


def ms_ssim(
    images: Float[Tensor, "draw *channel height width"],
    *,
    num_pairs: int | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> PairMean:
    """Return the mean multi-scale structural similarity of two outputs.

    It is 1 if all images are equal; the value of held-out real data shows how diverse outputs should be. Compare it
    within a class, because images of different classes differ anyway. It does not measure quality: noise is very
    diverse.

    Five scales need images of 176 pixels (the shorter side). Smaller ones get fewer, with the weights of the finest
    renormalised: four from 99, three from 44 (64 x 64), two from 22 (MNIST, CIFAR-10), one (plain SSIM) from 11.
    Values of different numbers of scales do not compare. A pair whose contrast is anticorrelated at some scale
    counts as 0.

    Args:
        images: Grey `(draw, height, width)` or with channels `(draw, channel, height, width)`.
        num_pairs: Number of pairs, none of which shares an image with another; `draw // 2` at most and by default.
        value_range: Values of black and of white; values outside are clipped.
        seed: Of the pairs; no global generator is moved.

    Returns:
        The mean over pairs and its standard error.

    Raises:
        ValueError: if the shape is not that of images of 11 pixels or more, there are fewer than 4 images, too many
            pairs are asked for, or an entry is not finite.
        ImportError: without torchmetrics.

    Warns:
        UserWarning: if more than a twentieth of the values is clipped.

    References:
        Multiscale structural similarity for image quality assessment, Z. Wang, E. Simoncelli and A. Bovik, 2003,
        https://doi.org/10.1109/ACSSC.2003.1292216

        Conditional Image Synthesis with Auxiliary Classifier GANs, A. Odena, C. Olah and J. Shlens, 2017,
        https://arxiv.org/abs/1610.09585

    Example:
        >>> digit = torch.rand(1, 1, 28, 28) * 2 - 1
        >>> round(ms_ssim(digit.expand(10, -1, -1, -1)).value, 4)
        1.0
    """
    images = as_images(images, side=_SHORTEST_SIDES[0])
    as_rows(images, "images", minimum=4)
    low, high = black_and_white(value_range)
    with extra("images"):
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity
    num_scales = sum(min(images.shape[2:]) >= side for side in _SHORTEST_SIDES)
    total = sum(_SCALE_WEIGHTS[:num_scales])
    weights = tuple(weight / total for weight in _SCALE_WEIGHTS[:num_scales])
    clipped = float(((images < low) | (images > high)).double().mean())
    if clipped > _MAX_CLIPPED:
        warnings.warn(
            f"{clipped:.1%} of the values lie outside value_range {value_range} and are clipped, so the similarity is "
            "that of other images. Grey levels from 0 to 255 need value_range=(0, 255).",
            stacklevel=2,
        )
    # Luminance is compared as a ratio of means, for which black must be 0.
    scaled = (images.float().clamp(low, high) - low) / (high - low)

    def similarities(a: Tensor, b: Tensor) -> Tensor:
        pairs = torch.stack([a, b], dim=1)
        return by_chunk(
            lambda part: similarity(part[:, 0], part[:, 1], data_range=1.0, betas=weights, reduction="none"),
            pairs,
            None,
        )

    return _over_pairs(scaled, similarities, num_pairs, seed)


def num_distinct(samples: Float[Tensor, "draw *event"]) -> int:
    """Count the different rows among outputs.

    Samplers repeat themselves: a chain that rejects stays where it is, and resampling copies. Copies do no harm in an
    average, but a set of 1000 with 60 distinct outputs is worth no more than 60.

    Args:
        samples: Outputs or their latents, `(draw, *event)`; rows are equal if their values are, and 0 equals -0.

    Returns:
        The number of different rows.

    Raises:
        ValueError: if there is no event dimension, or an entry is not finite.

    Example:
        >>> num_distinct(torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]))
        2
    """
    return len(torch.unique(as_rows(samples, "samples"), dim=0))


def _over_pairs(
    samples: Tensor, function: Callable[[Tensor, Tensor], Tensor], num_pairs: int | None, seed: int
) -> PairMean:
    n = most = len(samples) // 2
    if num_pairs is not None:
        n = count("num_pairs", num_pairs, minimum=2, maximum=most, cure="No sample is in two pairs.")
    order = torch.randperm(len(samples), generator=seeded(seed)).to(samples.device)
    values = function(samples[order[:n]], samples[order[n : 2 * n]]).double()
    return PairMean(float(values.mean()), float(values.std()) / math.sqrt(n), n)
