"""Pictures of the log ratio: its calibration, its distribution over sets, and what its quality costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.evaluate.plots._axes import GUIDE, axes_or_new

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
    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color=GUIDE, zorder=0)
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

    A sampler that does its work gives outputs the score distribution of held-out real data (`score_distance`). Ratios
    have long tails, which would squeeze all else into one bin: what lies beyond three interquartile ranges from the
    quartiles of every set is counted in the outermost bins, and the axis says so.

    Args:
        log_ratios: Scores by name, such as `{"held-out real": ..., "generator": ..., "outputs": ...}`.
        ax: Where to draw; a new figure if None.
        num_bins: Over the range shown.

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
    ax = axes_or_new(ax)
    fences = [_fences(values) for values in sets.values()]
    low, high = min(low for low, _ in fences), max(high for _, high in fences)
    # All scores equal: a bin needs a width.
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
    ax = axes_or_new(ax)
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


def _fences(values: Tensor) -> tuple[float, float]:
    """Return the range of a set without its far outliers, as a box plot draws it, three boxes wide on either side."""
    low, high = (float(np.quantile(values.numpy(), q)) for q in (0.25, 0.75))
    reach = 3 * (high - low)
    return max(float(values.min()), low - reach), min(float(values.max()), high + reach)
