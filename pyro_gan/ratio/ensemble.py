"""The mean log ratio of several critics, and how far they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import by_row, critic_scores
from pyro_gan._typing import Critic
from pyro_gan.importance import jackknife_error

__all__ = ["MeanLogRatio"]


@final
class MeanLogRatio(nn.Module):
    r"""The mean of k log ratios in nats, a critic that `LogRatio(mean, Bernoulli())` takes as it is.

    If the k were fitted to the data without one k-th each, as `fit_log_ratio(..., num_networks=k)` fits them, the
    jackknife gives an error bar at every point,

    .. math:: s(x)^2 = \frac{k - 1}{k} \sum_j \Big(\log r_j(x) - \overline{\log r}(x)\Big)^2 .

    It has the error of finite data and of the random start. It does not have an error that all k share: a network too
    small, training too short, or a region without rows.

    Args:
        members: Log ratios, callables `(batch, *event) -> (batch,)`; modules become submodules.

    Raises:
        ValueError: if there are fewer than two, or one is no module.

    References:
        The Jackknife, the Bootstrap and Other Resampling Plans, B. Efron, 1982,
        https://doi.org/10.1137/1.9781611970319

    Example:
        >>> mean = MeanLogRatio([nn.Linear(1, 1), nn.Linear(1, 1)])
        >>> x = torch.zeros(3, 1)
        >>> mean(x).shape, mean.standard_error(x).shape
        (torch.Size([3]), torch.Size([3]))
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        for member in members:
            checks.instance("each of members", member, nn.Module)
        checks.count("number of members", len(members), minimum=2, cure="The spread of one is unknown.")
        self.members = nn.ModuleList(members)

    @property
    def replicates(self) -> list[Critic]:
        """The members: the tail of the weights and the change of moments take their error from them."""
        return list(self.members)

    def forward(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
        """Return the mean log ratio in nats, `(batch,)`."""
        return by_row(lambda rows, **row_context: self.each(rows, **row_context).mean(0), x, **context)

    def each(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, "member batch"]:
        """Return the log ratio of each member, `(member, batch)`."""
        return torch.stack([critic_scores(member, x, **context) for member in self.members])

    def standard_error(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
        """Return the jackknife's standard error of the mean log ratio in nats, `(batch,)`."""
        return jackknife_error(self.each(x, **context))
