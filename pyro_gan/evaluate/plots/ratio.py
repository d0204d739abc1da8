"""Pictures of the log ratio: its calibration, its distribution over sets, and its quality against its overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import count, instance, numbers, rows, tensor
from pyro_gan.evaluate.plots._axes import GUIDE, axes_or_new, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_frontier", "plot_reliability", "plot_scores"]


def plot_reliability(
    table: tuple[Float[Tensor, " bin"], Float[Tensor, " bin"], Int[Tensor, " bin"]],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Plot the observed share of real data against the predicted one, with two binomial standard errors.

    Args:
        table: For every bin the mean predicted probability, the observed share and the number of rows, as the
            report of a calibration gives them (`report.reliability`); empty bins are left out.
        ax: Where to draw, so that several critics share a picture; a new figure if None.
        label: Of the curve.

    Returns:
        The Axes; a calibrated critic follows the diagonal.

    Raises:
        ValueError: if the three columns differ in shape, every bin is empty, or a value is not finite.

    Example:
        >>> ax = plot_reliability((torch.tensor([0.2, 0.7]), torch.tensor([0.25, 0.65]), torch.tensor([80, 90])))
    """
    columns = [tensor("a column", c).detach().cpu().double() for c in instance("table", table, tuple, list)]
    one_shape = len(columns) == 3 and all(c.shape == columns[0].shape[:1] for c in columns)
    if not one_shape or not bool((columns[2] > 0).any()):
        raise ValueError(
            "Expected predicted, observed and number of one shape (bin,) with a point in some bin; got "
            f"{', '.join(str(tuple(c.shape)) for c in columns)}. Pass report.reliability."
        )
    predicted, observed, number = rows("bins", torch.stack(columns, 1)[columns[2] > 0]).T
    error = 2 * (observed * (1 - observed) / number).sqrt()
    ax = axes_or_new(ax, label)
    ax.plot([0, 1], [0, 1], color=GUIDE, zorder=0)
    ax.errorbar(*(c.numpy() for c in (predicted, observed, error)), marker="o", markersize=4, label=label)
    ax.set(xlabel="predicted share of real", ylabel="observed share of real", xlim=(0, 1), ylim=(0, 1))
    return finished(ax, label=label, loc="upper left")


def plot_scores(
    log_ratios: Mapping[str, Float[Tensor, " draw"]], *, ax: Axes | None = None, num_bins: int = 60
) -> Axes:
    """Plot histograms of the log ratio of several sets over common bins.

    A sampler that works gives outputs the score distribution of held-out real data (`score_distance`). Ratios have long
    tails, which would squeeze everything else into one bin. So the scores that lie beyond three interquartile ranges
    from the quartiles of every set are counted in the outermost bins, and the axis says so.

    Args:
        log_ratios: Scores by name, such as `{"held-out real": ..., "generator": ..., "outputs": ...}`.
        ax: Where to draw; a new figure if None.
        num_bins: Number of bins over the range shown.

    Returns:
        The Axes.

    Raises:
        ValueError: if there is no set, or a set is empty or not finite.

    Example:
        >>> ax = plot_scores({"real": torch.randn(100) + 1, "generator": torch.randn(100)})
    """
    sets = {}
    for name, values in instance("log_ratios", log_ratios, Mapping).items():
        flat = tensor(f"log ratios {name!r}", values).detach().flatten().cpu().double()
        sets[name] = rows(f"log ratios {name!r}", flat, cure="Take the logit of a saturated critic.")
    count("num_bins", num_bins)
    count("number of sets in log_ratios", len(sets))
    ax = axes_or_new(ax)
    fences = [_fences(values) for values in sets.values()]
    low, high = min(low for low, _ in fences), max(high for _, high in fences)
    # If all scores are equal, the bins still need a width.
    pad = 0.5 if low == high else 0.0
    edges = torch.linspace(low - pad, high + pad, num_bins + 1, dtype=torch.float64)
    clipped = False
    for name, values in sets.items():
        shown = values.clamp(low, high)
        clipped = clipped or not torch.equal(shown, values)
        ax.hist(shown.numpy(), bins=edges.tolist(), density=True, histtype="step", label=name)
    beyond = "; the outermost bins hold all beyond" if clipped else ""
    ax.set(xlabel=f"log ratio (nats{beyond})", ylabel="density")
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
    """Plot the quality of ratios against the overlap that it costs, in the order of their training.

    Args:
        ess_fractions: Overlap of each ratio, in (0, 1].
        qualities: Held-out log loss of each ratio, or the score of its samples.
        ax: Where to draw; a new figure if None.
        label: Of the curve.
        ylabel: Name of the quality.

    Returns:
        The Axes; overlap is on a logarithmic scale.

    Raises:
        ValueError: if lengths differ or are 0, an ESS fraction is outside (0, 1], or a quality is not finite.

    Example:
        >>> ax = plot_frontier([0.5, 0.2, 0.02], [0.60, 0.47, 0.39])
    """
    # Rounding may put the ESS fraction of equal weights slightly above 1.
    fractions = numbers("ESS fractions", ess_fractions, above=0, maximum=1 + 1e-6)
    heights = numbers("qualities", qualities)
    if len(fractions) != len(heights):
        raise ValueError(f"Expected a quality for each ESS fraction; got {len(heights)} and {len(fractions)}.")
    ax = axes_or_new(ax, label, ylabel)
    from matplotlib.ticker import LogLocator

    ax.plot(fractions, heights, marker="o", markersize=4, label=label)
    ax.set(xscale="log", xlabel="ESS fraction", ylabel=ylabel)
    # On so short a range Matplotlib labels every minor tick, and the labels overlap.
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    return finished(ax, label=label)


def _fences(values: Tensor) -> tuple[float, float]:
    """Return the range of a set without far outliers: up to three interquartile ranges beyond the quartiles."""
    low, high = (float(np.quantile(values.numpy(), q)) for q in (0.25, 0.75))
    reach = 3 * (high - low)
    return max(float(values.min()), low - reach), min(float(values.max()), high + reach)
