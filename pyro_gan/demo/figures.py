"""The demo's figures as JSON and its pictures."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import SAMPLERS
from pyro_gan.evaluate import plot_frontier, plot_images, plot_reliability, plot_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "figures"]

#: Digits shown of each set.
NUM_SHOWN = 64

_PACKAGES = ("pyro-gan", "torch", "pyro-ppl", "arviz", "numpy", "scikit-learn", "scipy", "matplotlib")


def figures(results: Results) -> dict[str, Any]:
    """Return every figure of a run, with settings and versions, as JSON knows it: what is not finite is null."""
    gan = results.gan
    record = {
        "settings": dataclasses.asdict(results.settings),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in _PACKAGES}},
        "threads": torch.get_num_threads(),
        "splits": {name: len(getattr(results.splits, name)) for name in ("gan", "ratio", "judge")},
        "classifier_accuracy": results.judge.accuracy,
        "gan": {
            "best_step": gan.best_step,
            "reached_plateau": gan.reached_plateau,
            "history": [{"step": step, "frechet": distance} for step, distance in gan.history],
        },
        "critics_on_judge": {
            name: {
                key: getattr(report, key)
                for key in ("auc", "slope", "slope_se", "log_loss", "ece", "dawid_z")
            }
            for name, report in results.reports.items()
        },
        "ratios": {
            ratio.name: {"made": ratio.made, "tail": ratio.tail._asdict()} for ratio in results.ratios
        },
        "frontier": [point._asdict() for point in results.ratios[1].frontier],
        "rows": [_figures_of(row) for row in (results.real, results.alone, *results.rows)],
        "refused": [
            {"ratio": ratio, "sampler": sampler, "reason": reason}
            for (ratio, sampler), reason in results.refused.items()
        ],
        "seconds": results.seconds,
        "warnings": results.warnings,
    }
    return _finite(record)


def _figures_of(row: Row) -> dict[str, Any]:
    judged, run = row.verdict, row.outputs
    record: dict[str, Any] = {
        "ratio": row.ratio,
        "sampler": row.sampler,
        "score": judged.score.value,
        "score_se": judged.score.standard_error,
        "frechet": judged.frechet,
        "residual_auc": judged.residual.value,
        "residual_auc_se": judged.residual.standard_error,
        "class_tv": judged.class_tv,
    }
    if run is not None:
        names = ("acceptance", "rhat", "ess", "never_moved", "copies", "seconds")
        record |= {name: getattr(run, name) for name in names}
        record["ess_per_second"] = run.ess / run.seconds
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _samples(results: Results) -> Figure:
    columns = len(SAMPLERS) + 1
    figure = _figure(width=3.2 * columns, height=7.2)
    axes = figure.subplots(2, columns, squeeze=False)
    found = {(row.ratio, row.sampler): row for row in results.rows}
    for line, (first, ratio) in enumerate(zip((results.real, results.alone), results.ratios, strict=True)):
        plot_images(first.images[:NUM_SHOWN], ax=axes[line, 0], num_columns=8, title=first.sampler)
        for column, sampler in enumerate(SAMPLERS, start=1):
            ax, row = axes[line, column], found.get((ratio.name, sampler))
            title = f"{sampler}\n{ratio.name}"
            if row is None:
                ax.set_title(f"{title}: refused")
                ax.set_axis_off()
            else:
                plot_images(row.images[:NUM_SHOWN], ax=ax, num_columns=8, title=title)
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
    figure = _figure(width=12.0, height=4.5)
    for ax, ratio in zip(figure.subplots(1, 2), results.ratios, strict=True):
        rows = [row for row in results.rows if row.ratio == ratio.name]
        with torch.no_grad():
            sets = {row.sampler: ratio.log_ratio(row.images) for row in (results.real, results.alone, *rows)}
        plot_scores(sets, ax=ax, num_bins=40)
        ax.set_title(ratio.name)
    return figure


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
