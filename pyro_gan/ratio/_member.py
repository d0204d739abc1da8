"""The training of one fresh critic: its batches, its loss, and the loop that the judge watches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_gan._networks import critic_scores
from pyro_gan.objectives.base import Penalty
from pyro_gan.ratio._course import Course
from pyro_gan.ratio._judge import Judge, set_training
from pyro_gan.ratio._verdict import no_overlap
from pyro_gan.training import Player, train
from pyro_gan.training.describe import describe

__all__ = ["Recipe", "train_member"]


@final
class Recipe(NamedTuple):
    """What trains a critic besides its loss; as for `fit_log_ratio`."""

    penalty: Penalty | None
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None
    scheduler: Callable[[Optimizer], LRScheduler] | None
    checkpoint: str | os.PathLike[str] | None
    progress: bool

    def make_optimizer(self, network: nn.Module) -> Optimizer:
        """Return the optimiser of the parameters that require a gradient."""
        trained = [p for p in network.parameters() if p.requires_grad]
        return AdamW(trained, lr=1e-3, weight_decay=1e-2) if self.optimizer is None else self.optimizer(trained)


def train_member(judge: Judge, course: Course, recipe: Recipe) -> None:
    """Train the judge's network, and leave it in its best state and in evaluation mode, also if an exception ends it.

    Raises:
        RuntimeError: if no state left enough overlap.
    """
    network, objective = judge.network, judge.log_ratio.objective
    batch_size, device = judge.settings["batch_size"], judge.data.device

    def next_batch() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(judge.training_rows), (batch_size,), device=device)
        return judge.data[judge.training_rows[index]], judge.draw_generated(batch_size)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        # In one batch: a BatchNorm that saw one class at a time would have other statistics than in use.
        scores = critic_scores(network, torch.cat(batch))
        value = objective.critic_loss(scores[:batch_size], scores[batch_size:])
        return value if recipe.penalty is None else value + recipe.penalty(network, *batch)

    schedule = None if recipe.scheduler is None else recipe.scheduler(course.optimizer)
    course.set_rate(0)
    set_training(network)
    try:
        train(
            [Player("critic", network, course.optimizer, loss, scheduler=schedule)],
            next_batch,
            num_steps=course.num_steps,
            callback=judge,
            state=judge,
            checkpoint=recipe.checkpoint,
            checkpoint_every=judge.settings["eval_every"],
            settings={name: describe(value) for name, value in judge.settings.items()},
            progress=recipe.progress,
        )
    finally:
        if judge.best:
            network.load_state_dict(judge.best)
        judge.log_ratio.eval()
    if not judge.best:
        raise RuntimeError(no_overlap(judge.frontier, course.min_ess_fraction))
    judge.log_ratio.frontier, judge.log_ratio.ended = tuple(judge.frontier), course.ended
