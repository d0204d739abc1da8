"""Does a ratio bring the moments of the generated data closer to those of the real data? The test before sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.importance import finite_weights, has_enough_draws, jackknife_error, weight_tail
from pyro_gan.importance.mean import positive_weights

__all__ = ["MomentChange", "moment_change"]

#: A change counts from so many bootstrap errors on; normal chance exceeds them once in 370 comparisons, either way.
NUM_ERRORS = 3.0

#: A change of so small a part of the gaps is their rounding, or as good as none, however sure its sign is.
ROUNDING = 1e-4

#: Columns that the report names.
NUM_WORST = 5

#: Bootstrap replicates whose counts are held in memory at once.
REPLICATES = 20


@final
@dataclass(frozen=True, eq=False)
class MomentChange:
    """How far the means of generated features are from the real ones, without weights and with them. `print` it.

    A gap is the squared difference of two means in units of the real variance, minus what sampling alone gives, as the
    mean over the columns. It is 0 for equal distributions, and may then be slightly negative by chance.
    """

    #: Numbers of real rows, of generated rows, and of columns that vary over the real rows.
    num_real: int
    num_generated: int
    num_columns: int
    #: The gap without weights (r = 1), and with them.
    before: float
    after: float
    #: After minus before, and its error: the bootstrap's over the real and the generated rows, and that of the ratio.
    change: float
    change_se: float
    #: Effective number of the weighted rows.
    ess: float
    #: "better", "worse", "no difference that these rows can show", or "too few effective draws".
    verdict: str
    #: The part of `change_se` that is the error of the ratio itself, from its replicates; None without them.
    ratio_se: float | None
    #: The columns with the largest gap after weighting, worst first: index, gap before and gap after.
    worst: tuple[tuple[int, float, float], ...]

    def __str__(self) -> str:
        lines = [
            f"moments of {self.num_columns} features, {self.num_real} real rows against {self.num_generated} generated",
            f"{'gap before':<22} {self.before:>20.4f}   0",
            f"{'gap after':<22} {self.after:>20.4f}   below the gap before",
            f"{'change':<22} {f'{self.change:+.4f} +- {self.change_se:.4f}':>20}   negative: {self.verdict}",
        ]
        columns = ", ".join(f"{index} ({before:.3g} -> {after:.3g})" for index, before, after in self.worst)
        return "\n".join([*lines, f"worst columns: {columns}"])


def moment_change(
    features_real: Float[Tensor, "real feature"],
    features_generated: Float[Tensor, "generated feature"],
    log_weights: Float[Tensor, " generated"],
    *,
    replicates: Float[Tensor, "replicate generated"] | None = None,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> MomentChange:
    r"""Compare the weighted means of generated features with the real means, and with the means without weights.

    The exact ratio has :math:`E_G[r f] = E_{data}[f]` for every function f. A calibrated critic has it for functions of
    its own score alone, so its report can be all good while the weights make the data worse. For each column

    .. math:: \text{gap} = \frac{(\sum_i w_i f_i - \bar f)^2 - \sum_i w_i^2 (f_i - \sum_j w_j f_j)^2 - s^2 / m}{s^2},
        \qquad \sum_i w_i = 1,

    where :math:`\bar f` and :math:`s^2` are the mean and variance over m real rows. The second and third terms are what
    sampling alone adds to the first. The verdict is the sign of the mean change against its error. The number of
    columns whose difference is significant says nothing: few effective draws make every difference insignificant.

    Args:
        features_real: Columns of real rows that made neither the ratio nor its calibration.
        features_generated: The same columns of generated rows.
        log_weights: Log weight of each generated row, in nats, up to a constant: log ratios, divided by a temperature
            if there is one; minus infinity is a weight of zero.
        replicates: The same log weights as each of several fits without a part of the data gives them, such as those of
            `MeanLogRatio.each`. The jackknife's error of the change over them is then a part of `change_se`. None if
            they are unknown.
        num_bootstrap: Bootstrap replicates for the error of the change.
        seed: Of the bootstrap, which has its own generator.

    Returns:
        The record. The verdict is "too few effective draws" with fewer than 100 of them, or where ten draws hold half
        of the weight: the bootstrap does not see the draws that are missing there, and its error is too small.

    Raises:
        ValueError: if a shape is wrong, a feature is not finite, a weight is NaN or plus infinity, all weights are
            zero, or no column varies over the real rows.

    References:
        Bootstrap Methods: Another Look at the Jackknife, B. Efron, 1979, https://doi.org/10.1214/aos/1176344552

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> real = torch.randn(2000, 3, generator=generator) + torch.tensor([0.5, 0.0, 0.0])
        >>> generated = torch.randn(5000, 3, generator=generator)
        >>> moment_change(real, generated, 0.5 * generated[:, 0] - 0.125).verdict
        'better'
        >>> moment_change(real, generated, -0.5 * generated[:, 0] - 0.125).verdict
        'worse'
    """
    num_bootstrap = checks.count("num_bootstrap", num_bootstrap, minimum=20, cure="Fewer give no error.")
    seed = checks.random_seed(seed)
    real = checks.rows("features of real rows", features_real, minimum=2)
    checks.shaped("features of real rows", real, ("real", "feature"))
    generated = checks.rows("features of generated rows", features_generated, event_shape=tuple(real.shape[1:]))
    log_weights = checks.shaped("log_weights", log_weights, (len(generated),), cure="One for each generated row.")
    tail = weight_tail(log_weights)
    real, generated = (table.detach().to("cpu", torch.float64) for table in (real, generated))
    index = (real.amax(0) > real.amin(0)).nonzero().flatten()
    if not len(index):
        raise ValueError("Expected a feature that varies over the real rows; got constants. Give other features.")
    # Gaps do not depend on the origin; near it, sums of squares keep their digits.
    centre = real[:, index].mean(0)
    real, generated = real[:, index] - centre, generated[:, index] - centre
    weights = torch.softmax(finite_weights(log_weights), 0)
    sides = _Sums(real, None), _Sums(generated, None), _Sums(generated, weights)
    # The unit stays as it is in the bootstrap: a replicate may draw no row, or one, of a rare cluster.
    unit = real.square().mean(0)
    before, after = _gaps(sides, [torch.ones(1, len(side), dtype=torch.float64) for side in (real, generated)], unit)
    change, error = float((after - before).mean()), _bootstrap_error(sides, unit, num_bootstrap, seed)
    ratio_error = None if replicates is None else _ratio_error(sides, unit, replicates)
    error = math.hypot(error, ratio_error or 0.0)
    # Weights that are nearly equal change next to nothing, and neither do replicates: what is left is rounding.
    rounding = ROUNDING * float((after.abs() + before.abs()).mean())
    worst = after[0].topk(min(NUM_WORST, len(index))).indices
    return MomentChange(
        num_real=len(real),
        num_generated=len(generated),
        num_columns=len(index),
        before=float(before.mean()),
        after=float(after.mean()),
        change=change,
        change_se=error,
        ess=tail.ess,
        verdict=_verdict(change, error + rounding, has_enough_draws(log_weights)),
        ratio_se=ratio_error,
        worst=tuple((int(index[i]), float(before[0, i]), float(after[0, i])) for i in worst),
    )


def _verdict(change: float, error: float, enough: bool) -> str:
    if not enough:
        return "too few effective draws"
    if change < -NUM_ERRORS * error:
        return "better"
    return "worse" if change > NUM_ERRORS * error else "no difference that these rows can show"


@final
class _Sums:
    """Means of columns under one weight a row, for many sets of counts at once."""

    def __init__(self, table: Tensor, weights: Tensor | None) -> None:
        self.weights = torch.ones(len(table), dtype=table.dtype) if weights is None else weights
        self.table, self.squares = table, table.square()

    def __call__(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and its sampling variance, `(set, column)` each, for counts `(set, row)`."""
        share = counts * self.weights
        share = share / share.sum(1, keepdim=True)
        mean, squared = share @ self.table, share.square()
        noise = squared @ self.squares - 2 * mean * (squared @ self.table)
        return mean, noise + squared.sum(1, keepdim=True) * mean.square()


