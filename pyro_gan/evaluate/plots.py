"""Pictures of samples, scores and trade-offs; every function draws on one Axes and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_frontier",
    "plot_images",
    "plot_points",
    "plot_reliability",
    "plot_scores",
]

_DATA, _OUTPUTS, _GUIDE = "0.6", "C0", "0.8"


def plot_images(
    images: Float[Tensor, "draw *channel height width"],
    *,
    ax: Axes | None = None,
    num_columns: int = 10,
    value_range: tuple[float, float] = (-1.0, 1.0),
    title: str | None = None,
) -> Axes:
    """Show images in one grid, row by row.

    Args:
        images: Grey `(draw, height, width)` or `(draw, 1, height, width)`, or colour `(draw, 3, height, width)`.
        ax: Where to draw; a new figure if None.
        num_columns: Images in a row.
        value_range: Values shown as black and as white; what lies outside is clipped.
        title: Over the grid.

    Returns:
        The Axes.

    Raises:
        ValueError: if the shape is not one of the three, or there is no image.

    Example:
        >>> ax = plot_images(torch.rand(12, 1, 8, 8), num_columns=6)
    """
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images) or num_columns < 1:
        raise ValueError(
            f"Expected images (draw, height, width) or (draw, 1 or 3, height, width), and num_columns above 0; got "
            f"{tuple(images.shape)} and {num_columns}. Unflatten rows of pixels first."
        )
    low, high = value_range
    shade = ((images.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    count, channels, height, width = shade.shape
    num_columns = min(num_columns, count)
    num_rows = -(-count // num_columns)
    # One pixel of white between neighbours.
    canvas = shade.new_ones(num_rows * (height + 1) - 1, num_columns * (width + 1) - 1, channels)
    for index, image in enumerate(shade):
        top, left = (index // num_columns) * (height + 1), (index % num_columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    ax = _axes(ax)
    picture = canvas.expand(-1, -1, 3) if channels == 1 else canvas
    ax.imshow(picture.numpy(), interpolation="nearest")
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title)
    return ax


def plot_points(
    samples: Float[Tensor, "draw 2"],
    data: Float[Tensor, "draw2 2"] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Scatter samples of the plane over data.

    Args:
        samples: `(draw, 2)`.
        data: Drawn beneath, in grey, `(draw2, 2)`.
        ax: Where to draw; a new figure if None.
        title: Over the picture.

    Returns:
        The Axes, with equal scales on both axes.

    Raises:
        ValueError: if points are not in the plane.

    Example:
        >>> ax = plot_points(torch.randn(100, 2), torch.randn(100, 2))
    """
    for name, points in (("samples", samples), ("data", data)):
        if points is not None and (points.dim() != 2 or points.shape[1] != 2):
            raise ValueError(f"Expected {name} of shape (draw, 2); got {tuple(points.shape)}.")
    ax = _axes(ax)
    if data is not None:
        ax.scatter(*_columns(data), s=4, color=_DATA, linewidths=0, label="data")
    ax.scatter(*_columns(samples), s=4, color=_OUTPUTS, alpha=0.5, linewidths=0, label="samples")
    ax.set_aspect("equal")
    ax.legend(loc="upper right")
    if title is not None:
        ax.set_title(title)
    return ax


