"""Ctrl-C and SIGTERM, held back until work is in a state that can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["held_back"]

#: The signals, and the handlers that a process has if the user has set none.
DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Delay the first Ctrl-C, or the first SIGTERM, to the end of the block, and raise it there.

    Ctrl-C is raised as `KeyboardInterrupt`, and SIGTERM as `SystemExit` with the usual status of 143, so that what
    stands in `finally` is done. A second signal is raised at once. A handler that the user has set is kept. Handlers
    can be set in the main thread only; elsewhere nothing is held back.

    Yields:
        A function that tells whether a signal came, for a loop to end early.
    """
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise _interruption(number)

    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in DEFAULTS} if in_main else {}
    held = {number: handler for number, handler in before.items() if handler is DEFAULTS[number]}
    for number in held:
        signal.signal(number, hold)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if came:
        raise _interruption(came[0])


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
