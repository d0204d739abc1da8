"""What the largest importance weights say: their tail, its Pareto shape, when it is too heavy, and smoothing."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import shaped
from pyro_gan.importance.jackknife import jackknife_error
from pyro_gan.importance.mean import effective_size, finite_weights, log_mean_weight, positive_weights

__all__ = ["WeightTail", "has_enough_draws", "smooth", "weight_tail"]

# A set of weights is complained of beyond these limits. With a smaller ESS, or a larger weight among 1e5 draws, the
# weights depend more on the critic's tail than on the data. Above .7 Pareto smoothing is no longer reliable.
MIN_ESS_FRACTION, MAX_WEIGHT_SHARE, MAX_PARETO_K = 0.01, 0.001, 0.7

#: Of fewer than 1e5 draws, one may carry so many times the mean weight: the same limit, in another unit.
MAX_WEIGHT_RATIO = 100

#: The shape of a tail is an extrapolation. If no weight reaches so many times the mean, at least a tenth of the
#: draws are effective, and a tail that heavy would long have shown larger weights.
MIN_RATIO_FOR_PARETO_K = 10

#: Above this error in nats, a factor of e, the largest weights say little about the data.
MAX_TOP_ERROR = 1.0

#: Fewest effective draws whose mean can be judged.
MIN_ESS = 100

#: Fewest weights above zero for smoothing: the upper fifth of fewer is under five weights, to which no tail is fitted.
MIN_FOR_SMOOTHING = 25


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
        top_error: Root mean square over the largest weights, those that the Pareto shape is fitted to, of the standard
            error in nats of the log of a weight's share, from replicates of the weights; NaN if a replicate there is
            zero, None without replicates.
    """

    num_draws: int
    ess: float
    ess_fraction: float
    largest_weight_share: float
    pareto_k: float
    log_mean_weight: float
    log_mean_weight_se: float
    top_error: float | None = None

    @property
    def uncertainty(self) -> str:
        """What is wrong with the error of the largest weights, as a short text; empty if nothing is or it is unknown.

        Wrong is an error above one nat.
        """
        error = self.top_error
        if error is None or error <= MAX_TOP_ERROR:
            return ""
        return f"the largest weights are uncertain by {error:.2g} nats > {MAX_TOP_ERROR:g}"

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong with the weights, each as a short text; empty if nothing is.

        Wrong are an ESS below 1 % of the draws, a draw with more than .1 % of the weight (of fewer than 1e5 draws, more
        than 100 times the mean weight), a Pareto k above .7 if the largest weight is 10 times the mean or more, and an
        `uncertainty` of the largest weights. A figure that is NaN is wrong.
        """
        ess, share, k = self.ess_fraction, self.largest_weight_share, self.pareto_k
        limit = max(MAX_WEIGHT_SHARE, MAX_WEIGHT_RATIO / self.num_draws)
        # Each says what must hold, so that NaN fails.
        limits = {
            f"ESS fraction {ess:.2g} < {MIN_ESS_FRACTION}": ess >= MIN_ESS_FRACTION,
            f"one draw carries {share:.2g} of the weight > {limit:.2g}": share <= limit,
            f"Pareto k {k:.2f} > {MAX_PARETO_K}": k <= MAX_PARETO_K
            or (share * self.num_draws < MIN_RATIO_FOR_PARETO_K and not math.isnan(k)),
        }
        found = [text for text, holds in limits.items() if not holds]
        return tuple(found + [self.uncertainty] if self.uncertainty else found)


def weight_tail(
    log_weights: Float[Tensor, " draw"], *, replicates: Float[Tensor, "replicate draw"] | None = None
) -> WeightTail:
    """Diagnose importance weights before anyone relies on them.

    Args:
        log_weights: `(draw,)`, in nats; minus infinity is a weight of zero. A constant added to all of them changes
            `log_mean_weight` alone.
        replicates: The same log weights as each of several fits without a part of the data gives them, for
            `top_error`; a constant added to one of them changes nothing. None if they are unknown.

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
    values = positive_weights(log_weights)
    mean = log_mean_weight(values)
    return WeightTail(
        num_draws=len(values),
        ess=float(mean.ess),
        ess_fraction=float(mean.ess) / len(values),
        largest_weight_share=float((values.max() - torch.logsumexp(values, 0)).exp()),
        pareto_k=_smooth(values)[1],
        log_mean_weight=float(mean.value),
        log_mean_weight_se=float(mean.standard_error),
        top_error=None if replicates is None else _top_error(values, replicates),
    )


def has_enough_draws(log_weights: Float[Tensor, " draw"]) -> bool:
    """Whether a weighted mean and its error can be judged: 100 effective draws, and no ten draws with half the weight.

    With fewer, the draws that would carry the mean are missing, and its error, computed from the others, is too small.

    Args:
        log_weights: `(draw,)`, in nats; minus infinity is a weight of zero.

    Returns:
        The answer; False if all weights are zero.

    Raises:
        ValueError: if the shape is wrong, or a log weight is NaN or plus infinity.

    Example:
        >>> has_enough_draws(torch.zeros(1000)), has_enough_draws(torch.zeros(50))
        (True, False)
    """
    # Ten draws with half the weight would leave at most 40 effective ones, so one condition implies the other.
    return float(effective_size(finite_weights(log_weights))) >= MIN_ESS


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
    smoothed, pareto_k = _smooth(positive_weights(log_weights))
    return smoothed.to(log_weights), pareto_k


def _num_tail(num_positive: int) -> int:
    """Return how many of the largest weights are the tail: ArviZ takes this many, give or take one."""
    return math.ceil(min(num_positive / 5, 3 * math.sqrt(num_positive)))


def _top_error(values: Tensor, replicates: Tensor) -> float:
    cure = "Each has one log weight for each draw."
    shaped("replicates", replicates, ("replicate", len(values)), cure=cure)
    each = torch.stack([positive_weights(one) for one in replicates])
    shares = each - each.logsumexp(1, keepdim=True)
    largest = values.topk(_num_tail(int(torch.isfinite(values).sum()))).indices
    return float(jackknife_error(shares[:, largest]).square().mean().sqrt())


def _smooth(values: Tensor) -> tuple[Tensor, float]:
    # Zero weights say nothing about the tail: ArviZ is given the others alone.
    positive = torch.isfinite(values)
    body = values[positive]
    if len(body) < MIN_FOR_SMOOTHING:
        return values, math.inf
    # ArviZ wants five weights of the tail above the next one.
    top = body.topk(_num_tail(len(body)) + 1).values
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
