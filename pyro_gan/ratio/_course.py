"""The course of a training run: when its learning rate comes down, and when and why it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch.optim import Optimizer

from pyro_gan.checks import count
from pyro_gan.ratio.diagnostics import FrontierPoint

__all__ = ["Course", "best_point", "is_still"]

#: So many evaluations in a row below the wanted overlap end a stage: a single one may be noise.
MAX_BELOW = 3
#: The learning rate in each stage, as a share of the first.
STAGES = (1.0, 1 / 4, 1 / 16)
#: In this last share of the steps or the time that are allowed, the rate falls linearly to zero.
TAIL = 0.2


@final
@dataclass(eq=False)
class Course:
    """The learning rate of a run that may end at any time, and the end.

    A stage ends when the held-out loss has stopped falling or the overlap is gone. The next stage starts from the best
    state so far with a lower rate; after the last one the run ends. The rate depends on the time only in the last fifth
    of `max_seconds`, so that a run that ends earlier has the same bits on any day.

    Attributes:
        optimizer: Its learning rates are set, if `sets_rate`.
        sets_rate: Whether there are stages; a user's own scheduler has none.
        num_steps: Largest number of steps.
        max_seconds: Largest time, over all parts of a run that was interrupted.
        patience: Evaluations without a better loss before a stage ends.
        min_ess_fraction: The least overlap of a state that is kept.
        stage: Number of stages that have ended.
        first: Number of evaluations before this stage.
        spent: Seconds before the last interruption.
        rates: Learning rates at the start, one for each group of parameters.
        ended: Why the run ended; empty until then.
        began: Clock when this part of the run began.
    """

    optimizer: Optimizer
    sets_rate: bool
    num_steps: int
    max_seconds: float
    patience: int
    min_ess_fraction: float
    stage: int = 0
    first: int = 0
    spent: float = 0.0
    rates: list[float] = field(default_factory=list)
    ended: str = ""
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Note the learning rates to start from."""
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def seconds(self) -> float:
        """Seconds spent so far."""
        return self.spent + time.monotonic() - self.began

    def is_last(self, step: int) -> bool:
        """Return whether steps or time are used up, and note which."""
        if step >= self.num_steps:
            self.ended = f"num_steps: all {self.num_steps} steps were made"
        elif self.seconds >= self.max_seconds:
            self.ended = f"max_seconds: {self.max_seconds:g} seconds were used up after {step} steps"
        return bool(self.ended)

    def set_rate(self, step: int) -> None:
        """Set the learning rates for the next step."""
        if not self.sets_rate:
            return
        used, late = step / self.num_steps, self.seconds / self.max_seconds
        left = 1 - max(used, late if late > 1 - TAIL else 0.0)
        share = STAGES[self.stage] * min(1.0, max(left, 0.0) / TAIL)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    def next_stage(self, frontier: Sequence[FrontierPoint]) -> bool:
        """Begin the next stage if this one is over, and return whether it has begun; note why if the run is over."""
        why = is_still(frontier, self.first, self.min_ess_fraction, self.patience)
        if not why or self.ended:
            return False
        found = best_point(frontier, self.min_ess_fraction) is not None
        if self.sets_rate and found and self.stage + 1 < len(STAGES):
            self.stage, self.first = self.stage + 1, len(frontier)
            return True
        self.ended = why
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "stage": self.stage,
            "first": self.first,
            "spent": self.seconds,
            "rates": self.rates,
            "ended": self.ended,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from there; the clock starts again."""
        self.stage, self.first = count("stage", state["stage"], minimum=0, maximum=len(STAGES) - 1), state["first"]
        self.spent, self.rates, self.ended = state["spent"], state["rates"], state["ended"]
        self.began = time.monotonic()


def best_point(frontier: Sequence[FrontierPoint], min_ess_fraction: float) -> FrontierPoint | None:
    """Return the point of lowest loss among those with enough overlap, or None."""
    enough = [point for point in frontier if point.ess_fraction >= min_ess_fraction]
    return min(enough, key=lambda point: point.log_loss, default=None)


def is_still(frontier: Sequence[FrontierPoint], first: int, min_ess_fraction: float, patience: int) -> str:
    """Return why a stage is over, or an empty string.

    It is over if the overlap is gone for good, or the loss of the states with enough overlap has stopped falling (of
    all states, if none has enough). Little overlap counts only if the loss is better than a constant guess: a random
    start may have little overlap too.

    Args:
        frontier: All evaluations so far.
        first: Number of evaluations before the stage.
        min_ess_fraction: The least overlap of a state that counts.
        patience: Evaluations without a better loss.
    """
    last = frontier[first:][-MAX_BELOW:]
    gone = [point.ess_fraction < min_ess_fraction and point.log_loss < math.log(2) for point in last]
    if len(last) == MAX_BELOW and all(gone):
        return f"overlap: the ESS fraction stayed below {min_ess_fraction:g}"
    kept = [i for i, point in enumerate(frontier) if point.ess_fraction >= min_ess_fraction] or range(len(frontier))
    lowest = min(kept, key=lambda index: frontier[index].log_loss)
    if len(frontier) - max(lowest + 1, first) >= patience:
        return f"plateau: the held-out loss did not fall in {patience} evaluations"
    return ""
