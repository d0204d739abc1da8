"""The Frechet distance between Gaussians, from sums over groups of rows; covariances may be singular."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Moments", "distance", "group_sums", "moments", "root"]


@final
class Moments(NamedTuple):
    """Mean and covariance of features, in float64."""

    #: The mean, `(feature,)`.
    mean: Float[Tensor, " feature"]
    #: The covariance, `(feature, feature)`.
    covariance: Float[Tensor, "feature feature"]


def group_sums(
    rows: Float[Tensor, "row feature"], weights: Float[Tensor, " row"], num_groups: int
) -> Float[Tensor, "group sum"]:
    """Return, for each group of rows that lie side by side, the sums of weights, weighted rows and weighted products.

    Such sums add up: those of a resampled set of groups are a product of counts with this table, and no row is read
    again.

    Args:
        rows: In float64, near 0: centred.
        weights: One weight a row.
        num_groups: Number of groups, of as many rows each, up to one.
    """
    num_rows, num_features = rows.shape
    length = -(-num_rows // num_groups)
    missing = num_groups * length - num_rows
    # Rows of weight 0 fill the groups up; they are dealt like the others, so that no group is left empty.
    order = torch.arange(num_groups * length).view(length, num_groups).T.reshape(-1)
    padded = torch.cat([rows, rows.new_zeros(missing, num_features)])[order].view(num_groups, length, num_features)
    weight = torch.cat([weights, weights.new_zeros(missing)])[order].view(num_groups, length, 1)
    weighted = weight * padded
    products = weighted.transpose(1, 2) @ padded
    return torch.cat([weight.sum(1), weighted.sum(1), products.flatten(1)], dim=1)


def moments(sums: Float[Tensor, " sum"], num_features: int) -> Moments:
    """Return the weighted mean and covariance, divided by the sum of the weights, from sums over rows."""
    mean = sums[1 : 1 + num_features] / sums[0]
    products = sums[1 + num_features :].view(num_features, num_features) / sums[0]
    return Moments(mean, products - torch.outer(mean, mean))


def root(covariance: Float[Tensor, "feature feature"]) -> Float[Tensor, "feature feature"]:
    """Return the symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding can leave a null direction a hair below 0.
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def distance(a: Moments, b: Moments, root_b: Float[Tensor, "feature feature"]) -> float:
    """Return the squared Wasserstein-2 distance of two Gaussians, given the root of the second covariance.

    The root of the product comes from the eigenvalues of its symmetric form, so no complex number arises.
    """
    product = torch.linalg.eigvalsh(root_b @ a.covariance @ root_b)
    trace = a.covariance.trace() + b.covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
    return max(float((a.mean - b.mean).square().sum() + trace), 0.0)
