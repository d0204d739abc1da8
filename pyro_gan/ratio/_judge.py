"""The judge of a critic in training: held-out rows, generated rows, and the evaluations of the critic on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from pyro_gan._networks import chunk_rows
from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.importance import effective_size
from pyro_gan.ratio._course import Course, best_point
from pyro_gan.ratio._holdout import check_rows
from pyro_gan.ratio._links import Links
from pyro_gan.ratio._scores import balanced_log_loss, score_both
from pyro_gan.ratio.diagnostics import FrontierPoint, area_under_curve
from pyro_gan.training.describe import check_outputs

__all__ = ["Judge", "set_training"]

#: Bridges need some point in the middle of the rows; so many real rows find one.
MAX_CENTRED = 10_000


@final
@dataclass(eq=False)
class Judge:
    """Callback and memory of one training run: it evaluates, keeps the best state and lets the course go on.

    The rows are in three parts. One trains, one chooses the state, and one, which has chosen nothing, judges it.

    Attributes:
        links: The log ratio in training, and what it is made of.
        data: All real rows; some are held out at random.
        draw_generated: Maps a number to that many generated rows.
        num_held_out: Number of real rows held out to judge, and again to choose if there is one fold.
        course: The learning rate and the end.
        settings: Values that a checkpoint must have in common with this run. Among them `num_validation_draws`, the
            number of generated rows, drawn once, that the held-out rows of each part are compared with; and
            `eval_every`, steps between evaluations.
        fold: Which of the folds chooses, from 0, and the number of folds into which the rows that do not judge are
            dealt. With one fold, so many rows choose as judge.
        frontier: The evaluations so far.
        best: The best state so far.
        start: State of torch's generators from which the sets are drawn; None for the state as it is. With the state
            of another judge the sets are the same, and the generators do not move.
    """

    links: Links
    data: Tensor
    draw_generated: Callable[[int], Tensor]
    num_held_out: int
    course: Course
    settings: dict[str, Any]
    fold: tuple[int, int] = (0, 1)
    frontier: list[FrontierPoint] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Draw the held-out rows and the generated ones."""
        now = rng_state()
        self.start = self._draw_sets(now if self.start is None else self.start)
        if self.start is not now:
            set_rng_state(now)
        if self.fold[0] == 0:  # the sets of the other folds are the same
            check_rows(self.data, self.generated)

    def __call__(self, step: int, losses: dict[str, float]) -> bool:
        """Evaluate if an evaluation is due; return whether training should end."""
        if self.course.is_last(step) or step % self.settings["eval_every"] == 0:
            self.frontier.append(self._evaluate(step))
            if best_point(self.frontier, self.settings["min_ess_fraction"]) is self.frontier[-1]:
                self.best = copy.deepcopy(self.links.network.state_dict())
            if self.course.next_stage(self.frontier):
                self.links.network.load_state_dict(self.best)
            set_training(self.links.network)
        self.course.set_rate(step)
        return bool(self.course.ended)

    @property
    def choosing_sets(self) -> tuple[Tensor, Tensor]:
        """The real and the generated rows that choose, which have not trained."""
        return self.data[self.choosing_rows], self.generated[: len(self.generated) // 2]

    @property
    def judging_sets(self) -> tuple[Tensor, Tensor]:
        """The real and the generated rows that judge, which have neither trained nor chosen."""
        return self.data[self.judging_rows], self.generated[len(self.generated) // 2 :]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; instead of the sets, which may be large, the start of their draws."""
        return {
            "start": self.start,
            "marks": self._marks(),
            "outputs": self._outputs(),
            "frontier": [list(point) for point in self.frontier],
            "best": self.best,
            "course": self.course.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Load the record and draw the same sets again.

        Raises:
            ValueError: if the record belongs to other data or draws.
        """
        self.start = self._draw_sets(state["start"])
        for there, here in zip(state["marks"], self._marks(), strict=True):
            if not math.isclose(there, here, rel_tol=1e-5, abs_tol=1e-8):
                raise ValueError("Expected the data, generator and prior of the checkpoint; got others")
        check_outputs("network", state["outputs"], self._outputs())
        self.frontier = [FrontierPoint(*point) for point in state["frontier"]]
        self.best = state["best"]
        self.course.load_state_dict(state["course"])

    def _evaluate(self, step: int) -> FrontierPoint:
        log_ratio = self.links.log_ratio.eval()
        sets = self.choosing_sets
        scores = score_both(log_ratio, *sets)
        ess_fraction = float(effective_size(scores.generated)) / len(scores.generated)
        # Where the ends do not overlap the loss between them is nearly zero; that of the bridges still tells states.
        loss = self.links.held_out_loss(*sets, self.centre) if self.links.has_bridges else balanced_log_loss(scores)
        return FrontierPoint(step, loss, area_under_curve(*scores), ess_fraction)

    def _draw_sets(self, start: dict[str, Any]) -> dict[str, Any]:
        """Draw the sets from that state of torch's generators, and return the state."""
        set_rng_state(start)
        order = torch.randperm(len(self.data), device=self.data.device)
        self.judging_rows, rest = order[: self.num_held_out], order[self.num_held_out :]
        fold, num_folds = self.fold
        place = torch.arange(len(rest), device=order.device)
        chooses = place < self.num_held_out if num_folds == 1 else place % num_folds == fold
        self.choosing_rows, self.training_rows = rest[chooses], rest[~chooses]
        rows, num_draws = chunk_rows(None, self.data), 2 * self.settings["num_validation_draws"]
        sizes = [min(rows, num_draws - done) for done in range(0, num_draws, rows)]
        self.generated = torch.cat([self.draw_generated(size) for size in sizes])
        some = self.data[self.training_rows[:MAX_CENTRED]], self.choosing_sets[1]
        self.centre = torch.stack([rows.mean(0) for rows in some]).mean(0)
        return start

    def _marks(self) -> list[float]:
        """Return numbers that distinguish these sets from others of the same shape."""
        return [float(rows.mean(dtype=torch.float64)) for rows in (self.data[self.choosing_rows], self.generated)]

    def _outputs(self) -> Tensor:
        """Return what the network gives for a few rows now."""
        log_ratio = self.links.log_ratio.eval()
        with torch.no_grad():
            scores = log_ratio(self.data[self.choosing_rows[:8]])
        set_training(self.links.network)
        return scores.float().cpu()


def set_training(network: nn.Module) -> None:
    """Set training mode, except in parts that are frozen: those with parameters of which none requires a gradient."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
