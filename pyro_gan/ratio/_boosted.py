"""Boosted trees on the rows of a fit, beside its fresh critic."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gan._typing import Critic
from pyro_gan.checks import extra
from pyro_gan.ratio._judge import Judge
from pyro_gan.ratio._scores import Scores, balanced_log_loss, mean_and_error, row_losses, score_both
from pyro_gan.ratio.reference import Reference

__all__ = ["boosted_log_ratio", "judge_reference"]

#: More rows of a class make trees of images slow and hardly better.
MAX_TRAINED = 10_000
#: So few rows support no larger log odds.
MAX_LOG_ODDS = 10.0


def judge_reference(judge: Judge, scores: Scores) -> Reference:
    """Fit the trees to the rows that trained, and compare them with the fresh ratio on those that judge.

    Args:
        judge: Of a finished run.
        scores: The fresh ratio's log ratios of the rows that judge.
    """
    real = judge.data[judge.training_rows[:MAX_TRAINED]]
    trees = boosted_log_ratio(real, judge.draw_generated(len(real)))
    theirs = score_both(trees, *judge.judging_sets)
    gain = (own - other for own, other in zip(row_losses(scores), row_losses(theirs), strict=True))
    return Reference(balanced_log_loss(theirs), *mean_and_error(*gain))


def boosted_log_ratio(real: Tensor, generated: Tensor, *, seed: int = 0) -> Critic:
    """Fit scikit-learn's `HistGradientBoostingClassifier` to rows, flattened, and return its log odds.

    Args:
        real: `(real, *event)`; the first 10 000 are used.
        generated: `(generated, *event)`; as many are used as of the real rows.
        seed: Of the trees.

    Returns:
        A function from rows `(row, *event)` to log ratios `(row,)`, in float64 on the CPU.

    Raises:
        ImportError: without scikit-learn.
    """
    with extra("evaluate"):
        from sklearn.ensemble import HistGradientBoostingClassifier
    number = min(len(real), len(generated), MAX_TRAINED)
    table = torch.cat([_table(real[:number]), _table(generated[:number])]).numpy()
    label = torch.arange(2).flip(0).repeat_interleave(number).numpy()
    # It stops by rows of its own, so that few rows do not make it overconfident.
    trees = HistGradientBoostingClassifier(early_stopping=True, random_state=seed).fit(table, label)

    def log_ratio(rows: Tensor, /, **context: Tensor) -> Tensor:
        score = torch.as_tensor(trees.decision_function(_table(rows).numpy()), dtype=torch.float64)
        return score.clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)

    return log_ratio


def _table(rows: Tensor) -> Tensor:
    return rows.detach().flatten(1).to("cpu", torch.float32)
