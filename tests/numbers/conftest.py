"""Collect the figures that the slow tests measure, print them, and write numbers.json at the end."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from tests.numbers.size import FULL

_KEY = "figure"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record figures under a name, with the settings that made them: `figure("grid", jsd=.., k=640, seed=0)`."""

    def record(name: str, **values: Any) -> None:
        # The properties of a report also come back from the processes of pytest-xdist.
        figure = name, {key: _plain(value) for key, value in values.items()}
        request.node.user_properties.append((_KEY, figure))

    return record


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest, figure: Callable[..., None]) -> Iterator[None]:
    """Record the seconds of every slow test; they are printed, never asserted."""
    start = time.perf_counter()
    yield
    figure("seconds", test=request.node.name, seconds=round(time.perf_counter() - start, 1))


class _Book:
    """Gathers the figures from the reports of the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._by_test: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a test's figures when it is over."""
        if report.when != "teardown":
            return
        figures = [value for key, value in report.user_properties if key == _KEY]
        writer = self._config.get_terminal_writer()
        for name, values in figures:
            shown = "  ".join(f"{key} {_short(value)}" for key, value in values.items())
            writer.line(f"\n  {name}: {shown}")
        if figures:
            self._by_test[report.nodeid] = figures

    def pytest_sessionfinish(self) -> None:
        """Write all records to one file, completely or not at all, in the order of the tests' names."""
        if not self._by_test:
            return
        figures: dict[str, list[dict[str, Any]]] = {}
        for _, of_test in sorted(self._by_test.items()):
            for name, values in of_test:
                figures.setdefault(name, []).append(values)
        versions = {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__}
        record = {"versions": versions, "figures": figures}
        path = Path(self._config.rootpath) / "numbers.json"
        temporary = path.with_suffix(".json.part")
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what CI has no time for."""
    left_out = [] if FULL else [item for item in items if item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_configure(config: pytest.Config) -> None:
    """Gather figures in the process that receives the reports, which is none of pytest-xdist's workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Book(config))


def _plain(value: Any) -> Any:
    # JSON knows no tensors and no NumPy arrays or numbers.
    return value.tolist() if hasattr(value, "tolist") else value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + " ".join(_short(item) for item in value) + "]"
    return str(value)
