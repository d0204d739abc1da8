"""A run in a file, loaded only into the run that it was written by, as a whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from pyro_gan import files
from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.checks import count, instance
from pyro_gan.training.describe import structure

__all__ = ["KIND", "CheckpointError", "Stateful", "content", "restore"]

#: What the file is, in words.
KIND = "training checkpoint"
#: So many characters of each of two settings are shown.
SHOWN = 160


@runtime_checkable
class Stateful(Protocol):
    """Anything that can be saved and restored: a module, an optimiser, a record of the run."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors, numbers, strings and containers of them."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore what `state_dict` returned."""


@final
class CheckpointError(ValueError):
    """A checkpoint of another run; the message names the file, the difference and the cure."""


def content(
    parts: Mapping[str, Stateful], settings: Mapping[str, str], progress: Mapping[str, int | bool]
) -> dict[str, Any]:
    """Return what a checkpoint holds: the parts, torch's generators, and what must be equal for the file to fit.

    Args:
        parts: What to keep, by name.
        settings: What a run that goes on must have in common with this one, in words.
        progress: Numbers that `restore` returns.
    """
    return {
        "settings": dict(settings),
        "signature": _signature(parts),
        "progress": dict(progress),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "rng": rng_state(),
    }


def restore(path: Path, parts: Mapping[str, Stateful], settings: Mapping[str, str], num_steps: int) -> tuple[int, bool]:
    """Load a file into the same parts of the same run, and restore torch's generators.

    Args:
        path: The file.
        parts: The parts to fill. None of them has changed if this raises.
        settings: As for `content`.
        num_steps: The number of steps that the run shall have.

    Returns:
        The number of steps done, and whether the run has ended.

    Raises:
        FileError: if the file cannot be read or is damaged.
        CheckpointError: if it belongs to another run.
    """
    found = files.load(path, kind=KIND)
    try:
        there: dict[str, Any] = {name: found[name] for name in ("settings", "signature", "progress", "parts", "rng")}
        step = count("step", there["progress"]["step"], minimum=0)
        ended = instance("ended", there["progress"]["ended"], bool)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint {path} is not whole: {error}. Give another path.") from error
    for name in [*settings, *there["settings"]]:
        one, other = (texts.get(name, "absent") for texts in (there["settings"], settings))
        if one != other:
            raise CheckpointError(
                f"Expected {name} as in the checkpoint, {_clipped(one, other)}; got {_clipped(other, one)}. Continue "
                f"with the same value, or give another path than {path}."
            )
    for name, one, other in _differences(there["signature"], _signature(parts)):
        raise CheckpointError(
            f"The checkpoint {path} does not fit: {name} is {one} there and {other} here. Build the parts that it was "
            "written from, or give another path."
        )
    if step > num_steps:
        raise CheckpointError(
            f"Expected num_steps of at least the {step} steps that the checkpoint {path} has done; got {num_steps}. "
            "Give more, or another path."
        )
    before, generators = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}, rng_state()
    try:
        for name, part in parts.items():
            part.load_state_dict(there["parts"][name])
        set_rng_state(there["rng"])
    except Exception as error:
        for name, part in parts.items():
            part.load_state_dict(before[name])
        set_rng_state(generators)
        raise CheckpointError(
            f"The checkpoint {path} does not fit, and nothing was loaded: {error} ({type(error).__name__}). Build the "
            "parts that it was written from, or give another path."
        ) from error
    return step, ended


def _signature(parts: Mapping[str, Stateful]) -> dict[str, str]:
    """Return what must be equal for a file to fit: names, types, the structure of networks, the shapes of tensors."""
    signature = {}
    for name, part in parts.items():
        signature[name] = type(part).__name__
        if isinstance(part, torch.optim.Optimizer):
            signature[f"{name}.groups"] = str([len(group["params"]) for group in part.param_groups])
        if isinstance(part, torch.nn.Module):
            for key, value in part.state_dict().items():
                if isinstance(value, Tensor):
                    signature[f"{name}.{key}"] = f"{value.dtype} {tuple(value.shape)}"
            signature |= {f"layer {key or 'on top'!r} of {name}": words for key, words in structure(part).items()}
    return signature


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = dict.fromkeys([*here, *there])
    each = [(name, there.get(name, "absent"), here.get(name, "absent")) for name in names]
    return [difference for difference in each if difference[1] != difference[2]]


def _clipped(text: str, other: str) -> str:
    """Return a text, or its part around the first character that differs from another's."""
    if len(text) <= SHOWN:
        return text
    same = next((index for index, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), len(other))
    start = max(min(same - SHOWN // 2, len(text) - SHOWN), 0)
    return f"{'...' if start else ''}{text[start : start + SHOWN]}{'...' if start + SHOWN < len(text) else ''}"
