"""A ceiling for log ratios that is approached smoothly."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from pyro_gan.checks import real
from pyro_gan.ratio.maps.base import Fitted

__all__ = ["GUARD_WIDTH", "TailGuard", "bend"]

#: Nats below the cap at which the guard begins to bend.
GUARD_WIDTH = 1.0


@final
class TailGuard(Fitted):
    r"""A ceiling for log ratios that is approached smoothly, so that the gradient never vanishes.

    It is the identity up to one nat below the cap. Above that knee, with :math:`t` the nats beyond the knee, it is

    .. math:: l \mapsto \mathrm{cap} - \frac{1}{1 + t},

    with the continuous derivative :math:`1 / (1 + t)^2`. Behind a hard clamp the gradient is zero, and a gradient
    kernel would not find its way out of the tail.

    Args:
        cap: The ceiling in nats, or None for no ceiling.

    Raises:
        ValueError: if the cap is not a finite number.

    Example:
        >>> TailGuard(3.0)(torch.tensor([1.0, 2.0, 3.0, 100.0]))
        tensor([1.0000, 2.0000, 2.5000, 2.9899])
    """

    cap: Tensor

    def __init__(self, cap: float | None) -> None:
        super().__init__()
        ceiling = math.inf if cap is None else real("cap", cap, cure="None switches the guard off.")
        self.register_buffer("cap", torch.tensor(ceiling))

    @property
    def knee(self) -> Tensor:
        """The log ratio from which on the guard bends."""
        return self.cap - GUARD_WIDTH

    def forward(self, log_ratio: Tensor) -> Tensor:
        """Return guarded log ratios of the same shape; NaN stays NaN."""
        return bend(log_ratio, self.cap)


def bend(log_ratio: Tensor, cap: Tensor) -> Tensor:
    """Return log ratios that approach a cap smoothly, from one nat below it on."""
    knee = cap - GUARD_WIDTH
    above = log_ratio > knee
    # The inner `where` keeps the unused branch finite: otherwise its gradient would be NaN.
    excess = torch.where(above, log_ratio - knee, 0.0) / GUARD_WIDTH
    return torch.where(above, cap - GUARD_WIDTH / (1 + excess), log_ratio)
