"""The centre and the scale of each coordinate, learnt during warmup from all chains at once."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["RunningScale"]

#: The weight of a state grows as this power of its step, so that the starting points are forgotten.
POWER = 5

#: A unit scale counts as this number of independent draws.
PRIOR_DRAWS = 5


@final
class RunningScale:
    """Mean and standard deviation of each coordinate over chains and warmup steps; late steps count most.

    The standard deviation is shrunk towards 1, in logs, while there are few draws. If all chains have always had the
    same value in a coordinate, its scale is 1.

    Args:
        adapt: Whether to learn the scale; otherwise it stays 1. The centre is always learnt.
    """

    def __init__(self, adapt: bool) -> None:
        self.adapt = adapt
        self.centre = self.value = torch.ones(())

    def reset(self, like: Float[Tensor, " dim"]) -> None:
        """Forget what was learnt, and take the dtype and device of `like`."""
        self.value = torch.ones_like(like)
        self.centre, self._variance = torch.zeros_like(like), torch.zeros_like(like)
        self._updates = 0

    def update(self, z: Float[Tensor, "chain dim"]) -> None:
        """Take the positions of the chains into account: at the start, and after each warmup step."""
        rate = (POWER + 1) / (POWER + 1 + self._updates)
        self._updates += 1
        mean = z.mean(0)
        shift = mean - self.centre
        self._variance = (1 - rate) * (self._variance + rate * shift.square()) + rate * (z - mean).square().mean(0)
        self.centre = self.centre + rate * shift
        if self.adapt:
            # Late draws have most of the weight, and the draws of one chain are correlated.
            draws = len(z) * self._updates / (POWER + 1)
            known = torch.where(self._variance > 0, self._variance, 1.0)
            self.value = known ** (0.5 * draws / (draws + PRIOR_DRAWS))
