"""Logistic regression of a label on one score, by Newton's method in float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["LogisticFit", "fit_logistic"]

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
