"""Distances between two samples that need no critic: maximum mean discrepancy, and moments of a user's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives.base import TwoSampleLoss

__all__ = ["MMD", "GaussianKernel", "MomentMatching", "RationalQuadraticKernel"]

Kernel = Callable[[Float[Tensor, "row column"]], Float[Tensor, "row column"]]


@final
class GaussianKernel:
    r"""A mixture of Gaussian kernels, :math:`k(x, y) = \operatorname{mean}_h \exp(-\|x - y\|^2 / 2 h^2)`.

    Args:
        bandwidths: :math:`h`, in units of the data. A kernel sees differences of about its own bandwidth: half, one
            and two times the median distance of the data is a start.

    Raises:
        ValueError: unless all are positive.

    Example:
        >>> GaussianKernel([1.0, 2.0])(torch.tensor([[0.0, 4.0]]))
        tensor([[1.0000, 0.3709]])
    """

    def __init__(self, bandwidths: Sequence[float]) -> None:
        self.bandwidths = _positive(bandwidths, "bandwidths")

    def __repr__(self) -> str:
        return f"GaussianKernel({list(self.bandwidths)})"

    def __call__(self, squared_distance: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
        """Return the kernel at these squared distances."""
        parts = [torch.exp(-squared_distance / (2 * h * h)) for h in self.bandwidths]
        return torch.stack(parts).mean(0)


@final
class RationalQuadraticKernel:
    r"""A mixture of rational quadratics, :math:`k = \operatorname{mean}_a (1 + \|x - y\|^2 / 2 a)^{-a}`.

    Each is a mixture of Gaussian kernels of all bandwidths around 1, so its tails still see data far away. Scale the
    data to unit distances.

    Args:
        shapes: :math:`a`; the smaller, the heavier the tail.

    Raises:
        ValueError: unless all are positive.

    References:
        Demystifying MMD GANs, M. Binkowski et al., 2018, https://arxiv.org/abs/1801.01401

    Example:
        >>> RationalQuadraticKernel([0.5, 1.0])(torch.tensor([[0.0, 8.0]]))
        tensor([[1.0000, 0.2667]])
    """

    def __init__(self, shapes: Sequence[float]) -> None:
        self.shapes = _positive(shapes, "shapes")

    def __repr__(self) -> str:
        return f"RationalQuadraticKernel({list(self.shapes)})"

    def __call__(self, squared_distance: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
        """Return the kernel at these squared distances."""
        parts = [torch.exp(-a * torch.log1p(squared_distance / (2 * a))) for a in self.shapes]
        return torch.stack(parts).mean(0)


@final
class MMD(TwoSampleLoss):
    r"""The squared maximum mean discrepancy, estimated without bias: negative values are part of it.

    .. math:: \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{n m} \sum_{i, j} k(x_i, y_j).

    A row meets every other, so its cost grows with the square of the batch. Events are flattened; for images put
    `features` in front.

    Args:
        kernel: Maps squared distances to similarities, `GaussianKernel` or `RationalQuadraticKernel`.
        features: Maps data `(batch, *event)` to what distances are taken of, `(batch, ...)`; None is the data.

    References:
        A Kernel Two-Sample Test, A. Gretton et al., 2012, https://www.jmlr.org/papers/v13/gretton12a.html;
        Generative Moment Matching Networks, Y. Li, K. Swersky and R. Zemel, 2015, https://arxiv.org/abs/1502.02761

    Example:
        >>> x = torch.tensor([[0.0], [0.0]])
        >>> MMD(GaussianKernel([1.0]))(x, x + 2.0)
        tensor(1.7293)
    """

    def __init__(self, kernel: Kernel, *, features: Callable[[Tensor], Tensor] | None = None) -> None:
        self.kernel = kernel
        self.features = features

    def __repr__(self) -> str:
        return (
            f"MMD({self.kernel!r}" + ("" if self.features is None else f", features={self.features!r}") + ")"
        )

    def __call__(
        self, real_x: Float[Tensor, "batch *event"], generated_x: Float[Tensor, "batch2 *event"]
    ) -> Float[Tensor, ""]:
        """Return the unbiased estimate.

        Raises:
            ValueError: if the event shapes differ or a side has fewer than two rows.
        """
        x, y = _rows(real_x, generated_x, self.features)
        within = sum(
            (_mean_off_diagonal(self.kernel(_squared_distances(a, a))) for a in (x, y)), x.new_zeros(())
        )
        return within - 2 * self.kernel(_squared_distances(x, y)).mean()


@final
class MomentMatching(TwoSampleLoss):
    r"""The squared distance :math:`\|E_{data}\, s(x) - E_G\, s(x)\|^2` of the means of a user's features, without bias.

    The squared distance of two batch means is larger, by the features' variances over the batch sizes, and a
    generator could lower it by narrowing its samples. Here products of a row with itself are left out, which is the
    maximum mean discrepancy with kernel :math:`s(x) \cdot s(y)`: zero on average where the means agree, negative now
    and then.

    Args:
        features: :math:`s`, `(batch, *event)` to `(batch, ...)`, for instance `lambda x: torch.cat([x, x**2], -1)`.
            Scale the features alike: the largest rules.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> MomentMatching(torch.square)(x, 2 * x)
        tensor(9.)
    """

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        self.features = features

    def __repr__(self) -> str:
        return f"MomentMatching({self.features!r})"

    def __call__(
        self, real_x: Float[Tensor, "batch *event"], generated_x: Float[Tensor, "batch2 *event"]
    ) -> Float[Tensor, ""]:
        """Return the unbiased estimate.

        Raises:
            ValueError: if the event shapes differ or a side has fewer than two rows.
        """
        x, y = _rows(real_x, generated_x, self.features)
        means = [a.mean(0) for a in (x, y)]
        spreads = [(a - a.mean(0)).square().sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
        return (means[0] - means[1]).square().sum() - spreads[0] - spreads[1]


def _rows(
    real_x: Tensor, generated_x: Tensor, features: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return features as rows of numbers, or raise."""
    for x, whose in ((real_x, "real"), (generated_x, "generated")):
        if x.dim() < 1 or len(x) < 2:
            raise ValueError(
                f"Expected at least two rows of {whose} data, (batch, *event); got shape {tuple(x.shape)}. "
                "A row is compared with the others of its side."
            )
    if real_x.shape[1:] != generated_x.shape[1:]:
        raise ValueError(
            f"Expected real and generated data of one event shape; got {tuple(real_x.shape[1:])} and "
            f"{tuple(generated_x.shape[1:])}. Reshape one of them."
        )
    pair = []
    for x in (real_x, generated_x):
        rows = x if features is None else features(x)
        if rows.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"Expected features of shape ({len(x)}, ...) for data of shape {tuple(x.shape)}; got "
                f"{tuple(rows.shape)}. Compute them row by row."
            )
        pair.append(rows.reshape(len(x), -1))
    return pair[0], pair[1]


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    # About a common centre, where the squares that cancel are small; its place does not matter to the value.
    centre = x.detach().mean(0)
    x, y = x - centre, y - centre
    squares = x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T
    return squares.clamp(min=0)


def _mean_off_diagonal(similarity: Tensor) -> Tensor:
    n = len(similarity)
    return (similarity.sum() - similarity.diagonal().sum()) / (n * (n - 1))


def _positive(values: Sequence[float], name: str) -> tuple[float, ...]:
    values = tuple(float(value) for value in values)
    if not values or not all(0 < value < float("inf") for value in values):
        raise ValueError(f"Expected {name} that are positive numbers, at least one; got {list(values)}.")
    return values
