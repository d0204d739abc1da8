"""Families: every concrete public member is found, and a stranger's member is tested without touching a test file."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_gan import ratio
from pyro_gan.mcmc import BatchKernel
from pyro_gan.objectives import Objective, Penalty, TwoSampleLoss
from tests.mcmc import members as kernels
from tests.objectives import members as objectives
from tests.pages import ROOT, run_page
from tests.ratio import members as maps
from tests.test_package import MODULES
from tests.with_extensions import EXAMPLES

#: Base class of a family -> its members as the laws run over them.
FAMILIES = {
    BatchKernel: kernels.KERNELS,
    Objective: objectives.OBJECTIVES,
    Penalty: objectives.PENALTIES,
    TwoSampleLoss: objectives.TWO_SAMPLE_LOSSES,
    ratio.Calibrator: maps.MAPS,
}

#: Example -> the test files whose laws must find it.
LAWS = {
    "Barker": [
        "tests/mcmc/test_contract.py",
        "tests/mcmc/test_invariance.py",
        "tests/mcmc/test_closed_form.py",
        "tests/mcmc/test_any_model.py",
        "tests/annealing/test_ais.py",
    ],
    "Jeffreys": ["tests/objectives/test_base.py", "tests/objectives/test_recovery.py"],
    "Kink": ["tests/ratio/test_map_laws.py"],
    "energy_distance": ["tests/evaluate/test_metrics.py", "tests/evaluate/test_hostile.py"],
}


def concrete_under(base: type) -> set[type]:
    """Return the concrete classes under a base that any module of the package defines in public."""
    found = set()
    for name in MODULES:
        if name.endswith("__main__"):
            continue
        module = importlib.import_module(name)
        for public in module.__all__:
            value = getattr(module, public)
            if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value):
                found.add(value)
    return found


@pytest.mark.parametrize("base", FAMILIES, ids=lambda base: base.__name__)
def test_every_concrete_public_member_is_under_the_laws(base: type) -> None:
    assert len(FAMILIES[base]) >= len(concrete_under(base)) > 0
    for member in concrete_under(base):
        assert any(name.startswith(member.__name__) for name in FAMILIES[base]), f"{member} has no law"


def run_pytest(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--assert=plain", *args],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_laws_find_the_examples_of_the_page() -> None:
    files = sorted({file for files in LAWS.values() for file in files})
    found = run_pytest("-p", "tests.with_extensions", "--collect-only", "-k", " or ".join(EXAMPLES), *files)
    for example, laws in LAWS.items():
        for file in laws:
            tests = [line for line in found.splitlines() if line.startswith(file) and example in line]
            assert tests, f"no law of {file} has found {example}"


def test_the_page_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page("docs/extend.md", tmp_path, monkeypatch)
