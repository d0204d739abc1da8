"""The demo's figures, as JSON."""

from __future__ import annotations

import dataclasses
import math
import sys
from importlib.metadata import version
from typing import Any

import torch

from pyro_gan.demo.results import Results, Row

__all__ = ["figures"]

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
        names = (
            "exact",
            "distinct",
            "acceptance",
            "rhat",
            "ess",
            "never_moved",
            "cost",
            "seconds",
        )
        record |= {"outputs": len(run.z)} | {name: getattr(run, name) for name in names}
        record["ess_per_second"] = run.ess / run.seconds
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
