"""A log ratio as a sum of log ratios of near neighbours, and how it did beside a single network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import critic_scores

__all__ = ["SumLogRatio", "Telescoping"]


@final
class SumLogRatio(nn.Module):
    r"""The sum of log ratios of neighbouring distributions, which is the log ratio of the two ends.

    .. math:: \log \frac{p_{data}(x)}{p_G(x)} = \sum_{j=0}^{k} \log \frac{p_{j+1}(x)}{p_j(x)},
        \qquad p_0 = p_G,\; p_{k+1} = p_{data} .

    A critic that separates two sides well learns little about how large the ratio is. Neighbours overlap, so each
    term can be learnt. `fit_log_ratio(..., num_bridges=k)` fits them.

    Args:
        members: Log ratios in nats from the generated end on, callables `(batch, *event) -> (batch,)`; modules become
            submodules.

    Raises:
        ValueError: if there are fewer than two, or one is no module.

    References:
        Telescoping Density-Ratio Estimation, B. Rhodes, K. Xu and M. U. Gutmann, 2020,
        https://arxiv.org/abs/2006.12204

    Example:
        >>> log_ratio = SumLogRatio([nn.Linear(1, 1), nn.Linear(1, 1)])
        >>> log_ratio(torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        for member in members:
            checks.instance("each of members", member, nn.Module)
        checks.count("number of members", len(members), minimum=2, cure="A single log ratio is no sum.")
        self.members = nn.ModuleList(members)

    def forward(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
        """Return the log ratio in nats, `(batch,)`."""
        return torch.stack([critic_scores(member, x, **context) for member in self.members]).sum(0)


@final
class Telescoping(NamedTuple):
    """A telescoped ratio beside a single network, on the rows that chose between them."""

    #: Number of bridges between the generated and the real end.
    num_bridges: int
    #: Log loss of the telescoped ratio in nats, where each class weighs one half; infinite if it left no overlap.
    log_loss: float
    #: Log loss of the single network minus that of the telescoped ratio. Above 0 the telescoped ratio won.
    advantage: float
    #: Its standard error, from the rows that chose; NaN if only one of the two left enough overlap.
    advantage_se: float

    @property
    def won(self) -> bool:
        """Whether the telescoped ratio is the one that was returned."""
        return self.advantage > 0

    def __str__(self) -> str:
        ratio = f"telescoped ratio, {self.num_bridges} bridges" if self.won else "single network"
        return f"{ratio}: its held-out loss is {abs(self.advantage):.4f} +- {self.advantage_se:.4f} nats lower"
