"""A pytest plugin that adds the examples of docs/extend.md to the package, as a contributor's new files would.

`pytest -p tests.with_extensions -k Barker` runs every law that finds the new kernel; no test file names it.
"""

from __future__ import annotations

import importlib
import sys
import types

from tests.pages import code_blocks

__all__ = ["EXAMPLES"]

#: Example -> the modules that export it once it is part of the package.
EXAMPLES = {
    "Barker": ["pyro_gan.mcmc"],
    "Jeffreys": ["pyro_gan.objectives"],
    "Kink": ["pyro_gan.ratio.maps", "pyro_gan.ratio"],
    "energy_distance": ["pyro_gan.evaluate"],
}


def _add(name: str, block: str, homes: list[str]) -> None:
    # The file that the page asks for: what is defined there pickles.
    module = types.ModuleType(f"{homes[0]}.{name.lower()}")
    sys.modules[module.__name__] = module
    exec(compile(block, "docs/extend.md", "exec"), vars(module))
    for home in map(importlib.import_module, homes):
        setattr(home, name, getattr(module, name))
        home.__all__ = sorted([*home.__all__, name])


def pytest_configure() -> None:
    """Add every example before the tests are collected."""
    for name, homes in EXAMPLES.items():
        (block,) = (code for code in code_blocks("docs/extend.md") if f'__all__ = ["{name}"]' in code)
        _add(name, block, homes)
