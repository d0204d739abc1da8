"""A smooth monotone calibration map of any shape: a spline whose slope is piecewise linear and never negative."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.ratio.logistic import fit_monotone
from pyro_gan.ratio.maps.base import Calibrator, platt_line

__all__ = ["MonotoneSpline"]

#: Largest number of knots. They lie at quantiles of the scores, from the first of these levels to the last.
NUM_KNOTS = 8
LEVELS = 0.01, 0.99


@final
class MonotoneSpline(Calibrator):
    r"""A monotone quadratic spline with linear tails, fitted by penalised logistic regression.

    With knots :math:`k_1 < \dots < k_K` and slopes :math:`g_i \ge 0` there,

    .. math:: \log r = b + \int_{k_1}^{s} g(t)\,dt,

    where :math:`g` is linear between knots and constant beyond the first and the last. So the map rises everywhere, has
    a continuous derivative, and is a line where there are no data. Up to eight knots lie at evenly spaced quantiles of
    the scores, 1 % to 99 %, where each class weighs one half. A prior limits how much the slope changes from one knot
    to the next,

    .. math:: g_{i+1} - g_i \sim N\bigl(0,\; p^2 + (k_{i+1} - k_i)^{-2}\bigr),

    with :math:`p` the slope of Platt's line. The change is of the order of that slope, or of one nat over the distance
    of the knots, whichever is larger. With few rows the map is close to a line, with many the prior does not matter.
    The nat allows a steep map where knots are close, as for a critic whose output is the ratio itself and spans
    decades.

    References:
        Monotone Regression Splines in Action, J. O. Ramsay, 1988, https://doi.org/10.1214/ss/1177012761

    Example:
        >>> spline = MonotoneSpline()
        >>> score = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> spline.fit(score[50:], score[:150])
        >>> bool((spline(score).diff() >= 0).all())
        True
    """

    knots: Tensor
    slopes: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        # One knot is a line: the identity.
        self.register_buffer("knots", torch.zeros(1))
        self.register_buffer("slopes", torch.ones(1))
        self.register_buffer("values", torch.zeros(1))

    def parameters_by_name(self) -> dict[str, float]:
        """Return the number of knots, the slopes of both tails, and the least and the greatest slope."""
        return {
            "knots": len(self.knots),
            "lower slope": float(self.slopes[0]),
            "least slope": float(self.slopes.min()),
            "greatest slope": float(self.slopes.max()),
            "upper slope": float(self.slopes[-1]),
        }

    def forward(self, score: Tensor) -> Tensor:
        """Return the spline at the scores, differentiable once."""
        knots, slopes, values = (buffer.to(score.dtype) for buffer in (self.knots, self.slopes, self.values))
        curvature = torch.cat([knots.new_zeros(1), slopes.diff() / knots.diff(), knots.new_zeros(1)])
        piece = torch.searchsorted(knots, score.detach().contiguous(), right=True)
        # Each piece starts at the knot on its left. The lower tail has no such knot, and takes the first.
        anchor = (piece - 1).clamp(min=0)
        beyond = score - knots[anchor]
        return values[anchor] + beyond * (slopes[anchor] + curvature[piece] * beyond / 2)

    def solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float) -> dict[str, Tensor]:
        """Return the knots, and the slopes and values there."""
        knots = _class_quantiles(score, target > 0.5, torch.linspace(*LEVELS, NUM_KNOTS, dtype=score.dtype)).unique()
        gaps = knots.diff()
        # Slopes in nats per distance between neighbours, because distances may span decades.
        unit = 1 / (torch.cat([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]]) if len(gaps) else score.std())
        design = unit * _integrals(score, knots)
        spread = torch.hypot(score.new_tensor(platt_line(score, target, offset=offset)[0]), 1 / gaps)
        changes = (torch.diag(unit.expand(len(knots))).diff(dim=0)) / spread.unsqueeze(1)
        fit = fit_monotone(design, target, intercept=True, penalty=changes.T @ changes, offset=offset)
        slopes, first = unit * fit.coefficients[:-1], fit.coefficients[-1:]
        steps = gaps * (slopes[1:] + slopes[:-1]) / 2
        return {"knots": knots, "slopes": slopes, "values": torch.cat([first, first + steps.cumsum(0)])}


def _class_quantiles(
    score: Float[Tensor, " row"], is_real: Tensor, levels: Float[Tensor, " level"]
) -> Float[Tensor, " level"]:
    """Return quantiles of the scores, where each class weighs one half: else a small class would get no knots.

    A quantile is one of the scores, not a mean of two: so knots are distinct in the scores' own precision too.
    """
    order = score.argsort()
    weight = torch.where(is_real, 0.5 / is_real.sum(), 0.5 / (~is_real).sum()).to(score)[order]
    middle = weight.cumsum(0) - weight / 2
    return score[order][torch.searchsorted(middle, levels).clamp(max=len(score) - 1)]


def _integrals(score: Float[Tensor, " row"], knots: Float[Tensor, " knot"]) -> Float[Tensor, "row knot"]:
    """Return, for each knot, the integral from the first knot to the score of the hat that is 1 at that knot."""
    columns = torch.zeros(len(score), len(knots), dtype=score.dtype)
    columns[:, 0] += (score - knots[0]).clamp(max=0)
    columns[:, -1] += (score - knots[-1]).clamp(min=0)
    for i, (left, right) in enumerate(zip(knots[:-1], knots[1:], strict=True)):
        inside = (score.clamp(left, right) - left) / (right - left)
        rising = (right - left) * inside.square() / 2
        columns[:, i] += (right - left) * inside - rising
        columns[:, i + 1] += rising
    return columns
