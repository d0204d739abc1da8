"""Pyro's handlers and its switch of validation, which all threads share: used by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import pyro
import pyro.poutine as poutine

__all__ = ["alone", "validated"]

_LOCK = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Run what uses Pyro's handlers while no other thread does, and hide it from the handlers around it."""
    with _LOCK, poutine.block():
        yield


@final
class _Wishes:
    """What each run that is under way wants of Pyro's validation, and what it was before the first one."""

    def __init__(self) -> None:
        self._wanted: list[bool] = []
        self._before = True, True, True

    def add(self, enabled: bool) -> None:
        """Switch it for one more run."""
        if not self._wanted:
            modules = pyro.distributions, pyro.infer, poutine
            self._before = tuple(module.is_validation_enabled() for module in modules)
        self._wanted.append(enabled)
        pyro.enable_validation(enabled)

    def remove(self, enabled: bool) -> None:
        """Let one run go: the last one leaves it as the first one found it."""
        self._wanted.remove(enabled)
        if self._wanted:
            pyro.enable_validation(self._wanted[-1])
            return
        for module, status in zip((pyro.distributions, pyro.infer, poutine), self._before, strict=True):
            module.enable_validation(status)


_WISHES = _Wishes()


@contextmanager
def validated(enabled: bool | None) -> Iterator[None]:
    """Switch the checks of distributions on or off, with other threads that do; None leaves them as they are."""
    if enabled is None:
        yield
        return
    with _LOCK:
        _WISHES.add(enabled)
    try:
        yield
    finally:
        with _LOCK:
            _WISHES.remove(enabled)
