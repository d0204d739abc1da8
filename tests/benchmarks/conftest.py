"""Keeps ratios as extra information of a benchmark, and prints them in a table at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.benchmarks.paired import Ratio

FIGURES = pytest.StashKey[list[tuple[str, Ratio, str]]]()

#: Runs a measurement once, `figure(measure, target="<= 1.05")`, and records its ratio.
Figure = Callable[..., Ratio]


@pytest.fixture
def figure(benchmark: Any, request: pytest.FixtureRequest) -> Figure:
    def run(measure: Callable[[], Ratio], *, target: str = "") -> Ratio:
        ratio: Ratio = benchmark.pedantic(measure, rounds=1)
        benchmark.extra_info |= ratio._asdict() | {"target": target}
        request.config.stash.setdefault(FIGURES, []).append((request.node.name, ratio, target))
        return ratio

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    terminalreporter.section("ratios: median, quartiles, rounds, median of the reference; target")
    for name, ratio, target in figures:
        terminalreporter.write_line(
            f"{name:60} {ratio.value:9.3f}  ({ratio.low:.3f} to {ratio.high:.3f}, {ratio.rounds} rounds, "
            f"{ratio.reference:.3g})  {target}"
        )
