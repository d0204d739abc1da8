"""A ceiling on log ratios, reached smoothly."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from pyro_gan.ratio.maps.base import Fitted

__all__ = ["GUARD_WIDTH", "TailGuard"]

#: Nats below the cap at which the guard begins to bend.
GUARD_WIDTH = 1.0


@final
class TailGuard(Fitted):
    r"""A ceiling on log ratios that is reached smoothly, so that the gradient never dies.

    The identity up to one nat below the cap, and above that, with :math:`t` the nats by which it is exceeded,

    .. math:: l \mapsto \mathrm{cap} - \frac{1}{1 + t},

    which has a continuous derivative :math:`1 / (1 + t)^2`. A hard clamp would leave a gradient kernel nothing to
    follow out of the tail.

    Args:
        cap: The ceiling in nats; None is no ceiling.

    Raises:
        ValueError: if the cap is not a finite number.

    Example:
        >>> TailGuard(3.0)(torch.tensor([1.0, 2.0, 3.0, 100.0]))
        tensor([1.0000, 2.0000, 2.5000, 2.9899])
    """

    cap: Tensor

    def __init__(self, cap: float | None) -> None:
        super().__init__()
        if cap is not None and not math.isfinite(cap):
            raise ValueError(f"Expected a finite cap in nats, or None to switch the guard off; got {cap}.")
        self.register_buffer("cap", torch.tensor(math.inf if cap is None else cap))

    @property
    def knee(self) -> Tensor:
        """Where the guard begins to bend."""
        return self.cap - GUARD_WIDTH

    def forward(self, log_ratio: Tensor) -> Tensor:
        """Return guarded log ratios of the same shape; NaN passes."""
        above = log_ratio > self.knee
        # The inner `where` keeps the branch not taken finite, or its gradient would be NaN.
        excess = torch.where(above, log_ratio - self.knee, 0.0) / GUARD_WIDTH
        return torch.where(above, self.cap - GUARD_WIDTH / (1 + excess), log_ratio)
