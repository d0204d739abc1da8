"""Collects the figures that the slow tests measure, prints them, and writes numbers.json at the end."""

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

_FIGURES = pytest.StashKey[dict[str, Any]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record figures under a name, with the settings that made them: `figure("grid", jsd=.., k=640, seed=0)`."""
    figures = request.config.stash.setdefault(_FIGURES, {})

    def record(name: str, **values: Any) -> None:
        values = {key: _plain(value) for key, value in values.items()}
        figures.setdefault(name, []).append(values)
        shown = "  ".join(f"{key} {_short(value)}" for key, value in values.items())
        request.config.get_terminal_writer().line(f"\n  {name}: {shown}")

    return record


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest, figure: Callable[..., None]) -> Iterator[None]:
    """Record the seconds of every slow test; printed, never asserted."""
    start = time.perf_counter()
    yield
    figure("seconds", test=request.node.name, seconds=round(time.perf_counter() - start, 1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was recorded, whole or not at all."""
    figures = session.config.stash.get(_FIGURES, None)
    if not figures:
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__}
    record = {"versions": versions, "threads": torch.get_num_threads(), "figures": figures}
    path = Path(session.config.rootpath) / "numbers.json"
    temporary = path.with_suffix(".json.part")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + " ".join(_short(item) for item in value) + "]"
    return str(value)
