"""From any real-valued critic to a log ratio: a monotone map fitted on one half of the data, judged on the other."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import check_eval, critic_scores
from pyro_gan._probe import probe_critic
from pyro_gan._typing import Critic
from pyro_gan.ratio._holdout import balanced_indices, check_rows, score_rows
from pyro_gan.ratio.diagnostics import RatioReport, diagnose
from pyro_gan.ratio.heads import LogRatio
from pyro_gan.ratio.maps import Calibrator, Platt, TailGuard
from pyro_gan.ratio.maps.guard import GUARD_WIDTH

__all__ = ["CalibratedLogRatio", "CalibrationReport", "calibrate"]

#: Fewest rows of each class, for the fit and again for the verdict.
MIN_PER_CLASS = 100

#: Held-out generated rows that must reach the knee of the automatic guard: a ratio beyond them is extrapolation.
MIN_ABOVE_KNEE = 20

# Above this AUC nothing is left to sample: an independence sampler would accept .2 % of its proposals.
MAX_AUC = 0.999


@final
@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What was fitted, and the held-out verdict before and after. `print` it for a table."""

    #: Name of the map's class, and its fitted numbers.
    method: str
    parameters: dict[str, float]
    #: Log ratio that the tail guard never exceeds; None if the guard is off.
    cap: float | None
    #: Share of held-out real rows whose log ratio the guard changes. Because of them the slope after is not exactly 1,
    #: and E_G[r] is below 1.
    guarded_share: float
    #: Rows of each class in the fit and in the held-out part, and rows left out to balance the classes.
    num_fit: int
    num_held_out: int
    num_unused: int
    #: The held-out rows judged with the critic's own scores as log ratios.
    before: RatioReport
    #: The same rows judged with the calibrated and guarded log ratio. An automatic cap was found on these rows too.
    after: RatioReport

    def __str__(self) -> str:
        fitted = ", ".join(
            f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"
            for name, value in self.parameters.items()
        )
        guard = "off" if self.cap is None else f"{self.cap:.3f} nats, bends {self.guarded_share:.2%} of real rows"
        table = [("held out", "before", "after", "should be")]
        for (name, before, target), (_, after, _) in zip(self.before.rows(), self.after.rows(), strict=True):
            table.append((name, before, after, target))
        return (
            f"{self.method}: {fitted}; cap {guard}\n{self.num_fit} rows of each class fitted, {self.num_held_out} held "
            f"out; {self.num_unused} left out at random to balance the classes\n"
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

    def forward(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
        """Return the calibrated, guarded log ratio in nats.

        Args:
            x: Data, `(batch, *event)`.
            **context: Passed on to a conditional critic.

        Returns:
            `(batch,)`, differentiable in `x` where the critic is.
        """
        return self.guard(self.calibrator(critic_scores(self.critic, x, **context)))


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

    Rows of the larger class are left out at random until the classes are balanced. The rest is split once, into two
    disjoint parts. One part fits the map; the other finds the cap and gives the report. The rows must not be those that
    trained the critic: this function cannot find out.

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
        max_log_ratio: Cap of the tail guard, in nats. With "auto" nothing changes up to the largest value that 20
            held-out generated rows reach, and the cap is one nat above it. None switches the guard off.

    Returns:
        The calibrated log ratio, a module; `print(result.report)` shows the verdict.

    Raises:
        ValueError: if a class is empty or too small, shapes or dtypes disagree, data or scores are not finite, the
            sets share rows, the critic is in training mode where that matters, or an option is out of range.
        ImportError: if the method is `Isotonic()` and scikit-learn is missing.

    Warns:
        UserWarning: if the scores look like probabilities, fall where they should rise, or separate the classes; or if
            the fitted map falls or is nearly flat although the critic ranks well.

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
    check_eval(critic, "critic")
    check_rows(real, generated)
    probe_critic(critic, real, generated)
    order_real, order_generated, number, num_held = balanced_indices(
        len(real), len(generated), holdout=holdout, seed=seed, minimum=MIN_PER_CLASS
    )
    scores_real = score_rows(critic, real[order_real[:number].to(real.device)], "real")
    scores_generated = score_rows(critic, generated[order_generated[:number].to(generated.device)], "generated")
    calibrated.calibrator.fit(scores_real[num_held:], scores_generated[num_held:])
    held_real = calibrated.calibrator(scores_real[:num_held])
    held_generated = calibrated.calibrator(scores_generated[:num_held])
    cap = max_log_ratio
    if isinstance(cap, str):
        # With more generated rows than real ones the knee would lie where no real row can contradict the critic.
        cap = float(held_generated.topk(MIN_ABOVE_KNEE).values[-1]) + GUARD_WIDTH
    calibrated.guard = TailGuard(cap).to(held_real)
    calibrated.report = CalibrationReport(
        method=type(calibrated.calibrator).__name__,
        parameters=calibrated.calibrator.parameters_by_name(),
        cap=cap,
        guarded_share=float((held_real > calibrated.guard.knee).double().mean()),
        num_fit=len(scores_real) - num_held,
        num_held_out=num_held,
        num_unused=abs(len(real) - len(generated)),
        before=diagnose(scores_real[:num_held], scores_generated[:num_held]),
        after=diagnose(calibrated.guard(held_real), calibrated.guard(held_generated)),
    )
    for complaint in _complaints(calibrated, torch.cat([scores_real, scores_generated])):
        warnings.warn(complaint, stacklevel=2)
    return calibrated


def _complaints(calibrated: CalibratedLogRatio, scores: Tensor) -> Iterator[str]:
    """Yield what is wrong with the critic's scores and with the fitted map."""
    report = calibrated.report
    assert report is not None
    before, after = report.before, report.after
    in_nats = isinstance(calibrated.critic, (LogRatio, CalibratedLogRatio))
    if not in_nats and bool(((scores >= 0) & (scores <= 1)).all()):
        yield (
            "All scores lie in [0, 1]: the critic seems to return probabilities, and a line through probabilities is a "
            "poor log ratio. Calibrate LogRatio.from_probability(discriminator) instead."
        )
    # Standard errors by which the AUC exceeds one half, the value of a constant critic.
    z = (before.auc - 0.5) * math.sqrt(6 * before.n_real)
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
    with torch.no_grad():
        value = calibrated.calibrator(scores).double()
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
