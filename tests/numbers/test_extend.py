"""The examples of docs/extend.md as members of the package: every law that finds them must hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_registry import LAWS, run_pytest

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize("example", LAWS)
def test_the_examples_of_the_page_pass_all_laws(example: str) -> None:
    folders = sorted({str(Path(file).parent) for file in LAWS[example]})
    assert " passed" in run_pytest("-p", "tests.with_extensions", "-k", example, *folders)
