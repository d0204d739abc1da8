"""The state of torch's generators: forked, saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["rng_fork", "rng_state", "set_rng_state"]


def rng_fork() -> Any:
    """Return a context in which draws leave torch's global generators as they were."""
    # Asking a GPU that nobody has used yet would open it, and a process that did so cannot fork any more.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices=devices)


def rng_state() -> dict[str, Any]:
    """Return the state of torch's generators, CPU and (once in use) CUDA."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put torch's generators back to where `rng_state` found them."""
    torch.set_rng_state(state["cpu"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
