"""The pages that train something: their code runs as printed, with whatever it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.pages import ROOT, run_page

pytestmark = pytest.mark.numbers

HOW_TO = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/howto").glob("*.md") if path.stem != "index")
PAGES = [*HOW_TO, "docs/getting_started.md", "docs/likelihoods.md"]


@pytest.mark.parametrize("page", PAGES)
def test_code_on_the_page_runs_as_printed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their networks are as small as those of the fast tests, and like them faster on one thread.
    torch.set_num_threads(1)
    run_page(page, tmp_path, monkeypatch)


def test_index_lists_every_page() -> None:
    index = (ROOT / "docs/howto/index.md").read_text().splitlines()
    assert [page for page in HOW_TO if Path(page).stem not in index] == []
