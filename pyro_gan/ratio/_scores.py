"""Log ratios of held-out rows of both classes, and their log loss."""

from __future__ import annotations

import math
from typing import NamedTuple, final

from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan._typing import Critic
from pyro_gan.ratio._holdout import score_rows

__all__ = ["Scores", "balanced_log_loss", "mean_and_error", "row_losses", "score_both"]


@final
class Scores(NamedTuple):
    """Log ratios of rows of both classes, in float64 on the CPU."""

    real: Tensor
    generated: Tensor


def score_both(log_ratio: Critic, real: Tensor, generated: Tensor) -> Scores:
    """Return the log ratios of rows of both classes, without gradient."""
    both = score_rows(log_ratio, real, "held-out real"), score_rows(log_ratio, generated, "generated")
    return Scores(*(score.cpu().double() for score in both))


def row_losses(scores: Scores) -> Scores:
    """Return the log loss of every row in nats."""
    return Scores(softplus(-scores.real), softplus(scores.generated))


def balanced_log_loss(scores: Scores) -> float:
    """Return the log loss in nats where each class weighs one half; a constant guess scores log 2."""
    return sum(float(losses.mean()) for losses in row_losses(scores)) / 2


def mean_and_error(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Return the mean where each class weighs one half, and its standard error."""
    parts = (real, generated)
    mean = sum(float(part.mean()) for part in parts) / 2
    return mean, math.sqrt(sum(float(part.var(correction=0)) / len(part) for part in parts)) / 2
