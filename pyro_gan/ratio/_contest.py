"""A single network or a telescoped ratio: the one with the lower loss on the rows that chose their states."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyro_gan.ratio._judge import Judge
from pyro_gan.ratio._scores import balanced_log_loss, mean_and_error, row_losses, score_both
from pyro_gan.ratio._verdict import no_overlap
from pyro_gan.ratio.telescope import Telescoping

__all__ = ["winner"]


def winner(judges: Sequence[Judge]) -> Judge:
    """Return the judge of the better log ratio, and note in that how the two compare.

    Args:
        judges: Of finished runs on the same rows: of the single network, and of the telescoped ratio if there is one.

    Raises:
        RuntimeError: if no state of either left enough overlap.
    """
    found = [judge for judge in judges if judge.best]
    if not found:
        raise RuntimeError(no_overlap(judges[0].frontier, judges[0].course.min_ess_fraction))
    if len(judges) == 1:
        return judges[0]
    single, telescoped = judges
    scores = [score_both(judge.links.log_ratio, *judge.choosing_sets) for judge in judges]
    gain = mean_and_error(*(a - b for a, b in zip(row_losses(scores[0]), row_losses(scores[1]), strict=True)))
    loss = balanced_log_loss(scores[1])
    if not telescoped.best:
        loss, gain = math.inf, (-math.inf, math.nan)
    elif not single.best:
        gain = math.inf, math.nan
    record = Telescoping(len(telescoped.links.log_ratios) - 1, loss, *gain)
    best = telescoped if record.won else single
    best.links.log_ratio.telescoping = record
    return best
