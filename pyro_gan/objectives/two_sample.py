"""Distances between two samples without a critic: maximum mean discrepancy, and moments of a user's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import function, real, shown, tensor
from pyro_gan.objectives.base import Rows, Scalar, TwoSampleLoss, check_data

__all__ = ["MMD", "GaussianKernel", "MomentMatching", "RationalQuadraticKernel"]

Kernel = Callable[[Float[Tensor, "row column"]], Float[Tensor, "row column"]]


@final
class GaussianKernel:
    r"""A mixture of Gaussian kernels, :math:`k(x, y) = \operatorname{mean}_h \exp(-\|x - y\|^2 / 2 h^2)`.

    Args:
        bandwidths: :math:`h`, in units of the data. A kernel sees differences of about its own bandwidth: start with
            half, one and two times the median distance of the data.

    Raises:
        ValueError: unless all are positive, finite numbers.

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
        squared_distance = tensor("squared_distance", squared_distance)
        parts = [torch.exp(-squared_distance / (2 * h * h)) for h in self.bandwidths]
        return torch.stack(parts).mean(0)


@final
class RationalQuadraticKernel:
    r"""A mixture of rational quadratics, :math:`k = \operatorname{mean}_a (1 + \|x - y\|^2 / 2 a)^{-a}`.

    Each part is a mixture of Gaussian kernels of all bandwidths around 1, so its tails still see distant data. Scale
    the data to unit distances.

    Args:
        shapes: :math:`a`; the smaller, the heavier the tail.

    Raises:
        ValueError: unless all are positive, finite numbers.

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
        squared_distance = tensor("squared_distance", squared_distance)
        parts = [torch.exp(-a * torch.log1p(squared_distance / (2 * a))) for a in self.shapes]
        return torch.stack(parts).mean(0)


@final
class MMD(TwoSampleLoss):
    r"""The squared maximum mean discrepancy, estimated without bias; estimates can be negative.

    .. math:: \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{n m} \sum_{i, j} k(x_i, y_j).

    Each row is compared with every other, so the time grows with the square of the batch. Events are flattened; for
    images set `features`.

    Args:
        kernel: Maps squared distances to similarities, `GaussianKernel` or `RationalQuadraticKernel`.
        features: Maps data `(batch, *event)` to features `(batch, ...)`, between which distances are measured; None
            takes the data.

    References:
        A Kernel Two-Sample Test, A. Gretton et al., 2012, https://www.jmlr.org/papers/v13/gretton12a.html;
        Generative Moment Matching Networks, Y. Li, K. Swersky and R. Zemel, 2015, https://arxiv.org/abs/1502.02761

    Example:
        >>> x = torch.tensor([[0.0], [0.0]])
        >>> MMD(GaussianKernel([1.0]))(x, x + 2.0)
        tensor(1.7293)
    """

    def __init__(self, kernel: Kernel, *, features: Callable[[Tensor], Tensor] | None = None) -> None:
        self.kernel = function("kernel", kernel, cure="For instance GaussianKernel([1.0]).")
        self.features = None if features is None else function("features", features)

    def __repr__(self) -> str:
        features = "" if self.features is None else f", features={self.features!r}"
        return f"MMD({self.kernel!r}{features})"

    def __call__(self, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the unbiased estimate.

        Raises:
            ValueError: if the event shapes differ or a side has fewer than two rows.
        """
        x, y = _features(real_x, generated_x, self.features)
        within = x.new_zeros(())
        for a in (x, y):
            within = within + _mean_off_diagonal(self.kernel(_squared_distances(a, a)))
        return within - 2 * self.kernel(_squared_distances(x, y)).mean()


@final
class MomentMatching(TwoSampleLoss):
    r"""The squared distance :math:`\|E_{data}\, s(x) - E_G\, s(x)\|^2` of the means of a user's features, without bias.

    The squared distance of two batch means is larger, by the features' variances over the batch sizes, and a
    generator could lower it by narrowing its samples. This estimate leaves out the products of a row with itself: it is
    the maximum mean discrepancy with kernel :math:`s(x) \cdot s(y)`, zero on average where the means agree, and
    sometimes negative.

    Args:
        features: :math:`s`, `(batch, *event)` to `(batch, ...)`, for instance `lambda x: torch.cat([x, x**2], -1)`.
            Scale the features alike: the largest one dominates.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> MomentMatching(torch.square)(x, 2 * x)
        tensor(9.)
    """

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        self.features = function("features", features)

    def __repr__(self) -> str:
        return f"MomentMatching({self.features!r})"

    def __call__(self, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the unbiased estimate.

        Raises:
            ValueError: if the event shapes differ or a side has fewer than two rows.
        """
        x, y = _features(real_x, generated_x, self.features)
        means = [a.mean(0) for a in (x, y)]
        spreads = [(a - a.mean(0)).square().sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
        return (means[0] - means[1]).square().sum() - spreads[0] - spreads[1]


def _features(real_x: Tensor, generated_x: Tensor, features: Callable[[Tensor], Tensor] | None) -> list[Tensor]:
    """Return the features of both sides as rows of numbers, or raise."""
    check_data(minimum=2, real=real_x, generated=generated_x)
    pair = []
    for x in (real_x, generated_x):
        rows = x if features is None else tensor("features", features(x))
        if rows.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"Expected features of shape ({len(x)}, ...) for data of shape {tuple(x.shape)}; got "
                f"{tuple(rows.shape)}. Compute them row by row."
            )
        pair.append(rows.reshape(len(x), -1))
    return pair


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    # Relative to a common centre, where the squares that cancel are small; the value does not depend on the centre.
    centre = x.detach().mean(0)
    x, y = x - centre, y - centre
    squares = x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T
    return squares.clamp(min=0)


def _mean_off_diagonal(similarity: Tensor) -> Tensor:
    n = len(similarity)
    return (similarity.sum() - similarity.diagonal().sum()) / (n * (n - 1))


def _positive(values: Any, name: str) -> tuple[float, ...]:
    cure = "For instance [0.5, 1.0, 2.0]."
    try:
        numbers = () if isinstance(values, str) else tuple(values)
    except TypeError:
        numbers = ()
    if not numbers:
        raise ValueError(f"Expected {name} as a list of positive numbers; got {shown(values)}. {cure}")
    return tuple(real(f"number in {name}", value, above=0, cure=cure) for value in numbers)
