"""Witnesses of the judges that look at means: Frechet distance, kernel distance, and the balance of classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_gan.evaluate._contrast import Witness, real_variance
from pyro_gan.evaluate._gaussian import Moments, distance, group_sums, moments, root
from pyro_gan.evaluate._sides import Sides

__all__ = ["balance_witness", "frechet_witness", "kernel_witness"]

# Nodes and weights of Gauss's rule on (0, 1): the mean slope between two covariances.
_NODES = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))
# Where one side has nearly no spread the slope of a root is unbounded; it ends here, relative to the largest spread.
_SMALLEST = 1e-4
_CHUNK = 1000


def frechet_witness(x: Tensor, real: Tensor, sides: Sides) -> Witness:
    """Return the witness of the Frechet distance: a quadratic function, by the optimal transport to the real rows."""
    target = _moments(real)
    root_real, of_real = root(target.covariance), []
    rows = torch.zeros(len(x), dtype=torch.float64)
    for fold in (0, 1):
        a, b = (_moments(x[sides.of(side, 1 - fold)]) for side in (1, 0))
        mean_slope = a.mean + b.mean - 2 * target.mean
        slope = torch.eye(x.shape[1], dtype=torch.float64)
        for place, weight in _NODES:
            slope -= weight * _transport(root_real, b.covariance + place * (a.covariance - b.covariance))
        own = torch.from_numpy(sides.fold == fold)
        # From the middle of the two means, the second moments differ exactly as the covariances do.
        centred = x[own] - (a.mean + b.mean) / 2
        rows[own] = centred @ mean_slope + ((centred @ slope) * centred).sum(1)
        centred = real - target.mean
        turn = _transport(root(b.covariance), target.covariance) - _transport(root(a.covariance), target.covariance)
        of_real.append(2 * centred @ (b.mean - a.mean) + ((centred @ turn) * centred).sum(1))
    target = _unbiased(target, len(real))
    root_real = root(target.covariance)
    figures = []
    for side in (False, True):
        found = _unbiased(_moments(x[torch.from_numpy(sides.is_after == side)]), len(x) // 2)
        figures.append(distance(found, target, root_real))
    return Witness(figures[0], figures[1], rows.numpy(), real_variance(of_real[0].numpy(), of_real[1].numpy()))


def kernel_witness(x: Tensor, real: Tensor, sides: Sides) -> Witness:
    """Return the witness of the squared MMD with the cubic polynomial kernel (KID), from pairs in different folds."""
    num_features = x.shape[1]
    parts = [[x[sides.of(side, fold)] for fold in (0, 1)] for side in (0, 1)]
    rows = torch.zeros(len(x), dtype=torch.float64)
    to_real = torch.zeros(len(x), dtype=torch.float64)
    within = [0.0, 0.0]
    of_real = torch.zeros(2, len(real), dtype=torch.float64)
    for fold in (0, 1):
        for side in (0, 1):
            own = torch.from_numpy(sides.of(side, fold))
            similar = [_mean_kernel(x[own], parts[other][1 - fold], num_features) for other in (0, 1)]
            mean, columns = _mean_kernel_both(x[own], real, num_features)
            rows[own] = similar[0] + similar[1] - 2 * mean
            to_real[own] = mean
            within[side] += float(similar[side].mean()) / 2
            of_real[fold] += (1 - 2 * side) * columns
    real_to_real = _mean_kernel(real, real, num_features).sum() * len(real)
    own_kernel = ((real * real).sum(1) / num_features + 1).pow(3).sum()
    constant = float((real_to_real - own_kernel) / (len(real) * (len(real) - 1)))
    figures = []
    for side in (0, 1):
        across = sum(float(to_real[torch.from_numpy(sides.of(side, fold))].mean()) for fold in (0, 1))
        figures.append(within[side] + constant - across)
    return Witness(figures[0], figures[1], rows.numpy(), real_variance(of_real[0].numpy(), of_real[1].numpy()))


def balance_witness(classes: np.ndarray, real_classes: np.ndarray, sides: Sides) -> Witness:
    """Return the witness of the total variation distance between the shares of classes; classes count from 0."""
    num_classes = int(max(classes.max(), real_classes.max())) + 1
    r = _shares(real_classes, num_classes)
    rows, of_real = np.zeros(len(classes)), []
    for fold in (0, 1):
        b, a = (_shares(classes[sides.of(side, 1 - fold)], num_classes) for side in (0, 1))
        gap = np.where(a == b, 1.0, a - b)
        # The mean slope of |share - r| between two shares; where they are equal, the slope there.
        slope = np.where(a == b, np.sign(a - r), (np.abs(a - r) - np.abs(b - r)) / gap)
        own = sides.fold == fold
        rows[own] = slope[classes[own]] / 2
        of_real.append((np.sign(r - a) - np.sign(r - b))[real_classes] / 2)
    b, a = (_shares(classes[sides.is_after == bool(side)], num_classes) for side in (0, 1))
    before, after = (float(np.abs(side - r).sum() / 2) for side in (b, a))
    return Witness(before, after, rows, real_variance(*of_real))


def _moments(rows: Tensor) -> Moments:
    return moments(group_sums(rows, torch.ones(len(rows), dtype=torch.float64), 1)[0], rows.shape[1])


def _unbiased(found: Moments, num_rows: int) -> Moments:
    return Moments(found.mean, found.covariance * (num_rows / (num_rows - 1)))


def _transport(root_to: Tensor, covariance: Tensor) -> Tensor:
    """Return the matrix that transports the Gaussian of a covariance to one whose covariance has this root."""
    values, vectors = torch.linalg.eigh(root_to @ covariance @ root_to)
    side = root_to @ vectors
    return (side / values.clamp(min=max(float(values[-1]) * _SMALLEST, 1e-300)).sqrt()) @ side.T


def _kernel(x: Tensor, y: Tensor, num_features: int) -> Tensor:
    similarity = torch.addmm(torch.ones((), dtype=x.dtype), x, y.T, alpha=1 / num_features)
    return similarity.square().mul_(similarity)


def _mean_kernel(x: Tensor, y: Tensor, num_features: int) -> Tensor:
    return torch.cat([_kernel(part, y, num_features).mean(1) for part in x.split(_CHUNK)])


def _mean_kernel_both(x: Tensor, y: Tensor, num_features: int) -> tuple[Tensor, Tensor]:
    """Return the mean kernel of each row of x, and that of each row of y."""
    means, columns = [], torch.zeros(len(y), dtype=y.dtype)
    for part in x.split(_CHUNK):
        similarity = _kernel(part, y, num_features)
        means.append(similarity.mean(1))
        columns += similarity.sum(0) / len(x)
    return torch.cat(means), columns


def _shares(classes: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(classes, minlength=num_classes) / len(classes)
