"""Checks of arguments: each returns a valid value, or raises a `ValueError` that says what to pass instead."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyro_gan.checks.cures import cure_of_function, cure_of_instance, cure_of_tensor, interval, shown

__all__ = ["batch", "choice", "count", "extra", "function", "instance", "numbers", "random_seed"]
__all__ += ["real", "rows", "shaped", "tensor"]


def count(name: str, value: Any, *, minimum: int = 1, maximum: int | None = None, cure: str = "") -> int:
    """Return a whole number of at least `minimum`, and of at most `maximum` if there is one.

    Args:
        name: What the error calls the argument.
        value: What came: an `int`, or what Python takes for one as an index (NumPy's integers).
        minimum: The smallest number allowed.
        maximum: The largest number allowed, or None.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is out of range, or is no whole number (a float, NaN and a bool among them).

    Example:
        >>> count("num_chains", 4)
        4
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    interval = f"of at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
    if number is None:
        raise _error(f"{name} to be a whole number {interval}", shown(value), cure)
    if number < minimum or (maximum is not None and number > maximum):
        raise _error(f"{name} {interval}", str(number), cure)
    return number


def random_seed(value: Any) -> int:
    """Return a seed that torch, NumPy and scikit-learn all take.

    Raises:
        ValueError: if the value is no whole number between 0 and 2**32 - 1.

    Example:
        >>> random_seed(3)
        3
    """
    return count("seed", value, minimum=0, maximum=2**32 - 1, cure="Pass a number such as 0.")


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
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (minimum is None or number >= minimum)
        and (below is None or number < below)
        and (maximum is None or number <= maximum)
    )
    if not inside:
        raise _error(interval(name, above, minimum, below, maximum), shown(value), cure)
    return number


def numbers(name: str, values: Any, **interval: Any) -> list[float]:
    """Return finite real numbers, at least one; `interval` is that of `real`.

    Raises:
        ValueError: if nothing can be listed, nothing is in it, or a number is outside the interval.

    Example:
        >>> numbers("betas", (0, 0.5), minimum=0)
        [0.0, 0.5]
    """
    try:
        found = list(values)
    except TypeError:
        found = []
    if not found:
        raise _error(f"{name} to hold at least one number", shown(values), "Pass a list of numbers.")
    return [real(name, value, **interval) for value in found]


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


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Add the command that installs an extra to an `ImportError` of what is imported inside."""
    try:
        yield
    except ImportError as error:
        error.add_note(f"pip install pyro-gan[{name}]")
        raise


def function(name: str, value: Any, *, cure: str = "") -> Callable[..., Any]:
    """Return a callable that is no class.

    Raises:
        ValueError: if the value cannot be called, or is a class where an instance is meant.
    """
    if not callable(value) or isinstance(value, type):
        raise _error(f"{name} to be a function or a network", shown(value), cure or cure_of_function(value))
    return value


def instance(name: str, value: Any, *kinds: type, cure: str = "") -> Any:
    """Return an instance of one of these classes.

    Args:
        name: What the error calls the argument.
        value: What came.
        *kinds: The classes.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is of another class.

    Example:
        >>> instance("device", torch.device("cpu"), torch.device)
        device(type='cpu')
    """
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise _error(f"{name} of type {names}", shown(value), cure or cure_of_instance(value, kinds))
    return value


def tensor(name: str, value: Any, *, cure: str = "") -> Tensor:
    """Return a tensor.

    Raises:
        ValueError: if the value is none; NumPy arrays and lists are not converted.
    """
    if not isinstance(value, Tensor):
        raise _error(f"{name} to be a torch.Tensor", shown(value), cure or cure_of_tensor(value))
    return value


def batch(name: str, value: Any, *, cure: str = "") -> Tensor:
    """Return a tensor with at least one row, `(row, *event)`; its values are not read, so no device has to wait.

    Raises:
        ValueError: if the value is no tensor, or has no rows.

    Example:
        >>> batch("data", torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """
    value = tensor(name, value, cure=cure)
    if not value.dim() or not len(value):
        raise _error(f"{name} of shape (row, *event) with at least one row", str(tuple(value.shape)), cure)
    return value


def shaped(name: str, value: Any, shape: Sequence[int | str], *, cure: str = "") -> Tensor:
    """Return a tensor of a given shape.

    Args:
        name: What the error calls the argument.
        value: What came.
        shape: The sizes, with a word for a size that may be any. If the first word is `*batch`, any number of
            dimensions may stand in its place.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is no tensor, or has another shape.

    Example:
        >>> shaped("latents", torch.zeros(5, 4, 2), ("*batch", 2)).shape
        torch.Size([5, 4, 2])
    """
    value = tensor(name, value)
    sizes = [size for size in shape if size != "*batch"]
    got = value.shape[max(value.dim() - len(sizes), 0) :] if len(sizes) < len(shape) else value.shape
    if len(got) != len(sizes) or any(
        want != size for want, size in zip(sizes, got, strict=True) if not isinstance(want, str)
    ):
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise _error(f"{name} of shape ({expected})", str(tuple(value.shape)), cure or "Reshape it, or pass another.")
    return value


def rows(
    name: str,
    value: Any,
    *,
    minimum: int = 1,
    event_shape: tuple[int, ...] | None = None,
    largest: float = math.inf,
    cure: str = "",
) -> Tensor:
    """Return a tensor of finite real rows, `(row, *event)`.

    Args:
        name: What the error calls the argument.
        value: What came.
        minimum: The smallest number of rows allowed.
        event_shape: Shape of a row; any if None.
        largest: The largest absolute value allowed; squares of more than 1e15, summed, overflow in float32.
        cure: A sentence that ends the error.

    Raises:
        ValueError: if the value is no tensor of floats, has too few rows or rows of another shape, or holds NaN,
            infinity or a number that is too large.

    Example:
        >>> rows("real", torch.zeros(5, 2), event_shape=(2,)).shape
        torch.Size([5, 2])
    """
    value = tensor(name, value)
    event = ("*event",) if event_shape is None else event_shape
    if event_shape is not None or not value.dim():
        shaped(name, value, ("row", *event), cure=cure)
    if len(value) < minimum:
        sizes = ", ".join(map(str, ("row", *event))) + ("" if event else ",")
        expected = f"{name} of shape ({sizes}) with at least {minimum} rows"
        raise _error(expected, str(tuple(value.shape)), cure)
    if not value.is_floating_point():
        raise _error(f"{name} as real numbers", str(value.dtype), cure or "Convert them with .float().")
    bad = ~torch.isfinite(value.reshape(len(value), -1)).all(1) if value.numel() else torch.zeros(1) > 0
    if bad.any():
        raise _error(
            f"finite {name}",
            f"NaN or infinity in {int(bad.sum())} of {len(value)} rows",
            cure or "Find out what makes them, or leave those rows out and say how many.",
        )
    far = (value.reshape(len(value), -1).abs() > largest).any(1) if value.numel() else bad
    if far.any():
        raise _error(
            f"{name} of at most {largest:g} in absolute value, because larger squares overflow",
            f"larger ones in {int(far.sum())} of {len(value)} rows",
            "Find out what makes them, or divide all sets by one number.",
        )
    return value


def _error(expected: str, got: str, cure: str) -> ValueError:
    return ValueError(f"Expected {expected}; got {got}.{' ' + cure if cure else ''}")
