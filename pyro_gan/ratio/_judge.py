"""The judge of a critic in training: rows held out, draws to compare them with, and the frontier it has passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

# Evaluations in a row below the wanted overlap: one alone may be noise.
MAX_BELOW = 3


@final
class Judge:
    """Callback and memory of one training run: it evaluates, keeps the best state and says when to end.

    Args:
        network: The critic in training.
        log_ratio: Around it.
        data: All real rows; some are held out at random.
        draw_generated: Maps a number to that many generated rows.
        num_held_out: Real rows held out.
        num_draws: Generated rows they are compared with, drawn once.
        min_ess_fraction: A state with less overlap is never kept.
        eval_every: Steps between evaluations.
        patience: Evaluations without a better loss before the end.
        settings: Values that a checkpoint must have in common with this run.
    """

    def __init__(
        self,
        network: nn.Module,
        log_ratio: LogRatio,
        data: Tensor,
        draw_generated: Callable[[int], Tensor],
        *,
        num_held_out: int,
        num_draws: int,
        min_ess_fraction: float,
        eval_every: int,
        patience: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.network, self.log_ratio = network, log_ratio
        self.data, self.draw_generated = data, draw_generated
        self.num_held_out, self.num_draws = num_held_out, num_draws
        self.min_ess_fraction, self.eval_every, self.patience = min_ess_fraction, eval_every, patience
        self.settings = dict(settings)
        self.frontier: list[FrontierPoint] = []
        self.best: dict[str, Any] = {}
        self.start = rng_state()
        self._draw_sets()
        check_rows(data, self.generated)

    def __call__(self, step: int, losses: dict[str, float]) -> bool:
        """Evaluate when it is time; say whether training should end."""
        if step % self.eval_every and step != self.settings["num_steps"]:
            return False
        report, log_loss = self.report()
        self.network.train()
        point = FrontierPoint(step, log_loss, report.auc, report.tail.ess_fraction)
        self.frontier.append(point)
        if best_point(self.frontier, self.min_ess_fraction) is point:
            self.best = {key: _clone(value) for key, value in self.network.state_dict().items()}
        return is_over(self.frontier, self.min_ess_fraction, self.patience)

    def report(self) -> tuple[RatioReport, float]:
        """Judge the network as it is, and leave it in evaluation mode; return also its balanced log loss."""
        self.log_ratio.eval()
        real = score_rows(self.log_ratio, self.data[self.held_out], "held-out real")
        generated = score_rows(self.log_ratio, self.generated, "generated")
        log_loss = 0.5 * softplus(-real).mean() + 0.5 * softplus(generated).mean()
        return diagnose(real, generated), float(log_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the sets may be large, so where their draws began stands for them."""
        return {
            "start": self.start,
            "settings": self.settings,
            "marks": self._marks(),
            "frontier": [list(point) for point in self.frontier],
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take back the record and draw the same sets again.

        Raises:
            ValueError: if the record is of other settings, data or draws.
        """
        for name, value in self.settings.items():
            if state["settings"][name] != value:
                raise ValueError(
                    f"The checkpoint was written with {name} {state['settings'][name]}; got {value}. "
                    "Go on with the same, or give another path."
                )
        self.start = state["start"]
        set_rng_state(self.start)
        self._draw_sets()
        for there, here in zip(state["marks"], self._marks(), strict=True):
            if not math.isclose(there, here, rel_tol=1e-5, abs_tol=1e-8):
                raise ValueError(
                    "The checkpoint was written with other data, another generator or another prior. "
                    "Go on with the same, or give another path."
                )
        self.frontier = [FrontierPoint(*point) for point in state["frontier"]]
        self.best = state["best"]

    def _draw_sets(self) -> None:
        order = torch.randperm(len(self.data), device=self.data.device)
        self.held_out, self.training_rows = order[: self.num_held_out], order[self.num_held_out :]
        rows = chunk_rows(None, self.data)
        sizes = [min(rows, self.num_draws - done) for done in range(0, self.num_draws, rows)]
        self.generated = torch.cat([self.draw_generated(size) for size in sizes])

    def _marks(self) -> list[float]:
        """Return numbers that tell these sets from others of the same shape."""
        return [float(rows.mean(dtype=torch.float64)) for rows in (self.data[self.held_out], self.generated)]


def best_point(frontier: Sequence[FrontierPoint], min_ess_fraction: float) -> FrontierPoint | None:
    """Return the point of lowest loss among those with enough overlap."""
    enough = [point for point in frontier if point.ess_fraction >= min_ess_fraction]
    return min(enough, key=lambda point: point.log_loss, default=None)


def is_over(frontier: Sequence[FrontierPoint], min_ess_fraction: float, patience: int) -> bool:
    """Say whether the overlap is gone for good, or the loss has stopped falling.

    A random start may have little overlap too. While the loss is no better than a constant's, nothing is gone.
    """
    last = frontier[-MAX_BELOW:]
    gone = [point.ess_fraction < min_ess_fraction and point.log_loss < math.log(2) for point in last]
    if len(last) == MAX_BELOW and all(gone):
        return True
    lowest = min(range(len(frontier)), key=lambda index: frontier[index].log_loss)
    return len(frontier) - 1 - lowest >= patience


def _clone(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
