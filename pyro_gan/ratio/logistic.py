"""Logistic regression by Newton's method in float64: of a label on one score, or on columns of known sign."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan.checks import real, rows, shaped

__all__ = ["LogisticFit", "MonotoneFit", "fit_logistic", "fit_monotone"]

#: Largest numbers of Newton steps, and of halvings of a step.
MAX_STEPS, MAX_HALVINGS = 100, 50


@final
class LogisticFit(NamedTuple):
    """The line that logistic regression fits to a score.

    Attributes:
        slope: Coefficient of the score; NaN if none was found.
        intercept: Log odds at score 0, without the offset.
        covariance: Inverse Fisher information of (slope, intercept), `(2, 2)`.
    """

    slope: float
    intercept: float
    covariance: Float[Tensor, "2 2"]


def fit_logistic(score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float = 0.0) -> LogisticFit:
    r"""Fit P(label = 1) = sigma(slope * score + intercept + offset) by maximum likelihood.

    Args:
        score: `(row,)`, finite.
        target: The label or its probability, `(row,)`, in [0, 1].
        offset: Known log odds, which are not fitted.

    Returns:
        The fit. All of it is NaN if the scores are all equal, or if Newton's method does not converge, as when a
        threshold separates labels that are exactly 0 and 1.

    Raises:
        ValueError: if shapes do not fit, or a value is NaN, infinite or no float.
    """
    score, target = _columns("score", score, target)
    offset = real("offset", offset)
    centre, scale = score.mean(), score.std()
    missing = LogisticFit(math.nan, math.nan, torch.full((2, 2), math.nan, dtype=torch.float64))
    # The standard deviation of a constant is a rounding error.
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
        # Where p rounds to 1, sigma(f) sigma(-f) keeps its digits and p (1 - p) does not.
        information = design.T @ (design * (torch.sigmoid(logit) * torch.sigmoid(-logit)).unsqueeze(1))
        step, failed = torch.linalg.solve_ex(information, gradient)
        if failed or not torch.isfinite(step).all():
            return missing
        # Half of this product is the log likelihood still to gain, in nats over all rows. One more step squares the
        # error; the rounding of the loss hides such a short step.
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


@final
class MonotoneFit(NamedTuple):
    """Logistic regression with coefficients that are not negative.

    Attributes:
        coefficients: One for each column, not negative; then the intercept, of any sign, if there is one.
        loss: Negative log likelihood of all rows plus the penalty, in nats.
    """

    coefficients: Float[Tensor, " coefficient"]
    loss: float


def fit_monotone(
    columns: Float[Tensor, "row column"],
    target: Float[Tensor, " row"],
    *,
    intercept: bool = False,
    penalty: Float[Tensor, "column column"] | None = None,
    offset: float = 0.0,
) -> MonotoneFit:
    r"""Fit P(label = 1) = sigma(columns @ w + b + offset) by maximum likelihood under w >= 0.

    The loss has :math:`w' P w / 2` added.

    The method is projected Newton. A coefficient at zero whose gradient points below zero stays there for a step. The
    others take Newton's step, and those that would become negative become zero.

    Args:
        columns: `(row, column)`, finite.
        target: Probability of the label, `(row,)`, strictly between 0 and 1, so that the optimum is finite.
        intercept: Whether there is a b.
        penalty: P, `(column, column)`, positive semi-definite.
        offset: Known log odds, which are not fitted: those of unequal classes, log(n_real / n_generated).

    Returns:
        The fit. The loss is convex, so its minimum is unique; with linearly dependent columns the coefficients are not.

    Raises:
        ValueError: if shapes do not fit, or a value is NaN, infinite or no float.

    References:
        Projected Newton methods for optimization problems with simple constraints, D. P. Bertsekas, 1982,
        https://doi.org/10.1137/0320018
    """
    columns, target = _columns("columns", columns, target, dim=2)
    offset = real("offset", offset)
    design = torch.cat([columns, torch.ones_like(columns[:, :1])], 1) if intercept else columns
    bounded = torch.arange(design.shape[1]) < columns.shape[1]
    curvature = torch.zeros(design.shape[1], design.shape[1], dtype=design.dtype)
    if penalty is not None:
        num = columns.shape[1]
        curvature[:num, :num] = shaped("penalty", penalty, (num, num))

    def loss(coefficients: Tensor) -> float:
        logit = design @ coefficients + offset
        return float((softplus(logit) - target * logit).sum() + coefficients @ curvature @ coefficients / 2)

    coefficients = torch.zeros_like(design[0])
    current = loss(coefficients)
    for _ in range(MAX_STEPS):
        logit = design @ coefficients + offset
        gradient = design.T @ (target - torch.sigmoid(logit)) - curvature @ coefficients
        information = design.T @ (design * (torch.sigmoid(logit) * torch.sigmoid(-logit)).unsqueeze(1))
        information = information + curvature
        free = ~(bounded & (coefficients <= 0) & (gradient <= 0))
        step = torch.zeros_like(coefficients)
        # A pseudo-inverse, because columns may be linearly dependent (the two halves of a logit, if all have one sign).
        step[free] = torch.linalg.pinv(information[free][:, free], hermitian=True, rtol=1e-12) @ gradient[free]
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
            break  # rounding hides what is left to gain
        coefficients, current = moved, proposed
    return MonotoneFit(coefficients, current)


def _columns(name: str, value: Tensor, target: Tensor, *, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return a value of so many dimensions and a target for each of its rows, in float64."""
    target = rows("target", target, event_shape=())
    shaped(name, rows(name, value), (len(target), "column")[:dim])
    return value.double(), target.double()
