"""Checks of arguments: each returns a valid value, or raises a `ValueError` that says what to pass instead."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

__all__ = ["choice", "count", "function", "real", "rows", "tensor"]


def count(name: str, value: Any, *, minimum: int = 1, cure: str = "") -> int:
    """Return a whole number of at least `minimum`.

    Args:
        name: What the error calls the argument.
        value: What came: an `int`, or what Python takes for one as an index (NumPy's integers).
        minimum: The smallest number allowed.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is smaller, or is no whole number (a float, NaN and a bool among them).

    Example:
        >>> count("num_chains", 4)
        4
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise _error(f"{name} to be a whole number of at least {minimum}", shown(value), cure)
    if number < minimum:
        raise _error(f"{name} of at least {minimum}", str(number), cure)
    return number


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    cure: str = "",
) -> float:
    """Return a finite real number inside an interval.

    Args:
        name: What the error calls the argument.
        value: What came: a number, or a tensor or array that holds one.
        above: The open lower end, or None.
        minimum: The closed lower end, or None.
        below: The open upper end, or None.
        maximum: The closed upper end, or None.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is outside, NaN, infinite, or no number.

    Example:
        >>> real("temperature", 2, above=0)
        2.0
    """
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (minimum is None or number >= minimum)
        and (below is None or number < below)
        and (maximum is None or number <= maximum)
    )
    if not inside:
        raise _error(_interval(name, above, minimum, below, maximum), shown(value), cure)
    return number


def choice(name: str, value: Any, options: Collection[str], *, cure: str = "") -> str:
    """Return one of a few words.

    Raises:
        ValueError: if the value is another.

    Example:
        >>> choice("keep", "all", ("all", "last"))
        'all'
    """
    if not isinstance(value, str) or value not in options:
        raise _error(f"{name} to be one of {', '.join(map(repr, options))}", shown(value), cure)
    return value


def function(name: str, value: Any, *, cure: str = "") -> Callable[..., Any]:
    """Return a callable that is no class.

    Raises:
        ValueError: if the value cannot be called, or is a class where an instance is meant.
    """
    if not callable(value) or isinstance(value, type):
        raise _error(f"{name} to be a function or a network", shown(value), cure)
    return value


def tensor(name: str, value: Any, *, cure: str = "") -> Tensor:
    """Return a tensor.

    Raises:
        ValueError: if the value is none; NumPy arrays and lists are not converted.
    """
    if not isinstance(value, Tensor):
        raise _error(
            f"{name} to be a torch.Tensor", shown(value), cure or "Convert it with torch.as_tensor()."
        )
    return value


def rows(
    name: str, value: Any, *, minimum: int = 1, event_shape: tuple[int, ...] | None = None, cure: str = ""
) -> Tensor:
    """Return a tensor of finite real rows, `(row, *event)`.

    Args:
        name: What the error calls the argument.
        value: What came.
        minimum: The smallest number of rows allowed.
        event_shape: Shape of a row; any if None.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is no tensor of floats, has too few rows or rows of another shape, or holds NaN or
            infinity.

    Example:
        >>> rows("real", torch.zeros(5, 2), event_shape=(2,)).shape
        torch.Size([5, 2])
    """
    value = tensor(name, value)
    expected = "*event" if event_shape is None else ", ".join(map(str, event_shape))
    shape = f"{name} of shape (row, {expected})" if expected else f"{name} of shape (row,)"
    if value.dim() < 1 or (event_shape is not None and tuple(value.shape[1:]) != tuple(event_shape)):
        raise _error(shape, str(tuple(value.shape)), cure)
    if len(value) < minimum:
        raise _error(f"{shape} with at least {minimum} rows", str(tuple(value.shape)), cure)
    if not value.is_floating_point():
        raise _error(f"{name} as real numbers", str(value.dtype), cure or "Convert them with .float().")
    bad = ~torch.isfinite(value.reshape(len(value), -1)).all(1) if value.numel() else torch.zeros(1) > 0
    if bad.any():
        raise _error(
            f"finite {name}",
            f"NaN or infinity in {int(bad.sum())} of {len(value)} rows",
            cure or "Drop them.",
        )
    return value


def shown(value: Any) -> str:
    """Return a value as an error shows it: short, with its type where that is not plain."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.dim() else f"tensor({value.item()!r})"
    if value is None or isinstance(value, bool | int | float | str | type):
        return repr(value)
    text = repr(value)
    name = type(value).__name__
    return f"{text} ({name})" if len(text) <= 60 and "\n" not in text else f"an object of type {name}"


def _interval(
    name: str, above: float | None, minimum: float | None, below: float | None, maximum: float | None
) -> str:
    low = above if minimum is None else minimum
    high = below if maximum is None else maximum
    if high is None:
        if low is None:
            return f"a finite {name}"
        if low == 0 and minimum is None:
            return f"a positive, finite {name}"
        return f"a finite {name} {'above' if minimum is None else 'of at least'} {low:g}"
    left = "(-inf" if low is None else f"{'(' if minimum is None else '['}{low:g}"
    return f"{name} in {left}, {high:g}{')' if maximum is None else ']'}"


def _error(expected: str, got: str, cure: str) -> ValueError:
    return ValueError(f"Expected {expected}; got {got}.{' ' + cure if cure else ''}")
