"""Settings in words: what two runs must have in common, as text that an error can show."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pyro_gan._random import rng_fork

__all__ = ["check_outputs", "describe", "describe_data", "describe_draws", "structure"]

#: Objects inside objects are described to this depth.
MAX_DEPTH = 5
#: Draws that tell two distributions apart.
NUM_DRAWS = 256
#: Items of a data set that are read.
NUM_ITEMS = 16


def check_outputs(name: str, there: Tensor, here: Tensor) -> None:
    """Raise unless a network gives the outputs that were noted, up to the rounding of another machine.

    Networks of equal structure may still compute something else, by a number or by the code of a `forward`.
    """
    near = 1e-3 * float(there.nan_to_num().abs().max())
    if there.shape != here.shape or not torch.allclose(there, here, rtol=1e-2, atol=near, equal_nan=True):
        raise ValueError(
            f"with the weights of the file the {name} returns other values than it did, so something else in it has "
            "changed"
        )


def describe(value: Any, *, depth: int = MAX_DEPTH) -> str:
    """Return a text that is equal for equal settings, in this process and in the next.

    Numbers, strings and containers are written out, tensors and functions have a digest, a distribution is known by its
    draws, and a network by its structure, because its weights may be those that are trained. Any other object is known
    by its class and its attributes.

    Example:
        >>> from pyro_gan.objectives import R1
        >>> describe(R1(5.0))
        "R1(gradient_of='output', weight=5.0)"
        >>> describe(torch.relu), describe({"scales": (0.5, 2)})
        ('relu', "{'scales': [0.5, 2]}")
    """
    inner: Callable[[Any], str] = functools.partial(describe, depth=depth - 1)
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device | torch.Size):
        return repr(value)
    if isinstance(value, Tensor):
        return _tensor(value)
    if hasattr(value, "__array_interface__"):  # NumPy's arrays and numbers, and pictures
        return _tensor(torch.as_tensor(np.array(value)))
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {_digest(repr(structure(value)).encode())}"
    if isinstance(value, Distribution):
        return describe_draws(value)
    if depth == 0:
        return type(value).__name__
    if isinstance(value, functools.partial):
        return f"partial({', '.join(map(inner, (value.func, value.args, value.keywords)))})"
    if isinstance(value, types.MethodType):
        return f"{inner(value.__self__)}.{value.__name__}"
    if isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()] + [value.__defaults__, value.__kwdefaults__]
        return f"{value.__qualname__} {_digest(_code(value.__code__) + repr(list(map(inner, held))).encode())}"
    if inspect.isroutine(value):
        return str(value.__name__)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inner(key)}: {inner(item)}" for key, item in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(inner, value))) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(inner, value)) + "]"
    attributes = sorted(getattr(value, "__dict__", {}).items())
    return f"{type(value).__name__}({', '.join(f'{name}={inner(item)}' for name, item in attributes)})"


def structure(network: nn.Module) -> dict[str, str]:
    """Return what each module of a network is: its type, its settings, and its functions, such as an activation.

    Example:
        >>> structure(nn.Sequential(nn.Linear(2, 1), nn.LeakyReLU(0.3)))["1"]
        'LeakyReLU(negative_slope=0.3)'
    """
    return {
        name: f"{type(module).__name__}({', '.join([module.extra_repr(), *_functions(module)]).strip(', ')})"
        for name, module in network.named_modules()
    }


def describe_draws(distribution: Distribution) -> str:
    """Return a distribution's name with mean and spread of draws that are the same each time; torch's state stays."""

    def marks() -> str:
        torch.manual_seed(0)
        draws = distribution.sample(torch.Size([NUM_DRAWS])).double()
        return f"mean {float(draws.mean()):.6g} and standard deviation {float(draws.std()):.6g} of {NUM_DRAWS} draws"

    shape = tuple(distribution.batch_shape + distribution.event_shape)
    return f"{type(distribution).__name__} of shape {shape}{_repeated(marks, ', ')}"


def describe_data(data: Any) -> str:
    """Return size and a digest of data: of a tensor, of some items of a data set, of a loader's data set.

    Items that differ when they are read twice, as random crops do, are left out.
    """
    if isinstance(data, Tensor):
        return _tensor(data)
    parts = [type(data).__name__]
    if isinstance(data, DataLoader):
        names = ("batch_size", "drop_last", "sampler", "batch_sampler")
        settings = {name: getattr(data, name) for name in names}
        words = [
            f"{name} {value if isinstance(value, int) else type(value).__name__}" for name, value in settings.items()
        ]
        parts += [*words, describe_data(data.dataset)]
    elif isinstance(data, Sequence | Dataset) and not isinstance(data, IterableDataset) and hasattr(data, "__len__"):
        number = len(data)

        def items() -> str:
            torch.manual_seed(0)
            places = sorted({index * (number - 1) // max(NUM_ITEMS - 1, 1) for index in range(NUM_ITEMS)})
            return _digest(repr([describe(data[place]) for place in places]).encode())

        parts += [f"of {number}{_repeated(items, ' ') if number else ''}"]
    return ", ".join(parts)


def _repeated(marks: Callable[[], str], between: str) -> str:
    """Return the marks if they are equal when made twice, or nothing; torch's generators stay."""
    with rng_fork(), torch.no_grad():
        first, second = marks(), marks()
    return f"{between}{first}" if first == second else ""


def _tensor(value: Tensor) -> str:
    """Return dtype, shape and a digest of a tensor; of one that is trained, its shape only."""
    words = f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    if value.requires_grad or value.layout is not torch.strided or value.device.type == "meta":
        return words
    digest = hashlib.sha256()
    rows = value.reshape(-1) if not value.dim() else value
    for part in rows.split(max(2**22 // max(rows[:1].numel(), 1), 1)):  # a few million numbers at a time
        digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{words} {digest.hexdigest()[:8]}"


def _functions(module: nn.Module) -> list[str]:
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [
        f"{name}={describe(value)}"
        for name, value in sorted(own.items())
        if isinstance(value, str | types.FunctionType | types.BuiltinFunctionType | functools.partial | Distribution)
        or type(value).__module__.startswith(__name__.partition(".")[0])  # such as the objective of a learned ratio
    ]


def _code(code: types.CodeType) -> bytes:
    """Return the bytes of a function that do not depend on where it stands."""
    constants = []
    for item in code.co_consts:
        ordered = (
            sorted(map(repr, item)) if isinstance(item, frozenset) else item
        )  # its order is another in each process
        constants.append(_code(item) if isinstance(item, types.CodeType) else repr(ordered).encode())
    return b"|".join([code.co_code, *constants, repr(code.co_names).encode()])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
