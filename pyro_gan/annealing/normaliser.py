"""The log of a mean of weights, with its error and its bias."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LogNormaliser", "log_normaliser"]


class LogNormaliser(NamedTuple):
    """An estimate of log Z and what it is worth, one for each row of weights; float64 on the CPU.

    The mean of the weights is unbiased for Z, its log is not: it is a lower bound of log Z on average.

    Attributes:
        value: Log of the mean weight.
        standard_error: By the delta method, `sqrt((n / ESS - 1) / (n - 1))`; blind to weights that were not seen. NaN
            for one particle, or none above zero.
        bias: What the log of an unbiased estimate is expected to lack, `-standard_error^2 / 2`; a small one may be
            taken off, a large one says that the value is a bound and not an estimate.
        ess: Effective sample size of the weights.
        num_zero: Weights that are zero, those that were NaN or infinite among them.
    """

    value: Float[Tensor, "..."]
    standard_error: Float[Tensor, "..."]
    bias: Float[Tensor, "..."]
    ess: Float[Tensor, "..."]
    num_zero: Float[Tensor, "..."]


def log_normaliser(log_weights: Float[Tensor, "*batch particle"]) -> LogNormaliser:
    r"""Estimate log Z from importance weights, over the last dimension.

    .. math:: \log \hat Z = \log \frac1n \sum_i w_i, \qquad
        \mathrm{se} \approx \sqrt{\frac{n / \mathrm{ESS} - 1}{n - 1}}, \qquad
        E \log \hat Z - \log Z \approx -\frac{\mathrm{se}^2}{2} .

    Args:
        log_weights: In nats; minus infinity is a weight of zero. NaN and plus infinity count as zero.

    Returns:
        One estimate for every row.

    Raises:
        ValueError: if there are no particles.

    References:
        Annealed importance sampling, R. M. Neal, 2001, https://arxiv.org/abs/physics/9803008

    Example:
        >>> estimate = log_normaliser(torch.tensor([3.0, 1.0, 1.0, 1.0]).log())
        >>> float(estimate.value.exp()), float(estimate.ess)
        (1.5, 3.0)
    """
    if log_weights.dim() < 1 or log_weights.shape[-1] < 1:
        raise ValueError(
            f"Expected log weights of shape (*batch, particle), a particle or more; got {tuple(log_weights.shape)}."
        )
    values = log_weights.detach().to("cpu", torch.float64)
    values = values.masked_fill(torch.isnan(values) | torch.isposinf(values), -torch.inf)
    num = values.shape[-1]
    total = torch.logsumexp(values, -1)
    # Of weights that are all zero there are no shares: NaN, and an effective size of none.
    ess = (2 * total - torch.logsumexp(2 * values, -1)).exp()
    relative = (num / ess - 1).clamp(min=0) / (num - 1) if num > 1 else torch.full_like(ess, math.nan)
    return LogNormaliser(
        value=total - math.log(num),
        standard_error=relative.sqrt(),
        bias=-relative / 2,
        ess=ess.nan_to_num(0.0).clamp(max=num),
        num_zero=torch.isneginf(values).sum(-1).double(),
    )
