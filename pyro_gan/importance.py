"""What importance weights say about themselves, Pareto smoothing, and systematic resampling by them."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["WeightTail", "smooth", "systematic", "weight_tail"]

# With fewer, the upper fifth has under five weights, and no tail can be fitted to those.
MIN_FOR_SMOOTHING = 25


class WeightTail(NamedTuple):
    """The state of a set of importance weights, most of it about the few that carry the sum."""

    #: Weights, those that are zero included.
    num_draws: int
    #: Kong's effective sample size, (sum w)^2 / sum w^2: between 1 and `num_draws`.
    ess: float
    #: `ess / num_draws`.
    ess_fraction: float
    #: The largest weight over the sum of all.
    largest_weight_share: float
    #: Shape of a generalised Pareto law fitted to the largest weights: above .5 their variance is infinite, above .7
    #: smoothing no longer helps, above 1 their mean is infinite. Infinite with too few weights above zero to tell, NaN
    #: where the largest weights are all equal and there is no tail.
    pareto_k: float
    #: Log of the mean weight. For exact log ratios of generated points it is 0; for `p/q` it estimates log Z.
    log_mean_weight: float
    #: Its standard error by the delta method, NaN for a single draw. It is as blind to draws not seen as the mean.
    log_mean_weight_se: float


def weight_tail(log_weights: Float[Tensor, " draw"]) -> WeightTail:
    r"""Diagnose importance weights before anyone relies on them.

    .. math:: \mathrm{ESS} = \frac{(\sum_i w_i)^2}{\sum_i w_i^2}, \qquad
        \mathrm{se}(\log \bar w) \approx \sqrt{\frac{n / \mathrm{ESS} - 1}{n - 1}}.

    Args:
        log_weights: `(draw,)`, in nats, up to a constant as far as all but the mean weight go; minus infinity is a
            weight of zero.

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
    num_draws = len(values)
    total = torch.logsumexp(values, 0)
    # Rounding would put the ESS of equal weights a hair above their number.
    ess = min(float((2 * total - torch.logsumexp(2 * values, 0)).exp()), float(num_draws))
    return WeightTail(
        num_draws=num_draws,
        ess=ess,
        ess_fraction=ess / num_draws,
        largest_weight_share=float((values.max() - total).exp()),
        pareto_k=_smooth(values)[1],
        log_mean_weight=float(total) - math.log(num_draws),
        log_mean_weight_se=math.sqrt((num_draws / ess - 1) / (num_draws - 1)) if num_draws > 1 else math.nan,
    )


def smooth(log_weights: Float[Tensor, " draw"]) -> tuple[Float[Tensor, " draw"], float]:
    """Replace the largest weights by quantiles of a generalised Pareto law fitted to them (PSIS).

    It trades a little bias for much variance while Pareto k is below .7. Where no tail can be fitted (fewer than 25
    weights above zero, or equal ones at the top) the weights come back as they are.

    Args:
        log_weights: `(draw,)`, in nats; minus infinity is a weight of zero, and stays one.

    Returns:
        Log weights of the same shape, order, dtype, device and scale, without gradient, none above the largest
        that came; and Pareto k (see `WeightTail.pareto_k`).

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
    """Resample: each draw is copied its share of the weight, rounded up or down, and on average exactly that.

    Args:
        log_weights: Log of one unnormalised weight a draw; -inf for none.
        num_outputs: Copies in all.

    Returns:
        Indices of draws, `(output,)`, in random order, on the weights' device.

    References:
        Comparison of resampling schemes for particle filtering, R. Douc, O. Cappe and E. Moulines, 2005,
        https://arxiv.org/abs/cs/0507025

    Example:
        >>> systematic(torch.tensor([0.5, 0.25, 0.25]).log(), 4).sort().values
        tensor([0, 0, 1, 2])
    """
    # In single precision the running sum of millions of weights is off by as much as one of them. Not every
    # accelerator has another; the CPU does.
    cumulative = torch.softmax(log_weights.to("cpu", torch.float64), 0).cumsum(0)
    points = (torch.arange(num_outputs) + torch.rand((), dtype=torch.float64)) / num_outputs
    # A draw owns the points from the sum before it up to but without its own: one of no weight owns none.
    chosen = torch.searchsorted(cumulative / cumulative[-1], points, right=True)
    chosen = chosen.clamp(max=len(log_weights) - 1)
    # Sorted by draw the copies of one lie side by side; whoever takes the first hundred should not get few.
    return chosen[torch.randperm(num_outputs)].to(log_weights.device)


def _checked(log_weights: Tensor) -> Tensor:
    """Return the weights in float64 on the CPU, where ArviZ wants them and not every accelerator has them."""
    if log_weights.dim() != 1 or not len(log_weights):
        raise ValueError(
            f"Expected log weights of shape (draw,); got {tuple(log_weights.shape)}. Flatten them."
        )
    values = log_weights.detach().to("cpu", torch.float64)
    if torch.isnan(values).any() or torch.isposinf(values).any():
        raise ValueError(
            f"Expected log weights that are finite or -inf (a weight of zero); got {int(torch.isnan(values).sum())} "
            f"NaN and {int(torch.isposinf(values).sum())} +inf of {len(values)}. Cap the log ratio, or find the "
            "critic's NaN."
        )
    if torch.isneginf(values).all():
        raise ValueError(f"Expected a weight above zero; got {len(values)} log weights that are all -inf.")
    return values


def _smooth(values: Tensor) -> tuple[Tensor, float]:
    # Zero weights say nothing about the tail. Both versions of ArviZ are given the others only.
    positive = torch.isfinite(values)
    body = values[positive]
    if len(body) < MIN_FOR_SMOOTHING:
        return values, math.inf
    # ArviZ takes this many, give or take one, as the tail; it wants five of them above the next weight.
    num_tail = math.ceil(min(len(body) / 5, 3 * math.sqrt(len(body))))
    top = body.topk(num_tail + 1).values
    num_above = int((top > top[-1]).sum())
    if num_above < 5:
        return values, math.inf if num_above else math.nan
    smoothed, pareto_k = _psis(body.numpy())
    # Tied weights can leave ArviZ a shape and no smoothed weight.
    if not (math.isfinite(pareto_k) and torch.from_numpy(smoothed).isfinite().all()):
        return values, pareto_k
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
