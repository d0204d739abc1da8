"""Features to compare samples by where the user names none: random projections, and shares of clusters of the data."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import count, extra, random_seed, rows

__all__ = ["RandomFeatures"]

#: More rows say little more about 20 clusters.
MAX_CLUSTERED = 10_000
#: Lower end and upper end of the rows whose spread is the unit, and the middle.
ENDS, MIDDLE = (0.01, 0.99), 0.5
#: A number farther from the middle counts as one that is so many units away: one row decides no mean.
MAX_UNITS = 10.0
#: A smaller spread, relative to the numbers, is the rounding of float32.
ROUNDING = 1e-6


@final
class RandomFeatures:
    r"""Features that describe any data roughly: random projections of a row, and the cluster that it belongs to.

    The means of these features are the mean of the data along random directions, and the share of the rows in each
    cluster. They are fixed by the real rows and a seed, before any generated row is seen. They notice a class that is
    missing or too frequent and a mean that is off. Features of a trained network notice more.

    Each column of a table `(real, column)` has its own unit, so that a column of ages is seen beside one of incomes.
    The numbers of rows with more dimensions, such as pixels, share one unit. It is the standard deviation of the middle
    98 per cent of the rows, and numbers end at 10 units from the median, so that a few rows far out blind nothing.

    Args:
        real: Real rows, `(real, *event)`; those that judge the samples may be the same, a log ratio's may not.
        num_projections: Number of directions, of unit length; at most the numbers in a row, which span all directions.
        num_clusters: Number of k-means clusters, at most the number of rows; fewer are made if fewer rows differ.
        seed: Of the directions and the clusters.

    Raises:
        ValueError: if a row is not finite, all rows are equal, there are fewer rows than clusters, or a number is no
            count.
        ImportError: without scikit-learn.

    Example:
        >>> features = RandomFeatures(torch.randn(1000, 1, 8, 8), num_projections=64, num_clusters=20)
        >>> features(torch.randn(5, 1, 8, 8)).shape
        torch.Size([5, 84])
    """

    def __init__(
        self, real: Float[Tensor, "real *event"], *, num_projections: int = 64, num_clusters: int = 20, seed: int = 0
    ) -> None:
        with extra("evaluate"):
            from sklearn.cluster import KMeans
        num_clusters = count("num_clusters", num_clusters)
        num_projections = count("num_projections", num_projections)
        seed = random_seed(seed)
        rows("real data", real, minimum=num_clusters, cure="Scale whole numbers to floats first.")
        self.event_shape = tuple(real.shape[1:])
        table = _table(real)
        if bool((table == table[0]).all()):
            raise ValueError(f"Expected real data that vary; got {len(real)} equal rows. Give other rows.")
        generator = torch.Generator().manual_seed(seed)
        num_projections = min(num_projections, table.shape[1])
        directions = torch.randn(table.shape[1], num_projections, generator=generator, dtype=torch.float64)
        self.directions = directions / directions.norm(dim=0)
        chosen = table[torch.randperm(len(table), generator=generator)[:MAX_CLUSTERED]]
        self.middle, self.unit = _units(chosen, is_table=real.dim() <= 2)
        chosen = self._in_units(chosen)
        # Rows that differ have different projections.
        num_different = len((chosen @ self.directions[:, 0]).unique())
        found = KMeans(min(num_clusters, num_different), n_init=3, random_state=seed).fit(chosen.numpy())
        self.centres = torch.from_numpy(found.cluster_centers_)
        # In the units of their spread over the real rows no column outweighs the others.
        self.scale = torch.ones(num_projections + len(self.centres), dtype=torch.float64)
        spread = self(real).std(0)
        self.scale = torch.where(spread > 1e-6 * spread.max(), spread, spread.max())

    def __call__(self, x: Float[Tensor, "row *event"]) -> Float[Tensor, "row feature"]:
        """Return the features, in float64 on the CPU, each of standard deviation 1 over the real rows.

        Projections come first, then for each cluster a column that has one value in the cluster and 0 outside.

        Raises:
            ValueError: if the rows have another event shape or are not finite.
        """
        rows("data", x, event_shape=self.event_shape)
        table = self._in_units(_table(x))
        cluster = torch.cdist(table, self.centres).argmin(1)
        shares = torch.nn.functional.one_hot(cluster, len(self.centres)).double()
        return torch.cat([table @ self.directions, shares], dim=1) / self.scale

    def _in_units(self, table: Tensor) -> Tensor:
        return ((table - self.middle) / self.unit).clamp(-MAX_UNITS, MAX_UNITS)


def _table(x: Tensor) -> Tensor:
    return x.detach().reshape(len(x), -1).to("cpu", torch.float64)


def _units(table: Tensor, *, is_table: bool) -> tuple[Tensor, Tensor]:
    """Return the median and the unit of every column; one unit for all, the largest, if it is no table."""
    levels = (ENDS[0], MIDDLE, ENDS[1])
    low, middle, high = torch.from_numpy(np.quantile(table.numpy(), levels, axis=0, method="nearest"))
    inner, whole = table.clamp(low, high).std(0, correction=0), table.std(0, correction=0)
    varies = inner > ROUNDING * torch.maximum(low.abs(), high.abs())
    largest = inner.max() if bool(varies.any()) else whole.max()
    # What is rarely lit varies in few rows alone, and what is constant has no unit of its own.
    rarely = whole > ROUNDING * table.abs().amax(0)
    own = torch.where(varies, inner, torch.where(rarely, whole, largest))
    return middle, own if is_table else largest.expand(len(own))
