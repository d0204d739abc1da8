"""The demo's pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyro_gan import evaluate
from pyro_gan.demo.networks import MIN_ESS_FRACTION
from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import SAMPLERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES"]

#: Digits shown of each set.
NUM_SHOWN = 64

#: Inches of a panel, and of a line for the name of a ratio.
PANEL_WIDTH, NAME_HEIGHT = 2.6, 0.5


def _samples(results: Results) -> Figure:
    names = ["real digits", "G alone", *SAMPLERS]
    figure, panels, _ = _panels(results, names, num_columns=7, aspect=1.15)
    for ax, row in panels:
        evaluate.plot_images(row.images[:NUM_SHOWN], ax=ax, num_columns=8)
    return figure


def _reliability(results: Results) -> Figure:
    figure = _figure(5.5, 5.0)
    ax = figure.subplots()
    for name, report in results.reports.items():
        evaluate.plot_reliability(report.reliability, ax=ax, label=name)
    ax.set_title("on the judge's digits and as many draws of G")
    return figure


def _frontier(results: Results) -> Figure:
    figure = _figure(5.5, 4.5)
    ax = figure.subplots()
    points = results.record["frontier"]
    overlaps, losses = ([point[key] for point in points] for key in ("ess_fraction", "log_loss"))
    evaluate.plot_frontier(overlaps, losses, ax=ax, label="evaluations")
    ax.axhline(math.log(2), color="0.8", zorder=0)
    ax.axvline(MIN_ESS_FRACTION, color="0.8", zorder=0, linestyle="--")
    ax.set_title("fresh critic in training: loss against overlap")
    return figure


def _scores(results: Results) -> Figure:
    figure, panels, spare = _panels(results, list(SAMPLERS), num_columns=6, aspect=0.75)
    for ax, row in panels:
        sets = zip(("real digits", "G alone", "outputs"), (*results.rows[:2], row), strict=True)
        scores = {name: results.ratios[row.ratio](shown.images) for name, shown in sets}
        evaluate.plot_scores(scores, ax=ax, num_bins=30).set(xlabel="log ratio (nats)", yticks=[])
        # One legend for all panels, in the place without a panel.
        legend = ax.get_legend()
        assert legend is not None
        legend.remove()
        spare.legend(*ax.get_legend_handles_labels(), loc="center", title="outermost bins:\nall beyond")
    return figure


def _panels(
    results: Results, names: list[str], *, num_columns: int, aspect: float
) -> tuple[Figure, list[tuple[Axes, Row]], Axes]:
    """Return a figure with a panel for every name, one part for each ratio, and its last, empty Axes."""
    num_lines, parts = len(names) // num_columns + 1, len(results.ratios)
    height = PANEL_WIDTH * aspect * num_lines + NAME_HEIGHT
    figure, panels = _figure(PANEL_WIDTH * num_columns, height * parts), []
    for part, ratio in zip(figure.subfigures(parts, 1, squeeze=False).flat, results.ratios, strict=True):
        part.suptitle(ratio, fontweight="bold")
        rows = {row.sampler: row for row in results.rows if row.ratio == ratio}
        axes = list(part.subplots(num_lines, num_columns, squeeze=False).flat)
        for ax, name in zip(axes, [*names, *[""] * (len(axes) - len(names))], strict=True):
            # The first line is the paper's name, the second ours.
            title = name.replace(" (", "\n(", 1)
            ax.set_title(title if name in ("", *rows) else f"{title}\nrefused", fontsize="medium")
            if name in rows:
                panels.append((ax, rows[name]))
            else:
                ax.set_axis_off()
    return figure, panels, axes[-1]


def _figure(width: float, height: float) -> Figure:
    # pyplot would open windows and keep every figure.
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


#: Each picture by its file's name.
PICTURES: dict[str, Callable[[Results], Figure]] = {
    "samples.png": _samples,
    "reliability.png": _reliability,
    "frontier.png": _frontier,
    "scores.png": _scores,
}
