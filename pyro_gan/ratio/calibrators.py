"""From any real-valued critic to a log ratio: a monotone map fitted on one half of the data, judged on the other."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import check_eval
from pyro_gan._typing import Critic
from pyro_gan.ratio._holdout import balanced_indices, check_rows, score_rows
from pyro_gan.ratio.diagnostics import RatioReport, diagnose
from pyro_gan.ratio.heads import LogRatio, critic_scores
from pyro_gan.ratio.maps import (
    GUARD_WIDTH,
    METHODS,
    Beta,
    Calibrator,
    Isotonic,
    MonotoneSpline,
    Platt,
    TailGuard,
    Temperature,
)

__all__ = [
    "Beta",
    "CalibratedLogRatio",
    "CalibrationReport",
    "Isotonic",
    "MonotoneSpline",
    "Platt",
    "TailGuard",
    "Temperature",
    "calibrate",
]

#: Rows of each class that the fit needs, and that the verdict needs.
MIN_PER_CLASS = 100

#: Held-out generated points that must reach the knee of the automatic guard: a ratio beyond them is extrapolation.
MIN_ABOVE_KNEE = 20

# Above this nothing is left to sample: an independence sampler would accept .2 % of its proposals.
MAX_AUC = 0.999


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What was fitted, and the held-out verdict before and after; `print` it for a table."""

    #: Name of the map, and its fitted numbers.
    method: str
    parameters: dict[str, float]
    #: Log ratio that the tail guard never exceeds; None if it is off.
    cap: float | None
    #: Share of held-out real rows that the guard bends. They are what makes the slope after differ from 1, and E_G[r]
    #: fall below it.
    guarded_share: float
    #: Rows of each class fitted on and held out, and those left over by balancing the classes.
    num_fit: int
    num_held_out: int
    num_unused: int
    #: The held-out half under the critic's own scores, taken as log ratios.
    before: RatioReport
    #: The same rows under the calibrated and guarded log ratio. The automatic cap was read off them.
    after: RatioReport

    def __str__(self) -> str:
        fitted = ", ".join(
            f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"
            for name, value in self.parameters.items()
        )
        guard = (
            "off" if self.cap is None else f"{self.cap:.3f} nats, bends {self.guarded_share:.2%} of real rows"
        )
        table = [
            f"{name:<22} {before:>20} {after:>20}   {target}"
            for (name, before, target), (_, after, _) in zip(
                self.before.rows(), self.after.rows(), strict=True
            )
        ]
        return "\n".join(
            [
                f"{self.method}: {fitted}; cap {guard}",
                f"{self.num_fit} rows of each class fitted, {self.num_held_out} held out; {self.num_unused} left out "
                "at random to balance the classes",
                f"{'held out':<22} {'before':>20} {'after':>20}   should be",
                *table,
            ]
        )