def _gaps(sides: tuple[_Sums, _Sums, _Sums], counts: list[Tensor], unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gap of each column without weights and with them, `(set, column)`, for counts of both sides' rows."""
    of_real, plain, weighted = sides
    mean, noise = of_real(counts[0])
    before, after = (
        ((other - mean).square() - other_noise - noise) / unit
        for other, other_noise in (side(counts[1]) for side in (plain, weighted))
    )
    return before, after


def _ratio_error(sides: tuple[_Sums, _Sums, _Sums], unit: Tensor, replicates: Tensor) -> float:
    """Return the jackknife's error of the mean change over replicates of the weights."""
    of_real, plain, _ = sides
    cure = "Each has one log weight for each generated row."
    checks.shaped("replicates", replicates, ("replicate", len(plain.table)), cure=cure)
    ones = [torch.ones(1, len(side.table), dtype=torch.float64) for side in (of_real, plain)]
    changes = []
    for log_weights in replicates:
        weighted = _Sums(plain.table, torch.softmax(positive_weights(log_weights), 0))
        before, after = _gaps((of_real, plain, weighted), ones, unit)
        changes.append((after - before).mean())
    return float(jackknife_error(torch.stack(changes)))


def _bootstrap_error(sides: tuple[_Sums, _Sums, _Sums], unit: Tensor, number: int, seed: int) -> float:
    """Return the standard deviation of the mean change over bootstrap replicates of the rows of both sides."""
    generator = torch.Generator().manual_seed(seed)
    replicates = []
    for done in range(0, number, REPLICATES):
        size = min(REPLICATES, number - done)
        before, after = _gaps(sides, [_counts(size, len(side.table), generator) for side in sides[:2]], unit)
        replicates.append((after - before).mean(1))
    return float(torch.cat(replicates).std())


def _counts(size: int, number: int, generator: torch.Generator) -> Tensor:
    """Return how often a bootstrap replicate draws each row, `(size, number)`."""
    drawn = torch.randint(number, (size, number), generator=generator)
    counts = torch.zeros(size, number, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones(size, number, dtype=torch.float64))
