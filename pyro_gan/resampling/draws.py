"""Prior draws in blocks, with their log weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.importance.mean import known_weights
from pyro_gan.targets import WeightedTarget

__all__ = ["BLOCK_DRAWS", "Draws", "joined", "score"]

#: Largest number of prior draws in a block: while one is scored, its generated data are in memory.
BLOCK_DRAWS = 100_000

# The last few operations on a weight may round it above its bound; up to this many units it does not count as above.
ROUNDING_UNITS = 16


@final
class Draws(NamedTuple):
    """A block of prior draws.

    Attributes:
        z: The draws, unconstrained.
        log_weight: Their log weights as the target returns them, nats.
        values: The same in float64 on the CPU, because some accelerators have no float64 and probabilities of
            acceptance need it.
    """

    z: Float[Tensor, "draw dim"]
    log_weight: Float[Tensor, " draw"]
    values: Float[Tensor, " draw"]

    def num_above(self, log_bound: float) -> int:
        """Return the number of draws whose weight exceeds a bound by more than rounding."""
        slack = ROUNDING_UNITS * torch.finfo(self.log_weight.dtype).eps * max(1.0, abs(log_bound))
        return int((self.values > log_bound + slack).sum())


def score(target: WeightedTarget, num_draws: int) -> Iterator[Draws]:
    """Yield so many prior draws, in blocks; a log weight that is NaN or plus infinity is minus infinity.

    Warns:
        UserWarning: of such weights.
    """
    for start in range(0, num_draws, BLOCK_DRAWS):
        z = target.sample_prior(min(BLOCK_DRAWS, num_draws - start))
        log_weight = known_weights(target.log_weight(z))
        yield Draws(z, log_weight, log_weight.to("cpu", torch.float64))


def joined(blocks: Sequence[Draws]) -> tuple[Float[Tensor, "draw dim"], Float[Tensor, " draw"]]:
    """Return the draws of all blocks, and their log weights."""
    return torch.cat([block.z for block in blocks]), torch.cat([block.log_weight for block in blocks])
