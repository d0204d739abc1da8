"""A process that is killed in the middle of its work: no handler runs, and no buffer is flushed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

__all__ = ["die_at", "run_killed"]


def die_at(step: int) -> Callable[..., None]:
    """Return a callback that kills its own process at a step, as the system does where memory ends."""

    def die(now: int, *_: Any) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def run_killed(work: Callable[[], Any]) -> None:
    """Run work in a process of its own, and assert that it was killed. A fork saves the imports of a fresh process."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