def plot_reliability(
    table: tuple[Float[Tensor, " bin"], Float[Tensor, " bin"], Int[Tensor, " bin"]],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Plot the observed share of real data against the predicted one, with two binomial standard errors.

    Args:
        table: Of every bin the mean predicted probability, the share observed and the number of rows, as the
            report of a calibration gives them (`report.reliability`); empty bins are left out.
        ax: Where to draw, so that several critics share a picture; a new figure if None.
        label: Of the curve.

    Returns:
        The Axes; a calibrated critic follows the diagonal.

    Raises:
        ValueError: if the three columns differ in shape or every bin is empty.

    Example:
        >>> ax = plot_reliability((torch.tensor([0.2, 0.7]), torch.tensor([0.25, 0.65]), torch.tensor([80, 90])))
    """
    predicted, observed, count = (column.detach().cpu().double() for column in table)
    if not predicted.shape == observed.shape == count.shape or not bool((count > 0).any()):
        raise ValueError(
            f"Expected predicted, observed and number of one shape (bin,) with a point in some bin; got "
            f"{tuple(predicted.shape)}, {tuple(observed.shape)}, {tuple(count.shape)}."
        )
    full = count > 0
    predicted, observed, count = predicted[full], observed[full], count[full]
    error = 2 * (observed * (1 - observed) / count).sqrt()
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], color=_GUIDE, zorder=0)
    ax.errorbar(
        predicted.numpy(), observed.numpy(), yerr=error.numpy(), marker="o", markersize=4, label=label
    )
    ax.set(xlabel="predicted share of real", ylabel="observed share of real", xlim=(0, 1), ylim=(0, 1))
    if label is not None:
        ax.legend(loc="upper left")
    return ax


def plot_scores(
    log_ratios: Mapping[str, Float[Tensor, " draw"]], *, ax: Axes | None = None, num_bins: int = 60
) -> Axes:
    """Plot histograms of the log ratio of several sets over common bins.

    A sampler that does its work gives outputs the score distribution of held-out real data.

    Args:
        log_ratios: Scores by name, such as `{"held-out real": ..., "generator": ..., "outputs": ...}`.
        ax: Where to draw; a new figure if None.
        num_bins: Over the range of all sets.

    Returns:
        The Axes.

    Raises:
        ValueError: if there is no set, or a set is empty or not finite.

    Example:
        >>> ax = plot_scores({"real": torch.randn(100) + 1, "generator": torch.randn(100)})
    """
    if not log_ratios:
        raise ValueError("Expected at least one set of log ratios; got none.")
    sets = {name: values.detach().flatten().cpu().double() for name, values in log_ratios.items()}
    for name, values in sets.items():
        if not len(values) or not bool(values.isfinite().all()):
            raise ValueError(
                f"Expected finite log ratios in {name!r}, at least one; got {len(values)}, of which "
                f"{int((~values.isfinite()).sum())} not finite. A saturated critic needs its logit."
            )
    ax = _axes(ax)
    joined = torch.cat(list(sets.values()))
    low, high = float(joined.min()), float(joined.max())
    # All scores equal: a bin needs a width.
    pad = 0.5 if low == high else 0.0
    edges = torch.linspace(low - pad, high + pad, num_bins + 1, dtype=torch.float64)
    for name, values in sets.items():
        ax.hist(values.numpy(), bins=edges.tolist(), density=True, histtype="step", label=name)
    ax.set(xlabel="log ratio (nats)", ylabel="density")
    ax.legend()
    return ax


def plot_frontier(
    ess_fractions: Sequence[float],
    qualities: Sequence[float],
    *,
    ax: Axes | None = None,
    label: str | None = None,
    ylabel: str = "held-out log loss (nats)",
) -> Axes:
    """Plot what a ratio gains in quality against the overlap that it costs, in the order it was trained.

    Args:
        ess_fractions: Overlap of each ratio, in (0, 1].
        qualities: Its held-out log loss, or the score of its samples.
        ax: Where to draw; a new figure if None.
        label: Of the curve.
        ylabel: What `qualities` are.

    Returns:
        The Axes; overlap is on a logarithmic scale.

    Raises:
        ValueError: if lengths differ or are 0, or an ESS fraction is outside (0, 1].

    Example:
        >>> ax = plot_frontier([0.5, 0.2, 0.02], [0.60, 0.47, 0.39])
    """
    if not ess_fractions or len(ess_fractions) != len(qualities):
        raise ValueError(
            f"Expected as many ESS fractions as qualities, at least one; got {len(ess_fractions)} and "
            f"{len(qualities)}."
        )
    # Rounding may put equal weights a hair above 1.
    if not all(0 < fraction <= 1 + 1e-6 for fraction in ess_fractions):
        raise ValueError(f"Expected ESS fractions in (0, 1]; got {list(ess_fractions)}.")
    ax = _axes(ax)
    from matplotlib.ticker import LogLocator

    ax.plot(list(ess_fractions), list(qualities), marker="o", markersize=4, label=label)
    ax.set(xscale="log", xlabel="ESS fraction", ylabel=ylabel)
    # Matplotlib labels every minor tick of a range this short, one over the other.
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    if label is not None:
        ax.legend()
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        error.add_note("pip install pyro-gan[plot]")
        raise
    return plt.subplots()[1]


def _columns(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    first, second = points.detach().cpu().numpy().T
    return first, second
