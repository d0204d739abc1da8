"""What an error shows of a value that does not fit, and the cure that its kind suggests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["cure_of_function", "cure_of_instance", "cure_of_tensor", "interval", "shown"]


def shown(value: Any) -> str:
    """Return a value as an error shows it: short, with its type where that is not plain."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.dim() else f"tensor({value.item()!r})"
    if value is None or isinstance(value, bool | int | float | str | type):
        return repr(value)
    text = repr(value)
    name = type(value).__name__
    return f"{text} ({name})" if len(text) <= 60 and "\n" not in text else f"an object of type {name}"


def cure_of_function(value: Any) -> str:
    """Return what to pass instead of a value that is no function, or is a class."""
    if isinstance(value, type):
        return f"Make an instance of the class first: {value.__name__}(...)."
    if isinstance(value, str):
        return "Pass the object itself, not its name."
    if isinstance(value, list | tuple) and value and all(map(callable, value)):
        return "Pass one of them, or make one function of them."
    return "Pass a torch.nn.Module, or a function such as lambda x: network(x)."


def cure_of_instance(value: Any, kinds: Iterable[type]) -> str:
    """Return what to pass instead of a value that is of none of these classes."""
    names = " or ".join(f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}" for kind in kinds)
    if isinstance(value, type):
        return f"Make an instance of the class first: {value.__name__}(...)."
    if isinstance(value, list | tuple):
        return f"Pass {names} by itself, not in a {type(value).__name__}."
    return f"Pass {names}."


def cure_of_tensor(value: Any) -> str:
    """Return how to make a tensor of a value that is none."""
    if hasattr(value, "to_numpy"):  # tables of pandas and others
        return "Convert it with torch.as_tensor(table.to_numpy())."
    if isinstance(value, DataLoader):
        return "Collect its batches: torch.cat([torch.as_tensor(batch) for batch in loader])."
    if isinstance(value, Dataset):
        return "Collect its rows: torch.stack([torch.as_tensor(row) for row in dataset])."
    if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
        return "Join them with torch.stack() or torch.cat(), or pass one of them; torch.as_tensor() converts numbers."
    if isinstance(value, dict):
        return "Pass one of its entries; torch.as_tensor() converts numbers and arrays."
    if value is None or isinstance(value, str | type) or callable(value):
        return "Pass a tensor; torch.as_tensor() converts numbers and arrays."
    return "Convert it with torch.as_tensor()."


def interval(name: str, above: float | None, minimum: float | None, below: float | None, maximum: float | None) -> str:
    """Return what is expected of a number between two ends, each of them open, closed or None."""
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
