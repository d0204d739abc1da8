"""Prior draws in blocks with their log weights, checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.resampling.importance import BLOCK_DRAWS
from pyro_gan.targets import Target

__all__ = ["Draws", "score"]

# A weight may pass its bound by the rounding of the last few operations on it; so many units of it are no exceedance.
ROUNDING_UNITS = 16


class Draws(NamedTuple):
    """A block of prior draws, unconstrained."""

    z: Float[Tensor, "draw dim"]
    #: As the target gives it.
    log_weight: Float[Tensor, " draw"]
    #: The same in float64 on the CPU: not every accelerator has that, and a probability is compared with a coin here.
    values: Float[Tensor, " draw"]

    def num_above(self, log_bound: float) -> int:
        """Return how many draws weigh more than a bound, rounding allowed for."""
        slack = ROUNDING_UNITS * torch.finfo(self.log_weight.dtype).eps * max(1.0, abs(log_bound))
        return int((self.values > log_bound + slack).sum())


def score(target: Target, num_draws: int) -> Iterator[Draws]:
    """Yield prior draws in blocks.

    Args:
        target: With a prior to draw from.
        num_draws: In all.

    Raises:
        ValueError: if a weight is NaN or plus infinity.
    """
    for start in range(0, num_draws, BLOCK_DRAWS):
        z = target.sample_prior(min(BLOCK_DRAWS, num_draws - start))
        log_weight = target.log_weight(z)
        values = log_weight.to("cpu", torch.float64)
        if bad := int((torch.isnan(values) | torch.isposinf(values)).sum()):
            raise ValueError(
                f"Expected log weights that are finite or -inf (a weight of zero); got {bad} of {len(values)} that "
                "are NaN or +inf. Cap the log ratio, or find the critic's NaN."
            )
        yield Draws(z, log_weight, values)
