"""The state of torch's generators: forked, seeded, saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["rng_fork", "rng_state", "seed_rng", "set_rng_state"]


def rng_fork() -> Any:
    """Return a context at whose end torch's global generators are as they were at its start."""
    # A question to an unused GPU would open it, and a process that has opened a GPU cannot fork any more.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices=devices)


def seed_rng(seed: int) -> None:
    """Seed torch's generators: the CPU's, and CUDA's once CUDA is in use.

    `torch.manual_seed` keeps each seed, and a stack trace that takes a millisecond, for a GPU that is not in use yet. A
    GPU that is opened later would start from that seed, although the generators were forked.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of torch's generators: the CPU's, and CUDA's once CUDA is in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore torch's generators to a state that `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
