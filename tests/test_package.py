"""The package as a whole: what importing it costs, who may import whom, and the examples on its pages."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import final

import pytest

import pyro_gan
from tests.pages import ROOT, run_page

PACKAGE = Path(pyro_gan.__file__).parent
PUBLIC_NAMES = ROOT / "tests/public_names.txt"
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
NAMES_ON_TOP = {
    "ImportanceResampler",
    "LatentPosterior",
    "LogRatio",
    "VectorizedMCMC",
    "calibrate",
    "fit_log_ratio",
    "improve",
    "to_arviz",
    "toys",
}
# part of the package -> the parts that it must never import, whatever their order
NEVERS = {part: {"ratio", "latent", "objectives"} for part in ("targets", "resampling", "mcmc", "annealing")}
# Private names of other objects that the package may read, each of a library that has no public name for it.
FOREIGN = {
    "_version"  # of a tensor: the count of its changes in place
}
# Methods of every NamedTuple, public in spite of their underscore.
NAMED_TUPLE = {"_replace", "_fields", "_asdict", "_make"}
#: Lines of a file of the package, text included.
MAX_LINES = 300


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


def test_few_names_on_top() -> None:
    for name in NAMES_ON_TOP:
        assert name in pyro_gan.__all__
        assert hasattr(pyro_gan, name)
    strangers = {name for name in pyro_gan.__all__ if name not in NAMES_ON_TOP and f"pyro_gan.{name}" not in MODULES}
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
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in TREES[name].body
        )


def import_order() -> list[str]:
    """Return the parts of the package in the order that the architecture page prints."""
    page = (ROOT / "docs/architecture.md").read_text()
    tree = page.split("```text\npyro_gan/\n")[1].split("```")[0]
    return re.findall(r"^[├└]── (\w+)", tree, flags=re.M)


def test_the_printed_order_has_every_part_once() -> None:
    parts = {part(name) for name in MODULES if part(name)}
    order = import_order()
    assert set(order) - {"__init__", "py"} == parts and len(order) == len(set(order))


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_up_the_printed_order(name: str) -> None:
    order = import_order()
    here = part(name)
    parts = {part(imported) for imported in imports_of(name)} - {"", here}
    forbidden = NEVERS.get(here, set()) & parts
    assert not forbidden, f"{name} must know nothing of {forbidden}"
    if here:
        below = {other for other in parts if order.index(other) > order.index(here)}
        assert not below, f"{name} imports {below}, which docs/architecture.md prints below {here}"
    if here not in {"evaluate", "improved", "demo", "__main__", ""}:
        assert "evaluate" not in parts, f"{name} must not import evaluate: only what improves a generator does"


@pytest.mark.parametrize("name", MODULES)
def test_a_file_holds_one_idea(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= MAX_LINES


def foreign_privates(tree: ast.AST) -> set[str]:
    """Return attributes that begin with one underscore and are read of anything but `self`, `cls` or `super()`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr):
            owner = ast.unparse(node.value)
            if owner not in {"self", "cls", "super()"} and node.attr not in FOREIGN | NAMED_TUPLE:
                found.add(f"{owner}.{node.attr}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_no_module_reads_the_private_attributes_of_another_object(name: str) -> None:
    assert not foreign_privates(TREES[name])


def test_the_test_of_privates_sees_them() -> None:
    """Negative control: private attributes of others are found, those of the object itself are not."""
    source = "self._a = kernel._target; super()._b(); state._replace(z=1); cls._c; a.b._d(); vars(x)['_e']; x.__len__"
    assert foreign_privates(ast.parse(source)) == {"kernel._target", "a.b._d"}


def is_abstract_or_final(kind: type) -> bool:
    """Whether a class is one of the two kinds; a Protocol or a TypedDict only describes."""
    described = getattr(kind, "_is_protocol", False) or typing.is_typeddict(kind)
    return described or inspect.isabstract(kind) != bool(vars(kind).get("__final__", False))


@pytest.mark.parametrize("name", MODULES)
def test_every_class_is_abstract_or_final(name: str) -> None:
    if name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    classes = [node.name for node in TREES[name].body if isinstance(node, ast.ClassDef)]
    neither = [kind for kind in classes if not is_abstract_or_final(getattr(module, kind))]
    assert not neither, "mark them @final, or leave something for a subclass to write"


def test_the_test_of_kinds_sees_both_faults() -> None:
    """Negative control: a class that is neither abstract nor final, and one that claims to be both, are found."""

    class Neither:
        pass

    class Both(ABC):
        @abstractmethod
        def run(self) -> None:
            """Run."""

    assert not is_abstract_or_final(Neither) and not is_abstract_or_final(final(Both))


def signatures() -> dict[str, str]:
    """Return every public name of the package with its signature, as text."""
    found = {}
    for name in sorted(MODULES):
        if name.endswith("__main__") or "._" in name or name.startswith("pyro_gan.demo"):
            continue
        module = importlib.import_module(name)
        for public in module.__all__ if MODULES[name].name == "__init__.py" else ():
            value = getattr(module, public)
            if inspect.ismodule(value):
                continue
            try:
                text = str(inspect.signature(value)) if callable(value) else type(value).__name__
            except (TypeError, ValueError):
                text = "class"
            # Default values that are objects print an address.
            found[f"{name}.{public}"] = re.sub(r" at 0x[0-9a-f]+", "", text)
        if name in ("pyro_gan.importance", "pyro_gan.checks", "pyro_gan.export"):
            for public in module.__all__:
                found[f"{name}.{public}"] = str(inspect.signature(getattr(module, public)))
    return found


def test_public_names_and_signatures_are_those_on_file() -> None:
    """A change of the public face must touch tests/public_names.txt: `python -m tests.test_package` writes it."""
    written = dict(line.split("\t") for line in PUBLIC_NAMES.read_text().splitlines())
    assert signatures() == written


@pytest.mark.parametrize("name", MODULES)
def test_heavy_imports_stay_inside_functions(name: str) -> None:
    at_the_top = {imported.partition(".")[0] for imported in imports_of(name, into_functions=False)}
    assert not at_the_top & HEAVY


def test_modules_do_not_import_in_a_circle() -> None:
    inner = MODULES.keys() - {"pyro_gan", "pyro_gan.__main__"}
    graph = {name: {other for other in imports_of(name) if other in MODULES and other != name} for name in inner}
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
    "page", ["README.md", "docs/index.md", "docs/evaluate.md", "docs/implicit_vi.md", "docs/objectives.md"]
)
def test_code_on_the_page_runs_as_printed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch)


if __name__ == "__main__":
    PUBLIC_NAMES.write_text("".join(f"{name}\t{text}\n" for name, text in signatures().items()))
