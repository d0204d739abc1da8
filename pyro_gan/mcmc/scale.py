"""The centre and the scale of every coordinate, learnt during warmup from all chains at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["RunningScale"]

#: Weights of states grow as this power of the step, so that where chains came from is forgotten.
POWER = 5

#: Independent draws that a unit scale counts for, against the draws seen.
PRIOR_DRAWS = 5


class RunningScale:
    """Mean and standard deviation of each coordinate over chains and warmup steps, late steps counting most.

    The standard deviation is drawn towards 1, in logs, as long as there are few draws. A coordinate in which all
    chains have always agreed has none, and 1 is taken.

    Args:
        adapt: Whether the scale is to be learnt; otherwise it stays 1. The centre is learnt anyway.
    """

    def __init__(self, adapt: bool) -> None:
        self.adapt = adapt
        self.centre = self.value = torch.ones(())

    def reset(self, like: Float[Tensor, " dim"]) -> None:
        """Forget all that was learnt, in the dtype and on the device of `like`."""
        self.value = torch.ones_like(like)
        self.centre, self._variance = torch.zeros_like(like), torch.zeros_like(like)
        self._updates = 0

    def update(self, z: Float[Tensor, "chain dim"]) -> None:
        """Take the chains' positions into account: where they start, and after each warmup step."""
        rate = (POWER + 1) / (POWER + 1 + self._updates)
        self._updates += 1
        mean = z.mean(0)
        shift = mean - self.centre
        self._variance = (1 - rate) * (self._variance + rate * shift.square()) + rate * (
            z - mean
        ).square().mean(0)
        self.centre = self.centre + rate * shift
        if self.adapt:
            # Draws of later steps have most of the weight, and those of one chain are alike.
            draws = len(z) * self._updates / (POWER + 1)
            known = torch.where(self._variance > 0, self._variance, 1.0)
            self.value = known ** (0.5 * draws / (draws + PRIOR_DRAWS))
