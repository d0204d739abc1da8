"""Systematic resampling: copies of draws in proportion to their weights."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import count
from pyro_gan.importance.mean import positive_weights

__all__ = ["systematic"]


def systematic(log_weights: Float[Tensor, " draw"], num_outputs: int) -> Int[Tensor, " output"]:
    """Resample: copy each draw its share of the weight, rounded up or down, and exactly that share on average.

    Args:
        log_weights: Log of one unnormalised weight for each draw; minus infinity is a weight of zero.
        num_outputs: Number of copies in all.

    Returns:
        Indices of draws, `(output,)`, in random order, on the weights' device.

    Raises:
        ValueError: as `weight_tail`, or if `num_outputs` is not a positive whole number.

    References:
        Comparison of resampling schemes for particle filtering, R. Douc, O. Cappe and E. Moulines, 2005,
        https://arxiv.org/abs/cs/0507025

    Example:
        >>> systematic(torch.tensor([0.5, 0.25, 0.25]).log(), 4).sort().values
        tensor([0, 0, 1, 2])
    """
    num_outputs = count("num_outputs", num_outputs)
    # In single precision the running sum of millions of weights is off by as much as one of them.
    cumulative = torch.softmax(positive_weights(log_weights), 0).cumsum(0)
    points = (torch.arange(num_outputs) + torch.rand((), dtype=torch.float64)) / num_outputs
    # A draw owns the points from the sum before it up to its own sum, that one excluded: a zero weight owns none.
    chosen = torch.searchsorted(cumulative / cumulative[-1], points, right=True)
    chosen = chosen.clamp(max=len(log_weights) - 1)
    # The copies of a draw lie side by side here; shuffled, the first hundred outputs are like any other hundred.
    return chosen[torch.randperm(num_outputs)].to(log_weights.device)
