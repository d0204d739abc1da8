"""A run in a file: written whole or not at all, and loaded only into parts like those that wrote it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.checks import instance

__all__ = ["Stateful", "check_path", "restore", "save"]

_FORMAT = "pyro_gan 1"


@runtime_checkable
class Stateful(Protocol):
    """Anything that can be saved and restored: a module, an optimiser, a record of the run."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors, numbers, strings and containers of them."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore what `state_dict` returned."""


def check_path(checkpoint: Any) -> Path:
    """Return the path of a checkpoint; raise now, not at the first write, if there is no folder to write to."""
    path = Path(instance("checkpoint", checkpoint, str, os.PathLike))
    if not path.parent.is_dir():
        raise ValueError(f"Expected a path in an existing folder; there is no {path.parent}. Create it.")
    return path


def save(path: Path, parts: Mapping[str, Stateful], progress: Mapping[str, int | bool]) -> None:
    """Write parts, progress and torch's generators to a file beside the path, read it back, and rename it.

    A process that is killed at any moment leaves either the old file or the new one.

    Args:
        path: The file.
        parts: What to keep, by name.
        progress: Numbers that `restore` returns.

    Raises:
        ValueError: if a part's state holds anything but tensors, numbers, strings and containers of them.
    """
    content = {
        "format": _FORMAT,
        "signature": _signature(parts),
        "progress": dict(progress),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "rng": rng_state(),
    }
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        torch.load(beside, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        beside.unlink()
        raise ValueError(
            "Expected only tensors, numbers, strings and containers of them in a checkpoint; "
            f"got another type, named above, in one of {list(parts)}. An earlier checkpoint is unchanged."
        ) from error
    os.replace(beside, path)


def restore(path: Path, parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Load a file that `save` wrote into the same parts, and restore torch's generators.

    Args:
        path: The file.
        parts: The parts to fill; none of them changes if they are not those of the file.

    Returns:
        The progress that was saved.

    Raises:
        ValueError: if the file cannot be read, or has other parts.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"Expected a checkpoint at {path}; the file cannot be read. Give another path.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"Expected a checkpoint in the format {_FORMAT!r} at {path}. Give another path.")
    there, here = content["signature"], _signature(parts)
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            raise ValueError(
                f"The checkpoint {path} does not fit: {name} is {there.get(name, 'absent')} there and "
                f"{here.get(name, 'absent')} here. Build the parts that it was written from, or give another path."
            )
    for name, part in parts.items():
        part.load_state_dict(content["parts"][name])
    set_rng_state(content["rng"])
    return dict(content["progress"])


def _signature(parts: Mapping[str, Stateful]) -> dict[str, str]:
    """Return what must be equal for a file to fit: names, types and the shapes of tensors."""
    signature = {}
    for name, part in parts.items():
        signature[name] = type(part).__name__
        if isinstance(part, torch.optim.Optimizer):
            signature[f"{name}.groups"] = str([len(group["params"]) for group in part.param_groups])
        if isinstance(part, torch.nn.Module):
            for key, value in part.state_dict().items():
                if isinstance(value, Tensor):
                    signature[f"{name}.{key}"] = f"{value.dtype} {tuple(value.shape)}"
    return signature
