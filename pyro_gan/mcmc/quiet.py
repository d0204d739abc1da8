"""What a run must not disturb, and what must not disturb it: outer handlers of Pyro, checks of distributions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pyro
import pyro.poutine as poutine

__all__ = ["quiet"]


@contextmanager
def quiet(disable_validation: bool | None) -> Iterator[None]:
    """Hide a run from the handlers around it, and switch the checks of distributions off or on.

    Args:
        disable_validation: Whether to switch them off; None leaves them as they are.
    """
    with ExitStack() as stack:
        stack.enter_context(poutine.block())
        if disable_validation is not None:
            stack.enter_context(pyro.validation_enabled(not disable_validation))
        yield
