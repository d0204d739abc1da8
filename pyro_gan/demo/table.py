"""The demo's table, in words and numbers for a terminal. Its frame is `report.txt`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["COLUMNS", "table"]

#: Above this a run has not converged (Vehtari et al., 2021).
MAX_RHAT = 1.01

#: By heading, of one line or two: alignment and width of a column, and what a row of figures shows there.
COLUMNS = {
    "": ("<35", "{sampler}"),
    "score": (">12", "{score:.2f} +-{score_se:.2f}"),
    "Frechet": (">8", "{frechet:.3f}"),
    "residual\nAUC": (">15", "{residual_auc:.3f} +-{residual_auc_se:.3f}"),
    "class\nTV": (">6", "{class_tv:.3f}"),
    "mean\nlog ratio": (">13", "{log_ratio:.2f} +-{log_ratio_se:.2f}"),
    "exact": (">6", "{exact}"),
    "distinct/\noutputs": (">10", "{distinct}/{outputs}"),
    "accept": (">7", "{acceptance:.3f}"),
    "R-hat": (">9", "{rhat:.3f}{mark}"),
    "ESS": (">7", "{ess:.0f}"),
    "ESS/s": (">7", "{ess_per_second:.0f}"),
    "never\nmoved": (">7", "{never_moved:.1%}"),
    "cost/\noutput": (">8", "{cost:.0f}"),
    "seconds": (">8", "{seconds:.1f}"),
}


def table(record: dict[str, Any]) -> str:
    """Return the report: what was split and trained, the ratios, the samplers side by side, and warnings.

    Args:
        record: The figures of a run, `Results.record`.
    """
    history = record["gan"]["history"]
    shown = {
        "quick": ", QUICK: the figures mean nothing" * record["settings"]["quick"],
        "first": history[0],
        "last": history[-1],
        "best": min(history, key=lambda point: point["frechet"]),
        "num_evaluations": len(history),
        "plateau": "its plateau" if record["gan"]["reached_plateau"] else "NO plateau before the steps ran out",
        "critics": "\n".join(_critics(record)),
        "table": "\n".join(_rows(record)),
        "max_rhat": MAX_RHAT,
    }
    frame = (Path(__file__).parent / "report.txt").read_text(encoding="utf-8")
    return frame.format_map(record | shown) + "".join(f"{note}\n" for note in _notes(record))


def _critics(record: dict[str, Any]) -> Iterator[str]:
    yield f"{'critics, on the judge':<24}{'AUC':>8}{'slope':>16}{'log loss':>10}   (a slope of 1 is calibrated)"
    line = "{name:<24}{auc:>8.3f}{slope:>9.2f} +- {slope_se:.2f}{log_loss:>10.3f}"
    yield from (line.format(name=name, **report) for name, report in record["critics_on_judge"].items())
    line = (
        "{name}: {made}; weights of {tail[num_draws]} draws: ESS fraction {tail[ess_fraction]:.3f}, largest share "
        "{tail[largest_weight_share]:.1g}, Pareto k {tail[pareto_k]:.2f}"
    )
    yield from (line.format(name=name, **ratio) for name, ratio in record["ratios"].items())


def _rows(record: dict[str, Any]) -> Iterator[str]:
    heads = [heading.rpartition("\n") for heading in COLUMNS]
    yield _line(first for first, _, _ in heads)
    yield _line(last for _, _, last in heads)
    yield "-" * sum(int(width[1:]) for width, _ in COLUMNS.values())
    for name in ("", *record["ratios"]):
        if name:
            yield f"\n{name} (ESS fraction of its weights {record['ratios'][name]['tail']['ess_fraction']:.3f})"
        for row in record["rows"]:
            if row["ratio"] == name:
                known = row | {"sampler": "  " * bool(name) + row["sampler"], "mark": " NO" * _is_local(row)}
                yield _line(_cell(template, known) for _, template in COLUMNS.values())
        for row in record["refused"]:
            if row["ratio"] == name:
                yield f"  {row['sampler']:<34} refused: {row['reason']}"


def _cell(template: str, known: dict[str, Any]) -> str:
    try:
        return template.format_map(known)
    except KeyError:  # Digits that no sampler made have no such figure.
        return ""
    except TypeError:  # The figure is None: the sampler has none.
        return "n/a"


def _line(cells: Iterable[str]) -> str:
    return "".join(f"{cell:{width}}" for cell, (width, _) in zip(cells, COLUMNS.values(), strict=True)).rstrip()


def _is_local(row: dict[str, Any]) -> bool:
    """Return whether the chains of a run have not mixed."""
    return row.get("rhat") is not None and not row["rhat"] <= MAX_RHAT


def _notes(record: dict[str, Any]) -> Iterator[str]:
    wanted = record["settings"]["num_chains"]
    few = [row for row in record["rows"] if row.get("outputs", wanted) < wanted]
    if few:
        names = "; ".join("{sampler} ({ratio}) {outputs}".format(**row) for row in few)
        yield f"FEWER OUTPUTS: {names}. No output is made up; Frechet and class TV of few outputs are too high."
    if count := sum(map(_is_local, record["rows"])):
        yield f"NOT CONVERGED: {count} rows, marked NO. Their outputs still depend on where the chains started."
    yield from (f"warning: {text}" for text in record["warnings"])
