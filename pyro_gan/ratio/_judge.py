"""The judge of a critic in training: held-out rows, generated rows, and the evaluations of the critic on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_gan._networks import chunk_rows
from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.ratio._holdout import check_rows, score_rows
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport, diagnose
from pyro_gan.ratio.heads import LogRatio

__all__ = ["Judge", "best_point", "is_over"]

# So many evaluations in a row below the wanted overlap end a run: a single one may be noise.
MAX_BELOW = 3


@final
@dataclass(eq=False)
class Judge:
    """Callback and memory of one training run: it evaluates, keeps the best state and says when to end.

    Attributes:
        network: The critic in training.
        log_ratio: The log ratio around it.
        data: All real rows; some are held out at random.
        draw_generated: Maps a number to that many generated rows.
        num_held_out: Number of real rows held out.
        settings: Values that a checkpoint must have in common with this run. Among them `num_steps`;
            `num_validation_draws`, the number of generated rows, drawn once, that the held-out rows are compared with;
            `min_ess_fraction`, the least overlap of a state that is kept; `eval_every`, steps between evaluations; and
            `patience`, evaluations without a better loss before the end.
        frontier: The evaluations so far.
        best: The best state so far.
        start: State of torch's generators before the sets were drawn.
    """

    network: nn.Module
    log_ratio: LogRatio
    data: Tensor
    draw_generated: Callable[[int], Tensor]
    num_held_out: int
    settings: dict[str, Any]
    frontier: list[FrontierPoint] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=rng_state)

    def __post_init__(self) -> None:
        """Draw the held-out rows and the generated ones."""
        self._draw_sets()
        check_rows(self.data, self.generated)

    def __call__(self, step: int, losses: dict[str, float]) -> bool:
        """Evaluate if an evaluation is due; return whether training should end."""
        if step % self.settings["eval_every"] and step != self.settings["num_steps"]:
            return False
        report, log_loss = self.report()
        self.network.train()
        point = FrontierPoint(step, log_loss, report.auc, report.tail.ess_fraction)
        self.frontier.append(point)
        if best_point(self.frontier, self.settings["min_ess_fraction"]) is point:
            self.best = copy.deepcopy(self.network.state_dict())
        return is_over(self.frontier, self.settings["min_ess_fraction"], self.settings["patience"])

    def report(self) -> tuple[RatioReport, float]:
        """Judge the network as it is, and leave it in evaluation mode. Return the report and the balanced log loss."""
        self.log_ratio.eval()
        real = score_rows(self.log_ratio, self.data[self.held_out], "held-out real")
        generated = score_rows(self.log_ratio, self.generated, "generated")
        log_loss = 0.5 * softplus(-real).mean() + 0.5 * softplus(generated).mean()
        return diagnose(real, generated), float(log_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; instead of the sets, which may be large, the start of their draws."""
        return {
            "start": self.start,
            "settings": self.settings,
            "marks": self._marks(),
            "frontier": [list(point) for point in self.frontier],
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Load the record and draw the same sets again.

        Raises:
            ValueError: if the record belongs to other settings, data or draws.
        """
        for name, value in self.settings.items():
            if state["settings"][name] != value:
                raise ValueError(
                    f"Expected {name} as in the checkpoint, {state['settings'][name]}; got {value}. Continue with the "
                    "same value, or give another path."
                )
        self.start = state["start"]
        set_rng_state(self.start)
        self._draw_sets()
        for there, here in zip(state["marks"], self._marks(), strict=True):
            if not math.isclose(there, here, rel_tol=1e-5, abs_tol=1e-8):
                raise ValueError(
                    "Expected the data, generator and prior of the checkpoint; got others. Continue with the same, or "
                    "give another path."
                )
        self.frontier = [FrontierPoint(*point) for point in state["frontier"]]
        self.best = state["best"]

    def _draw_sets(self) -> None:
        order = torch.randperm(len(self.data), device=self.data.device)
        self.held_out, self.training_rows = order[: self.num_held_out], order[self.num_held_out :]
        rows, num_draws = chunk_rows(None, self.data), self.settings["num_validation_draws"]
        sizes = [min(rows, num_draws - done) for done in range(0, num_draws, rows)]
        self.generated = torch.cat([self.draw_generated(size) for size in sizes])

    def _marks(self) -> list[float]:
        """Return numbers that distinguish these sets from others of the same shape."""
        return [float(rows.mean(dtype=torch.float64)) for rows in (self.data[self.held_out], self.generated)]


def best_point(frontier: Sequence[FrontierPoint], min_ess_fraction: float) -> FrontierPoint | None:
    """Return the point of lowest loss among those with enough overlap, or None."""
    enough = [point for point in frontier if point.ess_fraction >= min_ess_fraction]
    return min(enough, key=lambda point: point.log_loss, default=None)


def is_over(frontier: Sequence[FrontierPoint], min_ess_fraction: float, patience: int) -> bool:
    """Return whether the overlap is gone for good, or the loss has stopped falling.

    Little overlap counts only if the loss is better than a constant guess: a random start may have little overlap too.
    """
    last = frontier[-MAX_BELOW:]
    gone = [point.ess_fraction < min_ess_fraction and point.log_loss < math.log(2) for point in last]
    if len(last) == MAX_BELOW and all(gone):
        return True
    lowest = min(range(len(frontier)), key=lambda index: frontier[index].log_loss)
    return len(frontier) - 1 - lowest >= patience
