"""The centre and the scale of each coordinate, learnt during warmup from all chains at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

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
        self.centre = self.value = self._variance = torch.ones(())
        self._updates = 0

    def reset(self, like: Float[Tensor, " dim"], *, adapting: bool) -> None:
        """Take the dtype and device of `like`, and forget what was learnt if it is learnt anew or has another size."""
        if not adapting and self._updates and self.value.shape == like.shape:
            self.value, self.centre, self._variance = (v.to(like) for v in (self.value, self.centre, self._variance))
            return
        self.value = torch.ones_like(like)
        self.centre, self._variance = torch.zeros_like(like), torch.zeros_like(like)
        self._updates = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what was learnt."""
        return {"value": self.value, "centre": self.centre, "variance": self._variance, "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.value, self.centre, self._variance = state["value"], state["centre"], state["variance"]
        self._updates = state["updates"]

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
