"""Checks of arguments and of calls: errors that say what was expected, what came, and what to do instead."""

from pyro_gan.checks.arguments import (
    batch,
    choice,
    count,
    extra,
    function,
    instance,
    numbers,
    random_seed,
    real,
    rows,
    shaped,
    tensor,
)
from pyro_gan.checks.cures import shown

__all__ = [
    "batch",
    "choice",
    "count",
    "extra",
    "function",
    "instance",
    "numbers",
    "random_seed",
    "real",
    "rows",
    "shaped",
    "shown",
    "tensor",
]
