"""Ratios of times: two pieces of work are timed in turns, so that other load on the machine affects both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

__all__ = ["Ratio", "paired", "ratio_of", "timed"]


class Ratio(NamedTuple):
    """A ratio of two figures, over several rounds.

    Attributes:
        value: Median over rounds.
        low: Lower quartile.
        high: Upper quartile.
        reference: Median of the denominator.
        rounds: Number of rounds.
    """

    value: float
    low: float
    high: float
    reference: float
    rounds: int


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of processor time that a call takes, over all threads of this process.

    On one thread this is the wall-clock time of an otherwise idle machine, also if other processes are running.
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
        work: The work in the numerator.
        reference: The work in the denominator.
        seconds: Time to measure for; there are at least five rounds.
        most_rounds: Largest number of rounds.

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