@final
class CalibratedLogRatio(nn.Module):
    """A critic, a monotone map to nats and a tail guard: what `calibrate` returns, and a log ratio like any other.

    Build one by hand to load a saved calibration: `CalibratedLogRatio(critic).load_state_dict(state)`. The report is
    not part of the state.

    Args:
        critic: As for `LogRatio`; shared, not copied.
        method: Name of the map. Until fitted or loaded it is the identity; "isotonic", which cannot be, is zero.

    Raises:
        ValueError: if the method is unknown.

    Example:
        >>> import torch
        >>> CalibratedLogRatio(nn.Linear(2, 1))(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, critic: Critic, *, method: str = "platt") -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"Expected a calibration method out of {sorted(METHODS)}; got {method!r}.")
        self.critic = critic
        self.calibrator = METHODS[method]()
        self.guard = TailGuard(None)
        #: The held-out verdict, where `calibrate` made this; None otherwise.
        self.report: CalibrationReport | None = None

    @property
    def upper_bound(self) -> float | None:
        """Nats that the log ratio never exceeds, the guard's cap; None if the guard is off."""
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
    method: str = "platt",
    holdout: float = 0.5,
    seed: int = 0,
    max_log_ratio: float | str | None = "auto",
) -> CalibratedLogRatio:
    """Turn any critic into a log ratio, with a verdict on rows that the fit has not seen.

    The classes are balanced by leaving out rows of the larger one at random, and split once, disjointly. One part
    fits the map; the other finds the cap and writes the report. Give it data that the critic was not trained on:
    nothing here can tell.

    Calibration repairs scale, shift and, from "beta" on, bends. It does not make a poor critic a good one, and does not
    always improve the samples: read `.report`.

    Args:
        critic: Any callable `(batch, *event) -> (batch,)` or `(batch, 1, ..., 1)`: a Wasserstein or hinge critic, a
            logit, a `LogRatio`. In evaluation mode.
        real: Real rows, `(real, *event)`.
        generated: Generated rows, `(generated, *event)`, of the same dtype.
        method: The map, which never falls (Platt's alone does, if the critic's sign is flipped). In order of freedom:
            "temperature", a line through 0, for logits; "platt", any line; "beta", a line with one smooth bend;
            "spline", any smooth shape; "isotonic", a staircase, for kernels without gradients, fitted by
            scikit-learn.
        holdout: Share of rows to judge by, strictly between 0 and 1.
        seed: Of the split, drawn from a generator of its own.
        max_log_ratio: Cap of the tail guard, in nats. "auto" leaves everything up to the largest value that 20
            held-out generated rows reach as it is, and caps what lies beyond at one nat more; None switches the guard
            off.

    Returns:
        The calibrated log ratio, a module; `print(result.report)` shows the verdict.

    Raises:
        ValueError: if a class is empty or too small, shapes or dtypes disagree, data or scores are not finite, the
            sets share rows, the critic is in training mode where that matters, or an option is out of range.
        ImportError: if "isotonic" is asked for and scikit-learn is missing.

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
    _check_cap(max_log_ratio)
    check_eval(critic, "critic")
    check_rows(real, generated)
    order_real, order_generated, number, num_held = balanced_indices(
        len(real), len(generated), holdout=holdout, seed=seed, minimum=MIN_PER_CLASS
    )
    scores_real = score_rows(critic, real[order_real[:number].to(real.device)], "real")
    scores_generated = score_rows(
        critic, generated[order_generated[:number].to(generated.device)], "generated"
    )
    _warn_of_probabilities(critic, scores_real, scores_generated)

    calibrated.calibrator.fit(scores_real[num_held:], scores_generated[num_held:])
    held_real = calibrated.calibrator(scores_real[:num_held])
    held_generated = calibrated.calibrator(scores_generated[:num_held])
    if isinstance(max_log_ratio, str):
        # More generated rows than real ones would push the knee to where no real row can contradict the critic.
        cap: float | None = float(held_generated.topk(MIN_ABOVE_KNEE).values[-1]) + GUARD_WIDTH
    else:
        cap = max_log_ratio
    calibrated.guard = TailGuard(cap).to(held_real)
    calibrated.report = CalibrationReport(
        method=method,
        parameters=calibrated.calibrator.parameters_by_name(),
        cap=cap,
        guarded_share=float((held_real > calibrated.guard.knee).double().mean()),
        num_fit=len(scores_real) - num_held,
        num_held_out=num_held,
        num_unused=abs(len(real) - len(generated)),
        before=diagnose(scores_real[:num_held], scores_generated[:num_held]),
        after=diagnose(calibrated.guard(held_real), calibrated.guard(held_generated)),
    )
    _warn_of_ranking(calibrated.report.before)
    _warn_of_fit(calibrated.report, torch.cat([scores_real, scores_generated]), calibrated.calibrator)
    return calibrated


def _check_cap(cap: float | str | None) -> None:
    if not (cap is None or cap == "auto" or (isinstance(cap, (int, float)) and math.isfinite(cap))):
        raise ValueError(
            f'Expected max_log_ratio "auto", a finite number of nats, or None for no guard; got {cap!r}.'
        )


def _warn_of_probabilities(critic: Critic, *scores: Tensor) -> None:
    in_nats = isinstance(critic, (LogRatio, CalibratedLogRatio))
    if not in_nats and all(bool(((part >= 0) & (part <= 1)).all()) for part in scores):
        warnings.warn(
            "All scores lie in [0, 1]: the critic looks like a probability, and a line through probabilities is a poor "
            "log ratio. Calibrate LogRatio.from_probability(discriminator) instead.",
            stacklevel=3,
        )


def _z(before: RatioReport) -> float:
    """Return the standard errors by which the AUC lies above one half, where it carries nothing."""
    return (before.auc - 0.5) * math.sqrt(6 * before.n_real)


def _warn_of_ranking(before: RatioReport) -> None:
    # A few huge scores may turn the slope against the ranking: that is the fit's warning.
    if _z(before) < -3 or (before.slope <= 0 and _z(before) <= 3):
        warnings.warn(
            f"The critic scores real data no higher than generated data (held-out slope {before.slope:.3g}, AUC "
            f"{before.auc:.3g}): its sign is flipped, or it knows nothing.",
            stacklevel=3,
        )
    elif before.auc > MAX_AUC:
        warnings.warn(
            f"The critic separates real from generated data (held-out AUC {before.auc:.5f}): they do not overlap, and "
            "hardly anything is left to sample. See fit_log_ratio(..., min_ess_fraction=...), or train the generator "
            "further.",
            stacklevel=3,
        )


def _warn_of_fit(report: CalibrationReport, scores: Tensor, calibrator: Calibrator) -> None:
    before, after = report.before, report.after
    if _z(before) <= 3:
        return
    with torch.no_grad():
        value = calibrator(scores).double()
        falls = bool(value[scores.argmax()] < value[scores.argmin()])
    # What a calibrated ratio says is the total variation of the sets is AUC - 1/2 at least.
    flat = float(((value - value.median()) / 2).tanh().abs().mean()) < (before.auc - 0.5) / 2
    if falls or flat or not after.slope > 0:  # NaN too
        warnings.warn(
            f"The fitted {report.method} map {'falls' if falls else 'is nearly flat'}, although the critic ranks real "
            f"data above generated data (held-out AUC {before.auc:.3g}): of most rows it says nothing, or the wrong "
            "thing. A temperature needs scores that are 0 at even odds, else take "
            'method="platt"; a line needs scores that do not span decades, else calibrate their logarithm, or take '
            'method="spline".',
            stacklevel=3,
        )
