"""From any real-valued critic to a log ratio: one half of the data fits a map and its guard, the other judges them."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_gan import checks
from pyro_gan._networks import by_row, check_eval, critic_scores
from pyro_gan._typing import Critic, replicates_of
from pyro_gan.probes import probe_critic
from pyro_gan.ratio._complaints import complaints
from pyro_gan.ratio._fit_checks import range_complaint
from pyro_gan.ratio._holdout import check_rows, disjoint_parts, score_rows
from pyro_gan.ratio._knee import MIN_GAIN, contradicted_from, last_supported, out_of_fold
from pyro_gan.ratio.diagnostics import RatioReport, diagnose
from pyro_gan.ratio.heads import LogRatio
from pyro_gan.ratio.maps import Calibrator, Platt, TailGuard
from pyro_gan.ratio.maps.guard import GUARD_WIDTH

__all__ = ["CalibratedLogRatio", "CalibrationReport", "RowCounts", "calibrate"]

#: Fewest rows of each class, for the fit and again for the verdict.
MIN_PER_CLASS = 100

# Changes of a log ratio below this many nats are rounding.
VISIBLE = 1e-6


@final
class RowCounts(NamedTuple):
    """Numbers of rows of each class."""

    #: Number of real rows.
    real: int
    #: Number of generated rows.
    generated: int

    def __str__(self) -> str:
        return f"{self.real} real and {self.generated} generated"


@final
@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What was fitted, and the held-out verdict before and after. `print` it for a table."""

    #: Name of the map's class, and its fitted numbers.
    method: str
    parameters: dict[str, float]
    #: Log ratio that the tail guard never exceeds; None if the guard is off.
    cap: float | None
    #: Share of held-out real rows whose log ratio the guard changes. Because of them the slope after is not exactly 1.
    guarded_share: float
    #: What the guard adds to the held-out log loss, in nats a row, and the standard error of that loss.
    guard_loss: float
    log_loss_se: float
    #: Rows that fitted the map and chose the guard, and rows held out for the verdict.
    num_fit: RowCounts
    num_held_out: RowCounts
    #: The held-out rows judged with the critic's own scores as log ratios.
    before: RatioReport
    #: The same rows judged with the calibrated and guarded log ratio. They chose neither the map nor the guard.
    after: RatioReport

    def __str__(self) -> str:
        fitted = ", ".join(
            f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"
            for name, value in self.parameters.items()
        )
        guard = "off"
        if self.cap is not None:
            guard = f"{self.cap:.3f} nats, bends {self.guarded_share:.2%} of real rows, log loss {self.guard_loss:+.4f}"
        table = [("held out", "before", "after", "should be")]
        for (name, before, target), (_, after, _) in zip(self.before.rows(), self.after.rows(), strict=True):
            table.append((name, before, after, target))
        return (
            f"{self.method}: {fitted}; cap {guard}\n{self.num_fit} rows fitted, {self.num_held_out} held out\n"
        ) + "\n".join("{:<22} {:>20} {:>20}   {}".format(*row) for row in table)


