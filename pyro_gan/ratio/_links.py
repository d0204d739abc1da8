"""What a fresh ratio is trained on: its networks, one for each pair of neighbours on the way from generated to real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import critic_scores
from pyro_gan.objectives.base import Penalty
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.ratio._scores import balanced_log_loss, score_both
from pyro_gan.ratio.heads import LogRatio
from pyro_gan.ratio.telescope import SumLogRatio

__all__ = ["Links"]


@final
class Links:
    r"""The log ratios of a chain of distributions, in which each is told from the next one; often only one.

    Between the two ends stand k bridges, mixtures of a generated row and a real one at equal angles,

    .. math:: x_j = c + \cos(\theta_j) (x_G - c) + \sin(\theta_j) (x_{data} - c), \qquad
        \theta_j = \frac{\pi}{2} \frac{j}{k + 1} .

    Squares of the two factors add up to one, so that a bridge is about as wide as its ends. The centre c keeps the mean
    between the means of the ends. All bridges of a batch come from the same pairs of rows.

    Args:
        log_ratios: One, or one for each pair of neighbours, from the generated end on.
    """

    def __init__(self, log_ratios: Sequence[LogRatio]) -> None:
        self.log_ratios = list(log_ratios)
        #: The log ratio of the two ends.
        self.log_ratio = log_ratios[0]
        if self.has_bridges:
            self.log_ratio = LogRatio(SumLogRatio(self.log_ratios), Bernoulli())

    @property
    def has_bridges(self) -> bool:
        """Whether there is anything between the ends."""
        return len(self.log_ratios) > 1

    @property
    def network(self) -> nn.Module:
        """The networks as one module."""
        return checks.instance("network", self.log_ratio.critic, nn.Module)

    def waypoints(self, real: Tensor, generated: Tensor, centre: Tensor) -> list[Tensor]:
        """Return the ends and the bridges between them, from the generated end on, `(batch, *event)` each."""
        number = len(self.log_ratios)
        angles = [math.pi / 2 * place / number for place in range(1, number)]
        bridges = [centre + math.cos(a) * (generated - centre) + math.sin(a) * (real - centre) for a in angles]
        return [generated, *bridges, real]

    def loss(self, real: Tensor, generated: Tensor, centre: Tensor, *, penalty: Penalty | None = None) -> Tensor:
        """Return the mean loss of the networks on as many real as generated rows, with the penalty if there is one."""
        points = self.waypoints(real, generated, centre)
        losses = []
        for log_ratio, near, far in zip(self.log_ratios, points[:-1], points[1:], strict=True):
            # In one batch: a BatchNorm that saw one class at a time would have other statistics than in use.
            scores = critic_scores(log_ratio.critic, torch.cat([far, near]))
            losses.append(log_ratio.objective.critic_loss(scores[: len(far)], scores[len(far) :]))
            if penalty is not None:
                losses[-1] = losses[-1] + penalty(log_ratio.critic, far, near)
        return torch.stack(losses).mean()

    def held_out_loss(self, real: Tensor, generated: Tensor, centre: Tensor) -> float:
        """Return the mean log loss of the networks in nats; a constant guess scores log 2."""
        number = min(len(real), len(generated))
        points = self.waypoints(real[:number], generated[:number], centre)
        pairs = zip(self.log_ratios, points[:-1], points[1:], strict=True)
        losses = [balanced_log_loss(score_both(log_ratio, far, near)) for log_ratio, near, far in pairs]
        return sum(losses) / len(losses)
