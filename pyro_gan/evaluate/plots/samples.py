"""Pictures of the samples: grids of images, before and after, and points of the plane over data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pyro_gan.evaluate.plots._axes import DATA, OUTPUTS, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_before_after", "plot_images", "plot_points"]


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
        ValueError: if the shape is not one of the three, there is no image, or black is not below white.

    Example:
        >>> import torch
        >>> ax = plot_images(torch.rand(12, 1, 8, 8), num_columns=6)
    """
    picture = _grid(images, num_columns, value_range)
    return _show(picture, axes_or_new(ax), title)


def plot_before_after(
    before: Float[Tensor, "draw *channel height width"],
    after: Float[Tensor, "draw2 *channel height width"],
    *,
    ax: Axes | None = None,
    num_columns: int = 8,
    value_range: tuple[float, float] = (-1.0, 1.0),
    labels: tuple[str, str] = ("generator alone", "sampled"),
) -> Axes:
    """Show two grids of images side by side on one Axes: what went in, what came out.

    Take both as they come: as many of each, neither picked by eye.

    Args:
        before: Images of the left grid, shaped as `plot_images` takes them.
        after: Images of the right grid, of the same height, width and channels.
        ax: Where to draw; a new figure if None.
        num_columns: Images in a row of either grid.
        value_range: Values shown as black and as white; what lies outside is clipped.
        labels: Over the two grids.

    Returns:
        The Axes.

    Raises:
        ValueError: as `plot_images`, or if images of the two sets differ in shape.

    Example:
        >>> import torch
        >>> ax = plot_before_after(torch.rand(16, 8, 8), torch.rand(16, 8, 8), num_columns=4)
    """
    if before.shape[1:] != after.shape[1:]:
        raise ValueError(
            f"Expected images of one shape before and after; got {tuple(before.shape)} and {tuple(after.shape)}."
        )
    grids = [_grid(images, num_columns, value_range) for images in (before, after)]
    height = max(len(grid) for grid in grids)
    gap = max(3, before.shape[-1] // 2)
    # White beneath the shorter grid, and between the two.
    canvas = grids[0].new_ones(height, sum(grid.shape[1] for grid in grids) + gap, 3)
    canvas[: len(grids[0]), : grids[0].shape[1]] = grids[0]
    canvas[: len(grids[1]), grids[0].shape[1] + gap :] = grids[1]
    ax = _show(canvas, axes_or_new(ax), None)
    left = 0
    for grid, label in zip(grids, labels, strict=True):
        middle = left + grid.shape[1] / 2 - 0.5
        ax.annotate(label, (middle, -0.5), (0, 3), textcoords="offset points", ha="center", va="bottom")
        left += grid.shape[1] + gap
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
        ValueError: if points are not in the plane, or not finite.

    Example:
        >>> import torch
        >>> ax = plot_points(torch.randn(100, 2), torch.randn(100, 2))
    """
    for name, points in (("samples", samples), ("data", data)):
        if points is not None and (points.dim() != 2 or points.shape[1] != 2):
            raise ValueError(f"Expected {name} of shape (draw, 2); got {tuple(points.shape)}.")
        # Matplotlib leaves such points out without a word.
        if points is not None and not bool(points.isfinite().all()):
            raise ValueError(
                f"Expected finite {name}; {int((~points.isfinite().all(1)).sum())} of {len(points)} points are not. "
                "Leave them out, and say how many."
            )
    ax = axes_or_new(ax)
    if data is not None:
        ax.scatter(*_columns(data), s=4, color=DATA, linewidths=0, label="data")
    ax.scatter(*_columns(samples), s=4, color=OUTPUTS, alpha=0.5, linewidths=0, label="samples")
    ax.set_aspect("equal")
    ax.legend(loc="upper right", markerscale=3)
    if title is not None:
        ax.set_title(title)
    return ax


def _grid(
    images: Tensor, num_columns: int, value_range: tuple[float, float]
) -> Float[Tensor, "height width 3"]:
    """Return images as one picture in shades from 0 to 1, row by row."""
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images) or num_columns < 1:
        raise ValueError(
            f"Expected images (draw, height, width) or (draw, 1 or 3, height, width), and num_columns above 0; got "
            f"{tuple(images.shape)} and {num_columns}. Unflatten rows of pixels first."
        )
    low, high = value_range
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"Expected value_range with black below white, both finite; got {value_range}.")
    shade = ((images.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    count, channels, height, width = shade.shape
    num_columns = min(num_columns, count)
    num_rows = -(-count // num_columns)
    # One pixel of white between neighbours.
    canvas = shade.new_ones(num_rows * (height + 1) - 1, num_columns * (width + 1) - 1, channels)
    for index, image in enumerate(shade):
        top, left = (index // num_columns) * (height + 1), (index % num_columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas.expand(-1, -1, 3) if channels == 1 else canvas


def _show(picture: Float[Tensor, "height width 3"], ax: Axes, title: str | None) -> Axes:
    ax.imshow(picture.numpy(), interpolation="nearest")
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title)
    return ax


def _columns(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    first, second = points.detach().cpu().numpy().T
    return first, second
