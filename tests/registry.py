"""Finds the members of a family in the package, so that a law about the family tests a new member by itself."""

from __future__ import annotations

import inspect
from types import ModuleType

__all__ = ["concrete_members"]


def concrete_members(module: ModuleType, base: type) -> dict[str, type]:
    """Return the concrete classes under `base` that a module exports, by name; aliases of one class count once."""
    found: dict[str, type] = {}
    for name in module.__all__:
        value = getattr(module, name)
        if (
            inspect.isclass(value)
            and issubclass(value, base)
            and not inspect.isabstract(value)
            and value not in found.values()
        ):
            found[value.__name__] = value
    return dict(sorted(found.items()))
