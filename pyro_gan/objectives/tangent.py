"""An exponential that continues as its tangent, so that float32 never overflows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import real, tensor

__all__ = ["LIMIT", "exp_tangent"]

#: Nats of log ratio up to which losses with exponentials are as written; samples cannot tell larger ratios apart.
LIMIT = 20.0


def exp_tangent(x: Float[Tensor, "*shape"], limit: float = LIMIT) -> Float[Tensor, "*shape"]:
    """Return e^x up to `limit`, and beyond it the tangent at `limit`: convex, with a continuous and positive slope.

    Args:
        x: Any real numbers.
        limit: Where the tangent begins; 20 nats by default.

    Example:
        >>> import torch
        >>> exp_tangent(torch.tensor([0.0, 1.0, 3.0]), limit=1.0)
        tensor([1.0000, 2.7183, 8.1548])
    """
    below = tensor("x", x).clamp(max=real("limit", limit))
    return below.exp() * (1 + (x - below))
