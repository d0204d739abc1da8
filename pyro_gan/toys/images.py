"""Real handwritten digits, which are part of scikit-learn."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import extra

__all__ = ["Digits", "digits"]


@final
class Digits(NamedTuple):
    """Handwritten digits and what they show."""

    #: Grey levels in [-1, 1], `(draw, 1, 8, 8)`, float32.
    images: Float[Tensor, "draw 1 8 8"]
    #: The digit, 0 to 9, `(draw,)`.
    labels: Int[Tensor, " draw"]


def digits() -> Digits:
    """Return scikit-learn's 1 797 handwritten digits of 8 x 8 pixels; nothing is downloaded.

    Returns:
        Images and labels, in the order of the data set.

    Raises:
        ImportError: without scikit-learn.

    References:
        Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998,
        https://archive.ics.uci.edu/dataset/80

    Example:
        >>> digits().images.shape
        torch.Size([1797, 1, 8, 8])
    """
    with extra("demo"):
        from sklearn.datasets import load_digits
    bunch = load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return Digits(images, torch.as_tensor(bunch.target))
