"""The training of one fresh critic: its batches, its loss, and the loop that the judge watches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_gan.objectives.base import Penalty
from pyro_gan.ratio._course import Course
from pyro_gan.ratio._judge import Judge, set_training
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
    """Train the judge's networks, and leave them in their best state, if there is one, also if an exception ends it.

    They are left in evaluation mode.
    """
    links, network = judge.links, judge.links.network
    batch_size, device = judge.settings["batch_size"], judge.data.device

    def next_batch() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(judge.training_rows), (batch_size,), device=device)
        return judge.data[judge.training_rows[index]], judge.draw_generated(batch_size)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return links.loss(*batch, judge.centre, penalty=recipe.penalty)

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
        links.log_ratio.eval()
    links.log_ratio.frontier, links.log_ratio.ended = tuple(judge.frontier), course.ended
