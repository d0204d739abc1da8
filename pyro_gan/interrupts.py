"""Ctrl-C and SIGTERM in a long call: both raise, but not before finished work can be kept."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

__all__ = ["Bookkeeping", "held_back", "interruptible"]

Handler = Callable[[int, Any], Any]

#: The signals, and the handlers that a process has if the user has set none.
DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Delay the first Ctrl-C, or the first SIGTERM, to the end of the block, and raise it there.

    Both are raised as `KeyboardInterrupt`, so that what stands in `finally` is done. A second signal is raised at once.
    A handler that the user has set is kept. Outside the main thread nothing is held back: no handler can be set there.

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


@final
class Bookkeeping:
    """A context in which a signal waits: what is written there is written whole, then the signal is handled."""

    def __init__(self) -> None:
        self._writing = False
        self._waiting: Callable[[], Any] | None = None

    def __enter__(self) -> None:
        self._writing = True

    def __exit__(self, *exc: Any) -> None:
        self._writing = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()

    def take(self, handler: Handler, signum: int, frame: Any) -> None:
        """Handle a signal now, or at the end of the writing."""
        if self._writing:
            self._waiting = functools.partial(handler, signum, frame)
        else:
            handler(signum, frame)


@contextmanager
def interruptible() -> Iterator[Bookkeeping]:
    """Let SIGTERM raise `KeyboardInterrupt`, as Ctrl-C does, and both wait while the yielded context is entered.

    So a process that is asked to end can keep its finished work. A handler that the user has set is called, and no
    other; it only waits. Outside the main thread nothing changes: signals are never handled there.

    Example:
        >>> import os
        >>> kept = 0
        >>> try:
        ...     with interruptible() as bookkeeping:
        ...         with bookkeeping:
        ...             os.kill(os.getpid(), signal.SIGTERM)
        ...             kept = 1
        ... except KeyboardInterrupt:
        ...     print("kept", kept)
        kept 1
    """
    bookkeeping = Bookkeeping()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            current = signal.getsignal(signum)
            handler = _ended if signum == signal.SIGTERM and current == signal.SIG_DFL else current
            if callable(handler):
                before[signum] = current
                signal.signal(signum, functools.partial(bookkeeping.take, handler))
    try:
        yield bookkeeping
    finally:
        for number, current in before.items():
            signal.signal(number, current)


def _ended(signum: int, frame: Any) -> None:
    raise _interruption(signum)


def _interruption(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else KeyboardInterrupt(signal.Signals(number).name)
