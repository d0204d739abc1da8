"""Print the tables of the documentation from numbers.json: `python -m tests.numbers.tables`, in the source's folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["calibration", "equal_cost"]

Rows = list[dict[str, Any]]

QUALITY = {"mnist": "LeNet score", "gaussians25": "high quality"}
PAIRS = [
    ("mnist", "own D, Platt"),
    ("mnist", "fresh conv critic"),
    ("gaussians25", "own critic, Platt"),
    ("gaussians25", "fresh MLP"),
]
SAMPLERS = [
    "truth",
    "G alone",
    "ImportanceResampler",
    "RejectionSampler",
    "RejectionSampler, gamma 95 (DRS)",
    "RejectionSampler, budget (OBRS)",
    "IndependenceMH",
    "IndependenceMH, real data, continue",
    "IndependenceMH, real data, drop",
    "IndependenceMH, real data, restart (MH-GAN)",
    "RandomWalk",
    "PCN",
    "ULA (DDLS)",
    "MALA (REP-GAN)",
    "BatchHMC",
]
#: For each pair: the heading, the key in numbers.json, and the format of each column.
CALIBRATION = {
    "mnist": [
        ("log loss", "log_loss", ".3f"),
        ("ESS fraction", "ess_fraction", ".3f"),
        ("Fréchet distance", "frechet", ".0f"),
    ],
    "gaussians25": [
        ("log loss", "log_loss", ".3f"),
        ("ECE", "ece", ".3f"),
        ("ESS fraction", "ess_fraction", ".2f"),
        ("high quality", "high_quality", ".2f"),
    ],
}
TITLES = {"mnist": "MNIST, an MLP GAN", "gaussians25": "25 Gaussians, a WGAN-GP"}


def equal_cost(rows: Rows) -> str:
    """Return a Markdown table for each pair and ratio."""
    pairs = sorted({(row["pair"], row["ratio"]) for row in rows}, key=PAIRS.index)
    return "\n\n".join(_of_pair([row for row in rows if (row["pair"], row["ratio"]) == pair]) for pair in pairs)


def calibration(rows: Rows) -> str:
    """Return the two tables of the calibration page; a cell lists all seeds."""
    tables = []
    for pair, columns in CALIBRATION.items():
        of_pair = [row for row in rows if row["pair"] == pair]
        lines = ["| | " + " | ".join(name for name, _, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for method in dict.fromkeys(row["method"] for row in of_pair):
            own = [row for row in of_pair if row["method"] == method]
            cells = [
                ", ".join(f"{row[key]:{form}}".removeprefix("0") for row in own if key in row)
                for _, key, form in columns
            ]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _of_pair(rows: Rows) -> str:
    pair, ratio = rows[0]["pair"], rows[0]["ratio"]
    quality = QUALITY[pair]
    head = ["sampler", "outputs", "cost", "distinct", "log r", quality, "gap", "accepts", "R-hat", "never moved"]
    lines = [f"**{TITLES[pair]}; {ratio}** (ESS fraction {rows[0]['ess_fraction']:.3f})", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for row in sorted(rows, key=lambda row: SAMPLERS.index(row["sampler"])):
        cells = [
            row["sampler"].replace("Sampler", "") + (", exact" if row.get("exact") else ""),
            f"{row['outputs']}",
            f"{row['cost']:.0f}",
            _share(row.get("distinct")),
            f"{row['mean log r']:.2f}",
            f"{row[quality]:.2f}" if pair == "mnist" else f"{row[quality]:.3f}",
            "" if "gap_in_se" not in row else f"{row['gap_in_se']:.1f}",
            _share(row.get("acceptance"), 3),
            "" if "r_hat" not in row else f"{row['r_hat']:.2f}",
            _share(row.get("never_moved")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    figures = json.loads(Path("numbers.json").read_text())["figures"]
    sys.stdout.write(equal_cost(figures["equal cost"]) + "\n\n" + calibration(figures["calibration"]) + "\n")
