"""What a fit says at its end if its ratio is of no use: the complaints of the rows that judge it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pyro_gan.ratio._scores import Scores, mean_and_error, row_losses
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport
from pyro_gan.ratio.mean_ratio import judge_mean_ratio

__all__ = ["complaints", "no_overlap"]

#: Above this AUC the sides do not overlap.
MAX_AUC = 0.999
#: A difference counts from so many standard errors on.
SURE = 2.0


def complaints(report: RatioReport, scores: Scores) -> Iterator[str]:
    """Yield what the rows that judge say against a fresh ratio."""
    gain, error = mean_and_error(*(math.log(2) - losses for losses in row_losses(scores)))
    mean = judge_mean_ratio(scores.generated, scores.real)
    if report.auc > MAX_AUC or report.slope == math.inf:
        yield (
            f"The fresh critic separates data from generated rows (held-out AUC {report.auc:.5f}): they do not "
            "overlap, and hardly anything is left to sample. Fit the ratio of features instead (see fit_log_ratio), or "
            "train the generator further."
        )
    elif gain <= SURE * error:
        yield (
            f"There is nothing to gain: sample G. On held-out rows the fresh ratio is no better than a constant (its "
            f"log loss is {gain:.4f} +- {error:.4f} nats lower). Either the generator is as good as {report.n_real} "
            "rows can tell, or this network found no difference: another one, more data or more steps may."
        )
    elif not math.isfinite(report.slope):
        yield (
            f"The held-out slope is {report.slope}: no line maps this log ratio to the labels. Train longer, or with "
            "another learning rate."
        )
    elif mean.verdict == "wrong":
        yield (
            f"The fresh ratio is wrong: its mean over held-out generated rows is {mean.value:.3g} +- "
            f"{mean.standard_error:.2g}, without its constant, and must be 1. The critic has learnt to tell the sides "
            "apart, and not yet by how much: train longer. If the data are few, or hardly overlap, fit the ratio of "
            "features instead (see fit_log_ratio)."
        )


def no_overlap(frontier: Sequence[FrontierPoint], min_ess_fraction: float) -> str:
    """Return the error of a run in which no state left enough overlap."""
    rows = "".join("{:6d}  {:8.4f}  {:5.3f}  {:12.5f}\n".format(*point) for point in frontier)
    return (
        f"No evaluation found the wanted overlap: all ESS fractions are below {min_ess_fraction=}.\n"
        f"  step  log loss    AUC  ESS fraction\n{rows}"
        "Lower min_ess_fraction; or let the critic learn less, with a smaller network or learning rate, dropout or "
        "more weight decay; or evaluate earlier, with a smaller eval_every. If all losses are above log 2 = 0.6931 "
        "nothing was learnt: train longer, or with another learning rate."
    )
