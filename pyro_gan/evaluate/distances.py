"""The Frechet distance between the Gaussians that two sets of features would fit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.evaluate._rows import as_rows

__all__ = ["frechet_distance"]


def frechet_distance(
    features_a: Float[Tensor, "draw_a feature"], features_b: Float[Tensor, "draw_b feature"]
) -> float:
    r"""Return the squared Wasserstein-2 distance between Gaussians fitted to two sets of features.

    .. math:: d = \lVert m_a - m_b \rVert^2 + \operatorname{tr}\bigl( C_a + C_b
        - 2\, (C_a^{1/2} C_b C_a^{1/2})^{1/2} \bigr)

    With Inception features it is the FID; with any others it compares only with itself (`extract_features` makes
    features of images). It is biased upwards, by an amount that falls as 1 / n: compare sets of equal size. All in
    float64; the root of the product is taken from the eigenvalues of its symmetric form, so no complex number arises.

    Args:
        features_a: `(draw_a, feature)`; further dimensions are flattened.
        features_b: `(draw_b, feature)`.

    Returns:
        The distance, 0 or above, in the features' squared units.

    Raises:
        ValueError: if shapes disagree, a set has no more rows than features, or an entry is not finite.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, M. Heusel, H. Ramsauer,
        T. Unterthiner, B. Nessler and S. Hochreiter, 2017, https://arxiv.org/abs/1706.08500

    Example:
        >>> x = torch.randn(500, 3)
        >>> round(frechet_distance(x, x + 2.0), 6)
        12.0
    """
    mean_a, covariance_a = _moments(features_a, "features_a")
    mean_b, covariance_b = _moments(features_b, "features_b")
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"Expected as many features in both sets; got {len(mean_a)} and {len(mean_b)}.")
    mean_b, covariance_b = mean_b.to(mean_a.device), covariance_b.to(mean_a.device)
    values, vectors = torch.linalg.eigh(covariance_a)
    # Rounding can leave a null direction a hair below 0.
    root_a = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = torch.linalg.eigvalsh(root_a @ covariance_b @ root_a)
    trace = covariance_a.trace() + covariance_b.trace() - 2 * product.clamp(min=0).sqrt().sum()
    return max(float((mean_a - mean_b).square().sum() + trace), 0.0)


def _moments(features: Tensor, name: str) -> tuple[Tensor, Tensor]:
    rows = as_rows(features, name).double()
    num_draws, num_features = rows.shape
    if num_draws <= num_features:
        raise ValueError(
            f"Expected more rows than features in {name}, or its covariance is singular; got {num_draws} rows of "
            f"{num_features}. Pass more samples or fewer features."
        )
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / (num_draws - 1)
