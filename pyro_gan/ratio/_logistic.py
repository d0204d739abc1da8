"""Logistic regression by Newton's method in float64: of a label on one score, or on columns of known sign."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["LogisticFit", "MonotoneFit", "fit_logistic", "fit_monotone"]

MAX_STEPS, MAX_HALVINGS = 100, 50


class LogisticFit(NamedTuple):
    """The line that logistic regression puts through a score."""

    #: Coefficient of the score; NaN if none was found.
    slope: float
    #: Log odds at score 0, beyond the offset.
    intercept: float
    #: Inverse Fisher information of (slope, intercept), `(2, 2)`.
    covariance: Float[Tensor, "2 2"]


def fit_logistic(
    score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float = 0.0
) -> LogisticFit:
    r"""Fit P(label = 1) = sigma(slope * score + intercept + offset) by maximum likelihood.

    Args:
        score: `(row,)`, finite.
        target: The label or its probability, `(row,)`, in [0, 1].
        offset: Known log odds, not fitted.

    Returns:
        The fit; all NaN if the scores are all equal or Newton's method does not settle, as it cannot when a
        threshold separates hard labels.
    """
    score, target = score.double(), target.double()
    centre, scale = score.mean(), score.std()
    missing = LogisticFit(math.nan, math.nan, torch.full((2, 2), math.nan, dtype=torch.float64))
    # A constant's standard deviation is rounding.
    if not scale > 1e-12 * score.abs().max():
        return missing
    design = torch.stack([(score - centre) / scale, torch.ones_like(score)], dim=1)

    def loss(coefficients: Tensor) -> float:
        logit = design @ coefficients + offset
        return float((softplus(logit) - target * logit).sum())

    coefficients = torch.zeros_like(design[0])
    current = loss(coefficients)
    for _ in range(MAX_STEPS):
        logit = design @ coefficients + offset
        gradient = design.T @ (target - torch.sigmoid(logit))
        # sigma(f) sigma(-f), not p (1 - p), keeps its digits where p rounds to 1.
        information = design.T @ (design * (torch.sigmoid(logit) * torch.sigmoid(-logit)).unsqueeze(1))
        step, failed = torch.linalg.solve_ex(information, gradient)
        if failed or not torch.isfinite(step).all():
            return missing
        # Half of it is the log likelihood still to gain, in nats over all rows. One more step squares the error, and
        # is too short for the loss, with its rounding, to judge.
        if gradient @ step < 1e-8:
            coefficients = coefficients + step
            break
        for _ in range(MAX_HALVINGS):
            proposed = loss(coefficients + step)
            if proposed <= current:
                break
            step = step / 2
        coefficients, current = coefficients + step, proposed
    else:
        return missing
    back = torch.stack([torch.stack([1 / scale, 0 * scale]), torch.stack([-centre / scale, scale / scale])])
    slope, intercept = (back @ coefficients).tolist()
    return LogisticFit(slope, intercept, back @ torch.linalg.inv(information) @ back.T)


class MonotoneFit(NamedTuple):
    """Coefficients of columns that may only help."""

    #: `(column,)`, none negative; then the intercept, of any sign, if there is one.
    coefficients: Float[Tensor, " coefficient"]
    #: Negative log likelihood of all rows plus the penalty, in nats.
    loss: float


def fit_monotone(
    columns: Float[Tensor, "row column"],
    target: Float[Tensor, " row"],
    *,
    intercept: bool = False,
    penalty: Float[Tensor, "column column"] | None = None,
) -> MonotoneFit:
    r"""Fit P(label = 1) = sigma(columns @ w + b) by maximum likelihood under w >= 0, with :math:`w' P w / 2` added.

    Projected Newton: coefficients that sit at zero and are pushed below it rest for a step; the others take Newton's,
    and whatever would turn negative becomes zero.

    Args:
        columns: `(row, column)`, finite.
        target: Probability of the label, `(row,)`, strictly between 0 and 1, so that the optimum is finite.
        intercept: Whether there is a b.
        penalty: P, positive semi-definite.

    Returns:
        The fit. The loss is convex: there is one optimum, though columns that depend on one another may share it.

    References:
        Projected Newton methods for optimization problems with simple constraints, D. P. Bertsekas, 1982,
        https://doi.org/10.1137/0320018
    """
    columns, target = columns.double(), target.double()
    design = torch.cat([columns, torch.ones_like(columns[:, :1])], 1) if intercept else columns
    bounded = torch.arange(design.shape[1]) < columns.shape[1]
    curvature = torch.zeros(design.shape[1], design.shape[1], dtype=design.dtype)
    if penalty is not None:
        curvature[: len(penalty), : len(penalty)] = penalty

    def loss(coefficients: Tensor) -> float:
        logit = design @ coefficients
        return float((softplus(logit) - target * logit).sum() + coefficients @ curvature @ coefficients / 2)

    coefficients = torch.zeros_like(design[0])
    current = loss(coefficients)
    for _ in range(MAX_STEPS):
        logit = design @ coefficients
        gradient = design.T @ (target - torch.sigmoid(logit)) - curvature @ coefficients
        information = design.T @ (design * (torch.sigmoid(logit) * torch.sigmoid(-logit)).unsqueeze(1))
        information = information + curvature
        free = ~(bounded & (coefficients <= 0) & (gradient <= 0))
        step = torch.zeros_like(coefficients)
        # A pseudo-inverse, for columns that depend on one another (a logit's two halves, where all have one sign).
        step[free] = (
            torch.linalg.pinv(information[free][:, free], hermitian=True, rtol=1e-12) @ gradient[free]
        )
        if gradient @ step < 1e-8:  # as above
            coefficients = torch.where(bounded, (coefficients + step).clamp(min=0), coefficients + step)
            break
        for _ in range(MAX_HALVINGS):
            moved = torch.where(bounded, (coefficients + step).clamp(min=0), coefficients + step)
            proposed = loss(moved)
            if proposed <= current:
                break
            step = step / 2
        else:
            break  # nothing left that rounding would show
        coefficients, current = moved, proposed
    return MonotoneFit(coefficients, current)
