"""Features of samples by a user's network, in passes that fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import by_chunk, check_eval
from pyro_gan.checks import count, function, tensor
from pyro_gan.evaluate._rows import as_rows

__all__ = ["extract_features"]


def extract_features(
    samples: Float[Tensor, "draw *event"], network: Callable[[Tensor], Tensor], *, chunk_size: int | None = None
) -> Float[Tensor, "draw feature"]:
    """Apply a network to samples in passes, without gradient, and check what comes out.

    Every metric here takes features where it takes samples. With the features of an Inception network
    `frechet_distance` is the FID; with other features it is a distance that compares only with itself.

    Args:
        samples: The samples to judge, as the network expects them, `(draw, *event)`.
        network: Maps `(batch, *event)` to `(batch, *feature)`, row by row: a module in evaluation mode or any other
            callable, such as a classifier without its last layer, or a function that scales the images first.
        chunk_size: Rows of one pass; if None, the number that suits the samples' device.

    Returns:
        Features, flattened to rows, on the device and in the dtype of the network's output.

    Raises:
        ValueError: if there is no sample, the network is in training mode, it returns another number of rows, or a
            row of features holds NaN or infinity.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.ReLU()).eval()
        >>> extract_features(torch.randn(100, 1, 8, 8), network).shape
        torch.Size([100, 5])
    """
    if tensor("samples", samples).dim() < 1 or not len(samples):
        raise ValueError(f"Expected samples of shape (draw, *event), at least one; got {tuple(samples.shape)}.")
    if chunk_size is not None:
        count("chunk_size", chunk_size)
    check_eval(function("network", network), "network")

    def checked(rows: Tensor) -> Tensor:
        features = network(rows)
        if not isinstance(features, Tensor) or features.dim() < 1 or len(features) != len(rows):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"Expected features of shape ({len(rows)}, *feature) for {len(rows)} samples; got {got}. Wrap the "
                "network in a function that picks its features."
            )
        return features.reshape(len(rows), -1)

    with torch.no_grad():
        return as_rows(by_chunk(checked, samples, chunk_size), "features")
