"""Features of samples, by any network of the user's, in passes that fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import by_chunk, check_eval
from pyro_gan.evaluate._rows import as_rows

__all__ = ["extract_features"]


def extract_features(
    samples: Float[Tensor, "draw *event"],
    network: Callable[[Tensor], Tensor],
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "draw feature"]:
    """Apply a network to samples in passes, without gradient, and check what comes out.

    Every distance and test of this package takes features where it takes samples. An Inception network makes
    `frechet_distance` of them the FID; any other makes it a distance that compares only with itself.

    Args:
        samples: What is judged, as the network expects it, `(draw, *event)`.
        network: Maps `(batch, *event)` to `(batch, *feature)`, row by row: a module in evaluation mode or any other
            callable, such as a classifier without its last layer, or a function that scales the images first.
        chunk_size: Rows of one pass; what suits the samples' device if None.

    Returns:
        Features, flattened to rows, where and in the dtype that the network left them.

    Raises:
        ValueError: if there is no sample, the network is in training mode, it returns another number of rows, or a
            row of features holds NaN or infinity.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.ReLU()).eval()
        >>> extract_features(torch.randn(100, 1, 8, 8), network).shape
        torch.Size([100, 5])
    """
    if samples.dim() < 1 or not len(samples):
        raise ValueError(
            f"Expected samples of shape (draw, *event), at least one; got {tuple(samples.shape)}."
        )
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"Expected chunk_size of at least 1; got {chunk_size}.")
    check_eval(network, "network")

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
