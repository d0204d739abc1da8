"""The log of the mean of importance weights and its error, the effective number of draws, and checks of weights."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import batch, shaped, tensor

__all__ = [
    "LogMeanWeight",
    "effective_size",
    "finite_weights",
    "known_weights",
    "log_mean_weight",
    "positive_weights",
    "warn_of_unknown",
]


@final
class LogMeanWeight(NamedTuple):
    """The log of the mean of importance weights, one for each set of draws.

    Attributes:
        value: Log of the mean weight, nats.
        standard_error: Of the value, by the delta method; NaN for a single draw, infinite where all weights are zero.
            Like the mean, it does not see regions without a draw.
        ess: Kong's effective sample size, between 1 and the number of draws; 0 where all weights are zero.
    """

    value: Float[Tensor, "..."]
    standard_error: Float[Tensor, "..."]
    ess: Float[Tensor, "..."]


def log_mean_weight(log_weights: Float[Tensor, "*batch draw"]) -> LogMeanWeight:
    r"""Return the log of the mean weight, its standard error and the effective sample size, over the last dimension.

    .. math:: \log \bar w = \log \frac1n \sum_i w_i, \qquad
        \mathrm{se}(\log \bar w) \approx \sqrt{\frac{n / \mathrm{ESS} - 1}{n - 1}}.

    Args:
        log_weights: `(*batch, draw)`, in nats, at least one draw; minus infinity is a weight of zero. A NaN or plus
            infinity is not refused: the figures of its set are then NaN or infinite.

    Returns:
        Three tensors `(*batch,)` of the weights' dtype and device. The value is differentiable; the standard error and
        the effective sample size are computed in float64 and have no gradient.

    Raises:
        ValueError: if the weights are no tensor, or there are no draws.

    Example:
        >>> mean = log_mean_weight(torch.tensor([[3.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]).log())
        >>> mean.value.exp(), mean.ess
        (tensor([1.5000, 0.2500]), tensor([3., 1.]))
    """
    ess = effective_size(log_weights)
    num = log_weights.shape[-1]
    if not num:
        raise ValueError(f"Expected at least one draw; got log weights of shape {tuple(log_weights.shape)}.")
    value = torch.logsumexp(log_weights, -1) - math.log(num)
    variance = (num / ess - 1) / (num - 1) if num > 1 else torch.full_like(ess, math.nan)
    return LogMeanWeight(value, variance.sqrt().to(value), ess.to(value))


def effective_size(log_weights: Float[Tensor, "*batch draw"]) -> Float[Tensor, "*batch"]:
    r"""Return Kong's effective sample size over the last dimension, in float64 and without gradient.

    .. math:: \mathrm{ESS} = \frac{(\sum_i w_i)^2}{\sum_i w_i^2}

    Args:
        log_weights: `(*batch, draw)`, in nats, up to a constant for each set; minus infinity is a weight of zero.

    Returns:
        `(*batch,)`, between 1 and the number of draws, or 0 where all weights are zero.

    Raises:
        ValueError: if the weights are no tensor `(*batch, draw)`.

    References:
        Sequential imputations and Bayesian missing data problems, A. Kong, J. S. Liu and W. H. Wong, 1994,
        https://doi.org/10.1080/01621459.1994.10476469

    Example:
        >>> round(effective_size(torch.tensor([3.0, 1.0, 1.0, 1.0]).log()).item(), 5)
        3.0
    """
    shaped("log_weights", log_weights, ("*batch", "draw"))
    # Apple's GPUs have no float64; the CPU has.
    device = "cpu" if log_weights.device.type == "mps" else log_weights.device
    values = log_weights.detach().to(device).double()
    total = torch.logsumexp(values, -1)
    ess = (2 * total - torch.logsumexp(2 * values, -1)).exp()
    # Rounding may put the ESS of equal weights a hair above their number.
    return torch.where(torch.isneginf(total), 0.0, ess.clamp(1, values.shape[-1]))


def known_weights(log_weights: Float[Tensor, " draw"]) -> Float[Tensor, " draw"]:
    """Return log weights in which those that are NaN or plus infinity are zero, minus infinity, and warn of them.

    Such a weight is a fault of the networks, and not part of the target. Chains reject it, and so does every sampler.

    Warns:
        UserWarning: if there are any, with their number.

    Raises:
        ValueError: if the weights are no tensor.
    """
    unknown = ~(tensor("log_weights", log_weights) < torch.inf)
    if not bool(unknown.any()):
        return log_weights
    warn_of_unknown(int(unknown.sum()), unknown.numel())
    return log_weights.masked_fill(unknown, -torch.inf)


def warn_of_unknown(number: int, num_draws: int) -> None:
    """Warn if the weights of some draws are NaN or plus infinity, and count as zero."""
    if number:
        warnings.warn(
            f"The log weights of {number} of {num_draws} draws are NaN or +inf. They count as zero, so that what these "
            "draws stand for is left out. Look for NaN in log_ratio(generator(z)), or cap the log ratio.",
            stacklevel=4,
        )


def finite_weights(log_weights: Float[Tensor, " draw"]) -> Float[Tensor, " draw"]:
    """Return log weights in float64 on the CPU, without gradient.

    Raises:
        ValueError: if the shape is wrong, or a log weight is NaN or plus infinity.
    """
    batch("log_weights", shaped("log_weights", log_weights, ("draw",)))
    values = log_weights.detach().to("cpu", torch.float64)
    if torch.isnan(values).any() or torch.isposinf(values).any():
        raise ValueError(
            f"Expected log weights that are finite or -inf (a weight of zero); got {int(torch.isnan(values).sum())} "
            f"NaN and {int(torch.isposinf(values).sum())} +inf of {len(values)}. Cap the log ratio, or find the "
            "critic's NaN."
        )
    return values


def positive_weights(log_weights: Float[Tensor, " draw"]) -> Float[Tensor, " draw"]:
    """Return log weights as `finite_weights` does.

    Raises:
        ValueError: as there, or if all weights are zero.
    """
    values = finite_weights(log_weights)
    if torch.isneginf(values).all():
        raise ValueError(
            f"Expected a weight above zero; got {len(values)} log weights that are all -inf. Draw more, or look at "
            "log_ratio(generator(z))."
        )
    return values
