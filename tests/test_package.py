"""The package as a whole: what importing it costs, who may import whom, and the examples on its pages."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import pyro_gan
from tests.pages import ROOT, run_page

PACKAGE = Path(pyro_gan.__file__).parent
HEAVY = {
    "arviz",
    "arviz_base",
    "arviz_stats",
    "dask",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "torchmetrics",
    "xarray",
}
EIGHT = {
    "ImportanceResampler",
    "LatentPosterior",
    "LogRatio",
    "VectorizedMCMC",
    "calibrate",
    "fit_log_ratio",
    "to_arviz",
    "toys",
}
# part of the package -> the parts that it must never import
NEVERS = {part: {"ratio", "latent", "objectives"} for part in ("targets", "resampling", "mcmc", "annealing")}
NEVERS["objectives"] = {"mcmc"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def walk(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    """Every node below this one, those under `if TYPE_CHECKING` left out: they never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not into_functions:
            continue
        yield child
        yield from walk(child, into_functions=into_functions)


def imports(name: str, tree: ast.AST, *, is_package: bool, into_functions: bool) -> set[str]:
    """The modules that a module imports, `from package import module` resolved to the module."""
    found = set()
    for node in walk(tree, into_functions=into_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".") if is_package else name.split(".")[:-1]
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
    return found


def imports_of(name: str, *, into_functions: bool = True) -> set[str]:
    is_package = MODULES[name].name == "__init__.py"
    return imports(name, TREES[name], is_package=is_package, into_functions=into_functions)


def part(name: str) -> str:
    """`pyro_gan.mcmc.langevin` -> `mcmc`; what is not pyro_gan's, or is its top, has no part."""
    top, *rest = name.split(".")
    return rest[0] if top == "pyro_gan" and rest else ""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_pulls_in_nothing_heavy() -> None:
    loaded = set(json.loads(run_python("import sys, json, pyro_gan; print(json.dumps(list(sys.modules)))")))
    assert "pyro_gan.latent" in loaded and "torch" in loaded
    assert not loaded & HEAVY


def test_eight_names_on_top() -> None:
    for name in EIGHT:
        assert name in pyro_gan.__all__
        assert hasattr(pyro_gan, name)
    strangers = {name for name in pyro_gan.__all__ if name not in EIGHT and f"pyro_gan.{name}" not in MODULES}
    assert strangers <= {"__version__"}


def test_version_is_the_installed_one() -> None:
    assert pyro_gan.__version__ == version("pyro-gan")


def test_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", MODULES)
def test_module_opens_with_its_idea(name: str) -> None:
    first_line = MODULES[name].read_text().partition("\n")[0]
    assert re.match(r'r?"""\S', first_line), "the first line is a docstring sentence saying what lives here"
    if not name.endswith("__main__"):
        assert any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for node in TREES[name].body
        )


@pytest.mark.parametrize("name", MODULES)
def test_layers(name: str) -> None:
    parts = {part(imported) for imported in imports_of(name)}
    forbidden = NEVERS.get(part(name), set()) & parts
    assert not forbidden, f"{name} must know nothing of {forbidden}"
    if part(name) not in {"evaluate", "demo", "__main__"}:
        assert "evaluate" not in parts, f"{name} must not import evaluate: only the demo does"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_imports_stay_inside_functions(name: str) -> None:
    at_the_top = {imported.partition(".")[0] for imported in imports_of(name, into_functions=False)}
    assert not at_the_top & HEAVY


def test_modules_do_not_import_in_a_circle() -> None:
    inner = MODULES.keys() - {"pyro_gan", "pyro_gan.__main__"}
    graph = {
        name: {other for other in imports_of(name) if other in MODULES and other != name} for name in inner
    }
    settled: set[str] = {"pyro_gan"}
    while ready := {name for name in graph.keys() - settled if graph[name] <= settled}:
        settled |= ready
    assert not graph.keys() - settled, "these import one another, or import what does"


def test_the_layer_test_sees_every_way_to_import() -> None:
    """Negative control: each spelling of a forbidden import is found, and a typing-only one is not."""
    source = """
from typing import TYPE_CHECKING
from ..ratio import heads
from .. import latent
import pyro_gan.objectives.scoring
if TYPE_CHECKING:
    from ..evaluate import plots
def late():
    import sklearn.isotonic
"""
    seen = imports("pyro_gan.mcmc.fake", ast.parse(source), is_package=False, into_functions=True)
    assert {part(name) for name in seen} >= {"ratio", "latent", "objectives"}
    assert "sklearn.isotonic" in seen and not any("evaluate" in name for name in seen)
    top = imports("pyro_gan.mcmc.fake", ast.parse(source), is_package=False, into_functions=False)
    assert "sklearn.isotonic" not in top


def test_every_module_has_its_api_page() -> None:
    listed = set(re.findall(r"^ +(pyro_gan\.\w+)$", (ROOT / "docs/api/index.md").read_text(), flags=re.M))
    public = {f"pyro_gan.{part(name)}" for name in MODULES if part(name) and not part(name).startswith("_")}
    assert listed == public - {"pyro_gan.demo"}  # a program, not an interface


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/index.md",
        "docs/getting_started.md",
        "docs/evaluate.md",
        "docs/implicit_vi.md",
        "docs/objectives.md",
    ],
)
def test_code_on_the_page_runs_as_printed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch)