@final
class CalibratedLogRatio(nn.Module):
    """A critic, a monotone map to nats and a tail guard: what `calibrate` returns, and a log ratio like any other.

    Build one by hand to load a saved calibration: `CalibratedLogRatio(critic).load_state_dict(state)`. The report is
    not part of the state.

    Args:
        critic: As for `LogRatio`; it is shared, not copied.
        method: The map, `Platt()` if None. It is copied: a later fit or state changes the copy alone. A map that is not
            fitted is the identity, except `Isotonic`, which is zero.

    Raises:
        ValueError: if the critic is no function, or the method no calibration map.

    Example:
        >>> import torch
        >>> CalibratedLogRatio(nn.Linear(2, 1))(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, critic: Critic, *, method: Calibrator | None = None) -> None:
        super().__init__()
        cure = "Write method=Temperature(), Platt(), Beta(), MonotoneSpline() or Isotonic(), from pyro_gan.ratio."
        method = Platt() if method is None else checks.instance("method", method, Calibrator, cure=cure)
        self.critic = checks.function("critic", critic)
        self.calibrator = copy.deepcopy(method)
        self.guard = TailGuard(None)
        #: The held-out verdict, if `calibrate` made this; None otherwise.
        self.report: CalibrationReport | None = None

    @property
    def upper_bound(self) -> float | None:
        """The guard's cap in nats, which the log ratio never exceeds; None if the guard is off."""
        cap = float(self.guard.cap)
        return cap if math.isfinite(cap) else None

    @property
    def replicates(self) -> list[Critic]:
        """The critic's replicates under the same map and guard, see `MeanLogRatio`; empty if there are none."""
        return [partial(self._calibrated, critic) for critic in replicates_of(self.critic)]

    def forward(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
        """Return the calibrated, guarded log ratio in nats.

        Args:
            x: Data, `(batch, *event)`.
            **context: Passed on to a conditional critic.

        Returns:
            `(batch,)`, differentiable in `x` where the critic is.
        """
        return by_row(partial(self._calibrated, self.critic), x, **context)

    def _calibrated(self, critic: Critic, x: Tensor, /, **context: Tensor) -> Tensor:
        return self.guard(self.calibrator(critic_scores(critic, x, **context)))


def calibrate(
    critic: Critic,
    real: Float[Tensor, "real *event"],
    generated: Float[Tensor, "generated *event"],
    *,
    method: Calibrator | None = None,
    holdout: float = 0.5,
    seed: int = 0,
    max_log_ratio: float | str | None = "auto",
) -> CalibratedLogRatio:
    """Turn any critic into a log ratio, with a verdict on rows that the fit has not seen.

    Each class is split once, at random, into two parts. One part fits the map and chooses the guard; the other, which
    chose nothing, gives the report. All rows count: with unequal classes the fit knows their log odds. The rows must
    not be those that trained the critic: this function cannot find out.

    The guard ends what rows do not support. It bends the log ratio from its knee on, and its cap is one nat higher.
    Beyond the last real rows of the fitting part (a fiftieth of them and one more, at most 20) everything is
    extrapolation, so the knee is never higher. It is lower where generated rows contradict the map: each fifth of the
    part is given log ratios by a map that the other fifths fitted, and a lower knee that makes these rows likelier, by
    more than 3 nats in all, is taken; of all such, the likeliest. A staircase, whose last step rests on few rows, takes
    a knee that makes them likelier at all.

    Calibration repairs scale and shift; `Beta`, `MonotoneSpline` and `Isotonic` also repair bends. It does not make a
    poor critic a good one, and does not always improve the samples: read `.report`.

    Args:
        critic: Any callable `(batch, *event) -> (batch,)` or `(batch, 1, ..., 1)`: a Wasserstein or hinge critic, a
            logit, a `LogRatio`. In evaluation mode.
        real: Real rows, `(real, *event)`.
        generated: Generated rows, `(generated, *event)`, of the same dtype.
        method: The map, `Platt()` if None. It is copied: the given one stays as it is and can be reused. In order of
            freedom: `Temperature()`, a line through 0, for logits; `Platt()`, any line, which falls if the critic's
            sign is flipped (the other maps never fall); `Beta()`, a line with one smooth bend; `MonotoneSpline()`, any
            smooth shape; `Isotonic()`, a staircase, for kernels without gradients, fitted by scikit-learn.
        holdout: Share of rows to judge by, strictly between 0 and 1.
        seed: Seed of the split, which has its own generator.
        max_log_ratio: Cap of the tail guard, in nats. With "auto" the rows choose it, as above. None switches the guard
            off.

    Returns:
        The calibrated log ratio, a module; `print(result.report)` shows the verdict.

    Raises:
        ValueError: if a class is empty or too small, shapes or dtypes disagree, data or scores are not finite, the
            sets share rows, the critic is in training mode where that matters, or an option is out of range.
        ImportError: if the method is `Isotonic()` and scikit-learn is missing.

    Warns:
        UserWarning: if real and generated rows have different ranges; if the scores look like probabilities, fall where
            they should rise, or separate the classes; if the fitted map falls or is nearly flat although the critic
            ranks well, or predicts no better than a constant; if the guard bends a tenth of the real rows or more, or
            raises the held-out log loss by more than its error.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner et al., 2019, https://arxiv.org/abs/1811.11357;
        Probabilistic outputs for support vector machines, J. Platt, 1999,
        https://www.cs.colorado.edu/~mozer/Teaching/syllabi/6622/papers/Platt1999.pdf

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> generated = torch.randn(4000, 1, generator=generator)
        >>> real = torch.randn(4000, 1, generator=generator) + 1
        >>> log_ratio = calibrate(lambda x: 10 * x, real, generated)
        >>> log_ratio.report.before.slope < 0.2, abs(log_ratio.report.after.slope - 1) < 0.2
        (True, True)
    """
    calibrated = CalibratedLogRatio(critic, method=method)
    if isinstance(max_log_ratio, str):
        checks.choice("max_log_ratio", max_log_ratio, ("auto",), cure="Or give a number of nats, or None.")
    elif max_log_ratio is not None:
        max_log_ratio = checks.real("max_log_ratio", max_log_ratio, cure='Or give "auto", or None for no guard.')
    holdout = checks.real("holdout", holdout, above=0, below=1, cure="It is a share of the rows.")
    seed = checks.random_seed(seed)
    check_eval(critic, "critic")
    check_rows(real, generated)
    probe_critic(critic, real, generated)
    scores = [score_rows(critic, rows, name) for rows, name in ((real, "real"), (generated, "generated"))]
    generator = torch.Generator().manual_seed(seed)
    fitting, held_out = [], []
    for score, name in zip(scores, ("real", "generated"), strict=True):
        parts = disjoint_parts(len(score), [holdout], name=name, minimum=MIN_PER_CLASS, generator=generator)
        held, fit = (score[part.to(score.device)] for part in parts)
        fitting.append(fit)
        held_out.append(held)
    calibrated.calibrator.fit(*fitting)
    cap = max_log_ratio
    if isinstance(cap, str):
        min_gain = MIN_GAIN if calibrated.calibrator.is_smooth else 0.0
        knee = contradicted_from(*out_of_fold(calibrated.calibrator, *fitting), min_gain=min_gain)
        cap = GUARD_WIDTH + (last_supported(calibrated.calibrator(fitting[0])) if knee is None else knee)
    free = [calibrated.calibrator(score) for score in held_out]
    calibrated.guard = TailGuard(cap).to(free[0])
    guarded = [calibrated.guard(value) for value in free]
    (loss, loss_se), (free_loss, _) = _log_loss(*guarded), _log_loss(*free)
    calibrated.report = CalibrationReport(
        method=type(calibrated.calibrator).__name__,
        parameters=calibrated.calibrator.parameters_by_name(),
        cap=cap,
        guarded_share=float((free[0] - guarded[0] > VISIBLE).double().mean()),
        guard_loss=loss - free_loss,
        log_loss_se=loss_se,
        num_fit=RowCounts(*map(len, fitting)),
        num_held_out=RowCounts(*map(len, held_out)),
        before=diagnose(*held_out),
        after=diagnose(*guarded),
    )
    if complaint := range_complaint(real, generated):
        warnings.warn(complaint, stacklevel=2)
    in_nats = isinstance(critic, (LogRatio, CalibratedLogRatio))
    for complaint in complaints(calibrated.report, calibrated.calibrator, torch.cat(scores), in_nats=in_nats):
        warnings.warn(complaint, stacklevel=2)
    return calibrated


def _log_loss(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Return the mean negative log likelihood of the rows' labels, and its standard error."""
    offset = math.log(len(real) / len(generated))
    losses = softplus(-real.double() - offset), softplus(generated.double() + offset)
    number = len(real) + len(generated)
    variance = sum(len(loss) * float(loss.var()) for loss in losses)
    return float(torch.cat(losses).sum()) / number, math.sqrt(variance) / number
