"""Pictures of the samples: a grid of images, two grids side by side, and points of the plane over data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import count, instance
from pyro_gan.evaluate._rows import as_images, as_rows, black_and_white
from pyro_gan.evaluate.plots._axes import DATA, OUTPUTS, axes_or_new, finished

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
        value_range: Values shown as black and as white; values outside are clipped.
        title: Over the grid.

    Returns:
        The Axes.

    Raises:
        ValueError: if the shape is not one of the three, there is no image, a value is not finite, or black is not
            below white.

    Example:
        >>> import torch
        >>> ax = plot_images(torch.rand(12, 1, 8, 8), num_columns=6)
    """
    return finished(_show(_grid(images, num_columns, value_range), axes_or_new(ax, title)), title=title)


def plot_before_after(
    before: Float[Tensor, "draw *channel height width"],
    after: Float[Tensor, "draw2 *channel height width"],
    *,
    ax: Axes | None = None,
    num_columns: int = 8,
    value_range: tuple[float, float] = (-1.0, 1.0),
    labels: tuple[str, str] = ("generator alone", "sampled"),
) -> Axes:
    """Show two grids of images side by side on one Axes, before and after sampling.

    Take the first images of both sets, as many of each; pick no image by eye.

    Args:
        before: Images of the left grid, of a shape that `plot_images` takes.
        after: Images of the right grid, of the same height, width and channels.
        ax: Where to draw; a new figure if None.
        num_columns: Images in a row of either grid.
        value_range: Values shown as black and as white; values outside are clipped.
        labels: Over the two grids.

    Returns:
        The Axes.

    Raises:
        ValueError: as `plot_images`, or if images of the two sets differ in shape.

    Example:
        >>> import torch
        >>> ax = plot_before_after(torch.rand(16, 8, 8), torch.rand(16, 8, 8), num_columns=4)
    """
    if len(instance("labels", labels, tuple, list)) != 2:
        raise ValueError(f"Expected two labels, one for each grid; got {labels}.")
    grids = [_grid(images, num_columns, value_range) for images in (before, after)]
    if before.shape[1:] != after.shape[1:]:
        raise ValueError(
            f"Expected images of one shape before and after; got {tuple(before.shape)} and {tuple(after.shape)}."
        )
    height = max(len(grid) for grid in grids)
    gap = max(3, before.shape[-1] // 2)
    # The canvas is white below the shorter grid and between the two.
    canvas = grids[0].new_ones(height, sum(grid.shape[1] for grid in grids) + gap, 3)
    ax, left = axes_or_new(ax, *labels), 0
    for grid, label in zip(grids, labels, strict=True):
        canvas[: len(grid), left : left + grid.shape[1]] = grid
        middle = left + grid.shape[1] / 2 - 0.5
        ax.annotate(label, (middle, -0.5), (0, 3), textcoords="offset points", ha="center", va="bottom")
        left += grid.shape[1] + gap
    return _show(canvas, ax)


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
        data: Drawn below the samples, in grey, `(draw2, 2)`.
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
    # Matplotlib silently leaves out points that are not finite.
    points = as_rows(samples, "samples", event_shape=(2,))
    data = None if data is None else as_rows(data, "data", event_shape=(2,))
    ax = axes_or_new(ax, title)
    if data is not None:
        x, y = data.cpu().numpy().T
        ax.scatter(x, y, s=4, color=DATA, linewidths=0, label="data")
    x, y = points.cpu().numpy().T
    ax.scatter(x, y, s=4, color=OUTPUTS, alpha=0.5, linewidths=0, label="samples")
    ax.set_aspect("equal")
    ax.legend(loc="upper right", markerscale=3)
    return finished(ax, title=title)


def _grid(images: Tensor, num_columns: int, value_range: tuple[float, float]) -> Float[Tensor, "height width 3"]:
    """Return images as one picture in shades from 0 to 1, row by row."""
    images = as_images(images, num_channels=(1, 3))
    low, high = black_and_white(value_range)
    shade = ((images.cpu().double() - low) / (high - low)).clamp(0, 1)
    num_images, channels, height, width = shade.shape
    num_columns = min(count("num_columns", num_columns), num_images)
    num_rows = -(-num_images // num_columns)
    # One pixel of white between neighbours.
    canvas = shade.new_ones(num_rows * (height + 1) - 1, num_columns * (width + 1) - 1, channels)
    for index, image in enumerate(shade):
        top, left = (index // num_columns) * (height + 1), (index % num_columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas.expand(-1, -1, 3) if channels == 1 else canvas


def _show(picture: Float[Tensor, "height width 3"], ax: Axes) -> Axes:
    ax.imshow(picture.numpy(), interpolation="nearest")
    ax.set_axis_off()
    return ax
