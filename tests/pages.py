"""The Python on a page, as a reader would paste it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

__all__ = ["ROOT", "code_blocks", "run_page"]

ROOT = Path(__file__).parent.parent


def code_blocks(page: str) -> list[str]:
    """Return the blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all of a page's Python, top to bottom, in an empty folder.

    Args:
        page: Path from the root of the repository.
        folder: To run in.
        monkeypatch: Of the test.
    """
    blocks = code_blocks(page)
    assert blocks, f"{page} shows no Python"
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": "__main__"})
