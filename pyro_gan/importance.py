"""Importance weights: effective size, log mean weight and its error, Pareto smoothing, systematic resampling."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import batch, count, shaped

__all__ = [
    "LogMeanWeight",
    "WeightTail",
    "effective_size",
    "finite_weights",
    "log_mean_weight",
    "smooth",
    "systematic",
    "weight_tail",
]

#: Fewest weights above zero for smoothing: the upper fifth of fewer is under five weights, to which no tail is fitted.
MIN_FOR_SMOOTHING = 25


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


@final
class WeightTail(NamedTuple):
    """What a set of importance weights says about itself, above all about the few largest.

    Attributes:
        num_draws: Number of weights, those that are zero included.
        ess: Kong's effective sample size, (sum w)^2 / sum w^2, between 1 and `num_draws`.
        ess_fraction: `ess / num_draws`.
        largest_weight_share: The largest weight divided by the sum of all.
        pareto_k: Shape of a generalised Pareto distribution fitted to the largest weights. Above .5 their variance is
            infinite, above .7 smoothing no longer helps, above 1 their mean is infinite. Plus infinity where no shape
            can be found: too few weights above zero, or a fit that fails. Minus infinity where the largest weights are
            equal, so that there is no tail. Never NaN.
        log_mean_weight: Log of the mean weight, nats. It is 0 for exact log ratios of generated data; for `p/q` it
            estimates log Z.
        log_mean_weight_se: Its standard error by the delta method, NaN for a single draw. Like the mean, it does not
            see regions without a draw.
    """

    num_draws: int
    ess: float
    ess_fraction: float
    largest_weight_share: float
    pareto_k: float
    log_mean_weight: float
    log_mean_weight_se: float


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


def weight_tail(log_weights: Float[Tensor, " draw"]) -> WeightTail:
    """Diagnose importance weights before anyone relies on them.

    Args:
        log_weights: `(draw,)`, in nats; minus infinity is a weight of zero. A constant added to all of them changes
            `log_mean_weight` alone.

    Returns:
        The figures, as Python numbers computed in float64.

    Raises:
        ValueError: if the shape is wrong, a log weight is NaN or plus infinity, or all weights are zero.

    References:
        Sequential imputations and Bayesian missing data problems, A. Kong, J. S. Liu and W. H. Wong, 1994,
        https://doi.org/10.1080/01621459.1994.10476469;
        Pareto smoothed importance sampling, A. Vehtari et al., 2024, https://arxiv.org/abs/1507.02646

    Example:
        >>> tail = weight_tail(torch.tensor([3.0, 1.0, 1.0, 1.0]).log())
        >>> round(tail.ess, 6), round(tail.largest_weight_share, 6)
        (3.0, 0.5)
    """
    values = _checked(log_weights)
    mean = log_mean_weight(values)
    return WeightTail(
        num_draws=len(values),
        ess=float(mean.ess),
        ess_fraction=float(mean.ess) / len(values),
        largest_weight_share=float((values.max() - torch.logsumexp(values, 0)).exp()),
        pareto_k=_smooth(values)[1],
        log_mean_weight=float(mean.value),
        log_mean_weight_se=float(mean.standard_error),
    )


def smooth(log_weights: Float[Tensor, " draw"]) -> tuple[Float[Tensor, " draw"], float]:
    """Replace the largest weights by quantiles of a generalised Pareto distribution fitted to them (PSIS).

    This trades a little bias for much variance while Pareto k is below .7. Where no tail can be fitted (fewer than 25
    weights above zero, or equal ones at the top) the weights come back as they are.

    Args:
        log_weights: `(draw,)`, in nats; minus infinity is a weight of zero, and stays one.

    Returns:
        Log weights of the same shape, order, dtype, device and scale, without gradient. None exceeds the largest
        that was given. And Pareto k, see `WeightTail`.

    Raises:
        ValueError: as `weight_tail`.

    References:
        Pareto smoothed importance sampling, A. Vehtari et al., 2024, https://arxiv.org/abs/1507.02646

    Example:
        >>> log_weights, pareto_k = smooth(torch.linspace(-1, 1, 1000))
        >>> log_weights.shape, pareto_k < 0.7
        (torch.Size([1000]), True)
    """
    smoothed, pareto_k = _smooth(_checked(log_weights))
    return smoothed.to(log_weights), pareto_k


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
    cumulative = torch.softmax(_checked(log_weights), 0).cumsum(0)
    points = (torch.arange(num_outputs) + torch.rand((), dtype=torch.float64)) / num_outputs
    # A draw owns the points from the sum before it up to its own sum, that one excluded: a zero weight owns none.
    chosen = torch.searchsorted(cumulative / cumulative[-1], points, right=True)
    chosen = chosen.clamp(max=len(log_weights) - 1)
    # The copies of a draw lie side by side here; shuffled, the first hundred outputs are like any other hundred.
    return chosen[torch.randperm(num_outputs)].to(log_weights.device)


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


def _checked(log_weights: Tensor) -> Tensor:
    values = finite_weights(log_weights)
    if torch.isneginf(values).all():
        raise ValueError(
            f"Expected a weight above zero; got {len(values)} log weights that are all -inf. Draw more, or look at "
            "log_ratio(generator(z))."
        )
    return values


def _smooth(values: Tensor) -> tuple[Tensor, float]:
    # Zero weights say nothing about the tail: ArviZ is given the others alone.
    positive = torch.isfinite(values)
    body = values[positive]
    if len(body) < MIN_FOR_SMOOTHING:
        return values, math.inf
    # ArviZ takes this many, give or take one, as the tail; it wants five of them above the next weight.
    num_tail = math.ceil(min(len(body) / 5, 3 * math.sqrt(len(body))))
    top = body.topk(num_tail + 1).values
    num_above = int((top > top[-1]).sum())
    if num_above < 5:
        return values, math.inf if num_above else -math.inf
    smoothed, pareto_k = _psis(body.numpy())
    # ArviZ gives a shape without smoothed weights where weights tie, and NaN where they span too many nats.
    if not (math.isfinite(pareto_k) and torch.from_numpy(smoothed).isfinite().all()):
        return values, math.inf if math.isnan(pareto_k) else pareto_k
    result = values.clone()
    # ArviZ may normalise. The smallest weight is never smoothed, so it tells the scale.
    lowest = int(body.argmin())
    result[positive] = torch.from_numpy(smoothed) + float(body[lowest] - smoothed[lowest])
    return result.clamp(max=float(body.max())), pareto_k


def _psis(log_weights: Any) -> tuple[Any, float]:
    """Call ArviZ's PSIS, 1.x or 0.x."""
    # Fits to narrow tails overflow on purpose inside ArviZ.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from arviz_stats.base import array_stats

            # ArviZ 1.x expects log likelihoods: the negative of their leave-one-out log weights.
            smoothed, pareto_k = array_stats.psislw(-log_weights)
        except ImportError:
            import arviz

            smoothed, pareto_k = arviz.psislw(log_weights)
    return smoothed, float(pareto_k)
