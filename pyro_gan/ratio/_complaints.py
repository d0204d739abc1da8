"""What is wrong with a calibration, in sentences: the critic's scores, the fitted map, and what its guard did."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from pyro_gan.ratio.diagnostics import RatioReport

__all__ = ["Calibration", "complaints"]

# Above this AUC nothing is left to sample: an independence sampler would accept .2 % of its proposals.
MAX_AUC = 0.999

# A guard that bends this share of the real rows changes what is sampled, and not its tail alone.
MAX_GUARDED = 0.1


class Calibration(Protocol):
    """What is read of a report on a calibration."""

    @property
    def method(self) -> str:
        """Name of the map's class."""

    @property
    def cap(self) -> float | None:
        """Log ratio that the guard never exceeds."""

    @property
    def guarded_share(self) -> float:
        """Share of held-out real rows that the guard changes."""

    @property
    def guard_loss(self) -> float:
        """What the guard adds to the held-out log loss."""

    @property
    def log_loss_se(self) -> float:
        """Standard error of the held-out log loss."""

    @property
    def before(self) -> RatioReport:
        """The held-out rows judged with the critic's own scores."""

    @property
    def after(self) -> RatioReport:
        """The held-out rows judged with the calibrated and guarded log ratio."""


def complaints(report: Calibration, calibrator: nn.Module, scores: Tensor, *, in_nats: bool) -> Iterator[str]:
    """Yield what is wrong with the critic's scores, with the fitted map and with the guard.

    Args:
        report: The held-out verdict.
        calibrator: The fitted map.
        scores: Scores of all rows, `(row,)`.
        in_nats: Whether the critic is a log ratio already.
    """
    before, after = report.before, report.after
    if not in_nats and bool(((scores >= 0) & (scores <= 1)).all()):
        yield (
            "All scores lie in [0, 1]: the critic seems to return probabilities, and a line through probabilities is a "
            "poor log ratio. Calibrate LogRatio.from_probability(discriminator) instead."
        )
    # Standard errors by which the AUC exceeds one half, the value of a constant critic.
    z = (before.auc - 0.5) * math.sqrt(12 / (1 / before.n_real + 1 / before.n_generated))
    share = after.n_real / (after.n_real + after.n_generated)
    constant = -share * math.log(share) - (1 - share) * math.log1p(-share)
    # A few huge scores may turn the slope against the ranking: the complaint about the map below is for that.
    if z < -3 or (before.slope <= 0 and z <= 3):
        yield (
            f"The critic scores real data no higher than generated data (held-out slope {before.slope:.3g}, AUC "
            f"{before.auc:.3g}): its sign is flipped, or it has learnt nothing."
        )
    elif before.auc > MAX_AUC:
        yield (
            f"The critic separates real from generated data (held-out AUC {before.auc:.5f}): they do not overlap, and "
            "hardly anything is left to sample. See fit_log_ratio(..., min_ess_fraction=...), or train the generator "
            "further."
        )
    elif after.log_loss >= constant:
        yield (
            f"The calibrated ratio predicts no better than a constant (held-out log loss {after.log_loss:.4f}, of a "
            f"constant {constant:.4f}): with it there is nothing to gain. Sample the generator, or see fit_log_ratio."
        )
    with torch.no_grad():
        value = calibrator(scores).double()
    falls = bool(value[scores.argmax()] < value[scores.argmin()])
    # The total variation between the sets, as a calibrated ratio gives it, is at least AUC - 1/2.
    flat = float(((value - value.median()) / 2).tanh().abs().mean()) < (before.auc - 0.5) / 2
    if z > 3 and (falls or flat or not after.slope > 0):  # NaN too
        yield (
            f"The fitted {report.method} map {'falls' if falls else 'is nearly flat'}, although the critic ranks real "
            f"data above generated data (held-out AUC {before.auc:.3g}): for most rows it says nothing, or the "
            "opposite. Temperature() needs scores that are 0 at even odds; if they are not, use Platt(). A line needs "
            "scores that do not span decades; if they do, calibrate their logarithm, or use MonotoneSpline()."
        )
    yield from _of_guard(report)


def _of_guard(report: Calibration) -> Iterator[str]:
    """Yield what is wrong with the guard."""
    if report.cap is None:
        return
    if report.guarded_share >= MAX_GUARDED:
        yield (
            f"The tail guard bends the log ratio of {report.guarded_share:.0%} of the held-out real rows (cap "
            f"{report.cap:.2f} nats; held-out log loss {report.guard_loss:+.4f}): the ratio is flattened where much of "
            "the data lies. If the cap is automatic, generated rows contradict the map there: try MonotoneSpline(), or "
            "fit_log_ratio. If you chose the cap, raise it."
        )
    if report.guard_loss > report.log_loss_se:
        yield (
            f"The tail guard raises the held-out log loss by {report.guard_loss:.4f}, more than its error "
            f"{report.log_loss_se:.4f}: the cap of {report.cap:.2f} nats is too low. Raise max_log_ratio, or switch "
            "the guard off with None."
        )
