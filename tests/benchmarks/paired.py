"""Times as ratios: two pieces of work in turns, so that whatever else the machine does befalls both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

__all__ = ["Ratio", "paired", "ratio_of", "timed"]


class Ratio(NamedTuple):
    """How much more one thing is than another.

    Attributes:
        value: Median over rounds.
        low: Lower quartile.
        high: Upper quartile.
        reference: Median of what it is judged against.
        rounds: Rounds that were measured.
    """

    value: float
    low: float
    high: float
    reference: float
    rounds: int


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of processor time that a call takes, over all threads of this process.

    On one thread that is the time by the clock of a machine with nothing else to do, and remains so where others run
    beside it.
    """
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of two figures that were measured in pairs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return Ratio(median(ratios), low, high, median(theirs), len(ratios))


def paired(
    work: Callable[[], Any], reference: Callable[[], Any], *, seconds: float = 6.0, most_rounds: int = 1000
) -> Ratio:
    """Time `work` against `reference`, one call of each in turns, first one and then the other first.

    Args:
        work: What is judged.
        reference: What it is judged against.
        seconds: How long to go on; five rounds at least.
        most_rounds: When to stop in any case.

    Returns:
        The ratio of their times.
    """
    for _ in range(2):
        work(), reference()
    ours: list[float] = []
    theirs: list[float] = []
    end = time.perf_counter() + seconds
    while (len(ours) < 5 or time.perf_counter() < end) and len(ours) < most_rounds:
        pair = [(ours, work), (theirs, reference)]
        for times, call in pair if len(ours) % 2 else reversed(pair):
            times.append(timed(call))
    return ratio_of(ours, theirs)
