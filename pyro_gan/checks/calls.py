"""Calls of a user's networks: which of them failed, on what, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, final

import torch
from torch import nn

__all__ = ["FAULTS", "TRIAL_FAULTS", "ContextError", "called", "takes_context"]

#: What a call with wrong keywords, or a fault in a network's own code, raises.
FAULTS = (TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
#: The same of a few rows that are tried: torch says RuntimeError for shapes, but also where a machine fails later.
TRIAL_FAULTS = (*FAULTS, RuntimeError)


@final
class ContextError(ValueError):
    """A network was called without a keyword that it needs, or with one that it does not take."""


@contextmanager
def called(
    name: str,
    network: Any,
    takes: str,
    *,
    context: Mapping[str, Any] = MappingProxyType({}),
    faults: tuple[type[Exception], ...] = FAULTS,
) -> Iterator[None]:
    """Say which network failed if a call raises an error of Python; an error of this package is passed on.

    Args:
        name: What the error calls the network.
        network: The function that is called inside.
        takes: What it is called with, in words, with the shape.
        context: The keywords that it is called with.
        faults: The errors that are the network's fault.

    Raises:
        ContextError: if keywords may be wrong or missing.
        ValueError: for any other fault.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except faults as error:
        words = f"Expected a {name} that takes {takes}; got {type(error).__name__}: {error}"
        if isinstance(error, TypeError | KeyError) and (context or takes_context(network)):
            given = f"the keywords {', '.join(context)}" if context else "no keywords"
            raise ContextError(
                f"{words}, with {given}. Give a conditional network its context by the keywords that it takes, "
                "run(label=...) or decode(z, label=...). Generator and critic both get them, so wrap one that takes "
                "none: lambda x, label: critic(x)."
            ) from error
        raise ValueError(f"{words}. Try {name}(batch) by itself: it must run on a batch of that shape.") from error


def takes_context(network: Any) -> bool:
    """Whether a function may take more than its first argument, as far as its signature shows it.

    The modules of this package pass keywords on to what they hold.
    """
    is_ours = type(network).__module__.startswith(__name__.partition(".")[0] + ".")
    if isinstance(network, nn.ModuleList | nn.ModuleDict) or (is_ours and isinstance(network, nn.Module)):
        held = [*network.children(), *vars(network).values()]
        return any(takes_context(item) for item in held if callable(item) and not isinstance(item, type))
    try:
        parameters = inspect.signature(network.forward if isinstance(network, nn.Module) else network).parameters
    except (TypeError, ValueError):  # a function of C has no signature
        return True
    return len(parameters) > 1
