"""The demo's pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import SAMPLERS
from pyro_gan.evaluate import plot_frontier, plot_images, plot_reliability, plot_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES"]

#: Digits shown of each set.
NUM_SHOWN = 64

#: Inches of a panel, and of a line for the name of a ratio.
PANEL_WIDTH, NAME_HEIGHT = 2.6, 0.5


def _samples(results: Results) -> Figure:
    def draw(ax: Axes, row: Row) -> None:
        plot_images(row.images[:NUM_SHOWN], ax=ax, num_columns=8)

    figure, _ = _panels(results, draw, [results.real, results.alone], num_columns=7, aspect=1.15)
    return figure


def _reliability(results: Results) -> Figure:
    figure = _figure(width=5.5, height=5.0)
    ax = figure.subplots()
    for name, report in results.reports.items():
        plot_reliability(report.reliability, ax=ax, label=name)
    ax.set_title("on the judge's digits and as many draws of G")
    return figure


def _frontier(results: Results) -> Figure:
    figure = _figure(width=5.5, height=4.5)
    ax = figure.subplots()
    frontier = results.ratios[1].frontier
    plot_frontier(
        [p.ess_fraction for p in frontier], [p.log_loss for p in frontier], ax=ax, label="evaluations"
    )
    ax.axhline(math.log(2), color="0.8", zorder=0)
    ax.axvline(results.settings.min_ess_fraction, color="0.8", zorder=0, linestyle="--")
    ax.set_title("fresh critic in training: loss against overlap")
    return figure


def _scores(results: Results) -> Figure:
    log_ratios = {ratio.name: ratio.log_ratio for ratio in results.ratios}

    def draw(ax: Axes, row: Row) -> None:
        sets = {"real digits": results.real, "G alone": results.alone, "outputs": row}
        with torch.no_grad():
            scores = {name: log_ratios[row.ratio](of.images) for name, of in sets.items()}
        plot_scores(scores, ax=ax, num_bins=30).set(xlabel="log ratio (nats)", yticks=[])

    figure, spare = _panels(results, draw, [], num_columns=6, aspect=0.75)
    # One legend for all, in the place without a panel.
    legends = [(ax, ax.get_legend()) for part in figure.subfigs for ax in part.axes]
    for ax, legend in legends:
        if legend is not None:
            spare.legend(*ax.get_legend_handles_labels(), loc="center", title="outermost bins:\nall beyond")
            legend.remove()
    return figure


def _panels(
    results: Results, draw: Callable[[Axes, Row], None], first: list[Row], *, num_columns: int, aspect: float
) -> tuple[Figure, Axes]:
    """Return a figure with a panel for every sampler, the ratios one below the other, and its last, empty Axes."""
    num_lines = (len(first) + len(SAMPLERS)) // num_columns + 1
    height = PANEL_WIDTH * aspect * num_lines + NAME_HEIGHT
    figure = _figure(width=PANEL_WIDTH * num_columns, height=height * len(results.ratios))
    parts = figure.subfigures(len(results.ratios), 1, squeeze=False)[:, 0]
    for part, ratio in zip(parts, results.ratios, strict=True):
        part.suptitle(ratio.name, fontweight="bold")
        rows = {row.sampler: row for row in (*first, *results.rows) if row.ratio in ("", ratio.name)}
        names = [*(row.sampler for row in first), *SAMPLERS]
        axes = list(part.subplots(num_lines, num_columns, squeeze=False).flat)
        for ax, name in zip(axes, names, strict=False):
            # A line for the paper's name, and one for ours.
            title = name.replace(" (", "\n(", 1)
            if name in rows:
                draw(ax, rows[name])
            else:
                title += "\nrefused"
                ax.set_axis_off()
            ax.set_title(title, fontsize="medium")
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    return figure, axes[-1]


def _figure(*, width: float, height: float) -> Figure:
    # Not by pyplot, which would open windows and keep every figure.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


#: Each picture by its file's name.
PICTURES: dict[str, Callable[[Results], Figure]] = {
    "samples.png": _samples,
    "reliability.png": _reliability,
    "frontier.png": _frontier,
    "scores.png": _scores,
}
