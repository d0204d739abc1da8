"""An exponential that goes on as its tangent, so that float32 never overflows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

__all__ = ["LIMIT", "exp_tangent"]

#: Nats of log ratio up to which losses with exponentials are as written; samples cannot tell such ratios apart.
LIMIT = 20.0


def exp_tangent(x: Float[Tensor, "*shape"], limit: float = LIMIT) -> Float[Tensor, "*shape"]:
    """Return e^x up to `limit`, and its tangent there beyond: convex, with a continuous slope that never dies.

    Example:
        >>> import torch
        >>> exp_tangent(torch.tensor([0.0, 1.0, 3.0]), limit=1.0)
        tensor([1.0000, 2.7183, 8.1548])
    """
    below = x.clamp(max=limit)
    return below.exp() * (1 + (x - below))
