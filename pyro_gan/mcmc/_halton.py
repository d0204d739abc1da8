"""Numbers between 0 and 1 that are spread more evenly than random ones, for the lengths of trajectories."""

from __future__ import annotations

__all__ = ["halton"]


def halton(index: int) -> float:
    """Return the number whose binary digits are those of `index`, mirrored at the point: 1/2, 1/4, 3/4, 1/8, ...

    Any stretch of the sequence covers (0, 1) nearly evenly, so a few trajectories in a row already include short and
    long ones. The sequence needs no generator and no device.

    Args:
        index: 1 or more.

    References:
        On the efficiency of certain quasi-random sequences of points in evaluating multi-dimensional integrals,
        Halton, 1960, https://doi.org/10.1007/BF01386213.

    Example:
        >>> [halton(index) for index in (1, 2, 3, 4)]
        [0.5, 0.25, 0.75, 0.125]
    """
    value, digit = 0.0, 0.5
    while index:
        value += digit * (index & 1)
        index, digit = index >> 1, digit / 2
    return value
