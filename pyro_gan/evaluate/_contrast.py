"""The difference of two sets in one figure, free of the bias of few effective rows, with its error over blocks.

Take a figure J of a distribution, such as a distance to real data. J(after) - J(before) is mean(h, after) - mean(h,
before) for some function h, the mean slope of J between the two. Estimated from the rows that it judges, h would fit
their noise, and the side with fewer effective rows would look worse. So h comes from one half of the blocks and judges
the other half. If both sides have one distribution, the difference is then 0 on average, however the rows of a block
depend on each other.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

import numpy as np

from pyro_gan.checks import extra
from pyro_gan.evaluate._sides import Sides, effective_blocks

__all__ = ["Contrast", "Witness", "contrasts", "real_variance"]


@final
class Witness(NamedTuple):
    """A figure of both sides, and the functions whose means are its difference."""

    #: The figure of before.
    before: float
    #: The figure of after.
    after: float
    #: h of every row of before and after, made from the other fold, `(row,)`.
    rows: np.ndarray
    #: Variance of the difference over repeated real rows.
    real_variance: float


@final
class Contrast(NamedTuple):
    """A difference, its error and the p-value of no difference."""

    #: The difference, after minus before.
    difference: float
    #: Its standard error over repeated blocks of both sides and repeated real rows.
    standard_error: float
    #: Two-sided, of Student's distribution.
    p_value: float


def contrasts(witnesses: dict[str, Witness], sides: Sides) -> dict[str, Contrast]:
    """Return the difference of every figure with its error, from the means of its witness over both sides and folds."""
    degrees = np.array([[effective_blocks(sides.block[sides.of(s, f)]) - 1 for f in (0, 1)] for s in (0, 1)])
    degrees = degrees.clip(min=1)
    terms = {name: _terms(witness.rows, sides, degrees) for name, witness in witnesses.items()}
    parts = {
        name: np.array([[_variance(own, sides.block, sides.of(s, f)) for f in (0, 1)] for s in (0, 1)])
        for name, own in terms.items()
    }
    fewer = int(degrees[1].sum() < degrees[0].sum())
    spread = [part.sum(1)[fewer] / part.sum(1)[1 - fewer] for part in parts.values() if part.sum(1)[1 - fewer] > 0]
    # A side of few blocks can miss by chance what is rare, and then shows no spread. How much more spread its blocks
    # make is taken from all figures, if one shows less.
    usual = float(np.median(spread)) if spread else 1.0
    found = {}
    for name, witness in witnesses.items():
        # Blocks that both sides share count once, with their sum.
        folds = [_variance(terms[name], sides.block, sides.fold == fold) for fold in (0, 1)]
        total = sum(folds) + 2 * _correlation(parts[name]) * math.sqrt(folds[0] * folds[1])
        if sides.is_uneven:
            own, other = parts[name].sum(1)[fewer], parts[name].sum(1)[1 - fewer]
            total += max(usual * other - own, 0.0)
        found[name] = _contrast(witness, _difference(witness.rows, sides), total, float(degrees.sum(1).min()))
    return found


def _contrast(witness: Witness, difference: float, variance: float, degrees: float) -> Contrast:
    with extra("evaluate"):
        from scipy.stats import t
    error = math.sqrt(variance + witness.real_variance)
    # Below this there is only rounding.
    if abs(difference) <= 1e-12 * float(np.abs(witness.rows).max()):
        return Contrast(difference, error, 1.0)
    if not error:
        return Contrast(difference, error, 0.0)
    return Contrast(difference, error, float(2 * t.sf(abs(difference) / error, degrees)))


def _difference(rows: np.ndarray, sides: Sides) -> float:
    before, after = (np.mean([rows[sides.of(side, fold)].mean() for fold in (0, 1)]) for side in (0, 1))
    return float(after - before)


def _terms(rows: np.ndarray, sides: Sides, degrees: np.ndarray) -> np.ndarray:
    """Return the term of each row in the difference, as it varies."""
    terms = np.zeros(len(rows))
    for side in (0, 1):
        for fold in (0, 1):
            own = sides.of(side, fold)
            # The mean of few blocks lies too near to them.
            widen = math.sqrt(1 + 1 / degrees[side, fold])
            terms[own] = widen * (side - 0.5) / own.sum() * (rows[own] - rows[own].mean())
    return terms


def real_variance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the variance of a difference that is a mean over real rows, from their terms by either fold, `(real,)`.

    The terms have noise of the outputs, too. It is not in the product of two folds, on average.
    """
    product = (first - first.mean()) * (second - second.mean())
    return max(float(product.mean()), 0.0) / len(first)


def _variance(terms: np.ndarray, block: np.ndarray, own: np.ndarray) -> float:
    return float((np.bincount(block[own], weights=terms[own]) ** 2).sum())


def _correlation(parts: np.ndarray) -> float:
    """Return the largest correlation of the two folds' differences.

    Where a distance is 0, h is noise, and the product of the noise of two folds is in both differences. If a is the
    variance of one side's means and b that of the other's, the correlation is ((a - b) / (a + b))^2: for a form
    (a1 - b1)(a2 + b2) it follows by multiplying out. A real difference, or noise of the real rows, only lowers it.
    """
    before, after = parts.sum(1)
    return float(((after - before) / (after + before)) ** 2) if after + before > 0 else 0.0
