"""How far weights move a generator's samples towards the data: the change of the Frechet distance, with its error."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._random import rng_fork, seed_rng
from pyro_gan.checks import count
from pyro_gan.evaluate._gaussian import Moments, distance, group_sums, moments, root
from pyro_gan.evaluate._rows import as_rows, seeded
from pyro_gan.importance import effective_size, finite_weights, systematic

__all__ = ["FrechetChange", "frechet_change"]

_MIN_ROWS = 50
#: Groups of rows that the bootstrap draws: more groups make the error itself more certain, to 5 % with 200.
_MAX_GROUPS = 200
_MIN_GROUPS = 20
#: Numbers in the table of the groups' sums, 128 MB.
_TABLE_SIZE = 2**24
#: Resampled sets whose mean distance is stated.
_NUM_RESAMPLED = 10


@final
class FrechetChange(NamedTuple):
    """Frechet distances to real data before and after a reweighting, and the change."""

    #: Distance of as many outputs of the generator alone, in the features' squared units.
    before: float
    #: Distance of outputs that are resampled from the same draws by their weights.
    after: float
    #: `after - before`: below 0 if the weights help.
    difference: float
    #: Standard error of the difference, over repeated draws and repeated real rows.
    standard_error: float
    #: Effective number of draws, by Kong's formula.
    ess: float


def frechet_change(
    features: Float[Tensor, "row feature"],
    log_weights: Float[Tensor, " row"],
    real: Float[Tensor, "real feature"],
    *,
    num_outputs: int | None = None,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FrechetChange:
    r"""Estimate how much weights move draws of a generator towards real data, in Frechet distance.

    `before` is the distance of `num_outputs` draws, `after` that of `num_outputs` rows which are resampled from the
    same draws by their weights (`systematic`; the mean of 10 resampled sets): what a user gets. Both are biased upwards
    by their finite number of rows, `after` more, by about d / ess for d features of variance 1; that is part of what a
    user gets, and it is not removed. The number of real rows adds the same bias to both.

    The error is the spread of the difference over a bootstrap of draws and real rows, in 200 groups of rows each, and
    the error of the mean of 10 sets. The same draws make before and after, so most of their noise cancels. Where
    neither distance is larger than its noise the error is too large rather than too small, by at most 1.7 times. With
    few effective draws the estimate is skewed to large values, which makes a claim of improvement rarer.

    Args:
        features: Features of independent draws of the generator, `(row, feature)`; further dimensions are flattened.
            Covariances may be singular.
        log_weights: Log weight of each draw, nats, up to a constant; minus infinity is a weight of zero.
        real: Features of real rows, which neither the weights nor the features were fitted to, `(real, feature)`.
        num_outputs: Number of rows that a user takes, at most the number of draws; None for as many.
        num_bootstrap: Number of bootstrap sets. Each costs three eigenvalue problems: 200 take 1 s for 84 features.
        seed: Of the bootstrap and of the resampling; no global generator is moved.

    Returns:
        The distances, the difference with its error, and the effective number of draws.

    Raises:
        ValueError: if shapes disagree, a side has fewer than 50 rows, an entry is not finite, all weights are zero, or
            a number is out of range.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, M. Heusel, H. Ramsauer,
        T. Unterthiner, B. Nessler and S. Hochreiter, 2017, https://arxiv.org/abs/1706.08500

        Effectively Unbiased FID and Inception Score and where to find them, M. Chong and D. Forsyth, 2020,
        https://arxiv.org/abs/1911.07023

    Example:
        >>> draws, real = torch.randn(2000, 3), torch.randn(2000, 3) + 0.5
        >>> change = frechet_change(draws, 0.5 * draws.sum(1), real)
        >>> change.difference < -5 * change.standard_error
        True
    """
    x = as_rows(features, "features", minimum=_MIN_ROWS)
    y = as_rows(real, "real", minimum=_MIN_ROWS, event_shape=tuple(features.shape[1:]))
    log_w = finite_weights(log_weights)
    if len(log_w) != len(x):
        raise ValueError(f"Expected one log weight a draw; got {len(log_w)} log weights and {len(x)} draws.")
    num_outputs = len(x) if num_outputs is None else num_outputs
    cure = "More outputs than draws are copies: pass more draws."
    count("num_outputs", num_outputs, minimum=_MIN_ROWS, maximum=len(x), cure=cure)
    count("num_bootstrap", num_bootstrap, minimum=20)
    generator = seeded(seed)
    x, y = x.to("cpu", torch.float64), y.to("cpu", torch.float64)
    # Far from 0 a variance would be a small difference of large numbers.
    centre = y.mean(0)
    # The order of the caller's rows may mean something.
    shuffled = torch.randperm(len(x), generator=generator)
    x, log_w = (x - centre)[shuffled], log_w[shuffled]
    y = (y - centre)[torch.randperm(len(y), generator=generator)]
    before, after, resampling = _distances(x, log_w, y, num_outputs, seed)
    error = math.hypot(_bootstrap(x, log_w, y, num_bootstrap, generator), resampling)
    return FrechetChange(before, after, after - before, error, float(effective_size(log_w)))


def _distances(x: Tensor, log_w: Tensor, y: Tensor, num_outputs: int, seed: int) -> tuple[float, float, float]:
    """Return the mean distance of resampled rows, by equal weights and by these, and the error of their difference."""
    target = _moments_of(y, torch.ones(len(y), dtype=torch.float64))
    root_y = root(target.covariance)
    means, variance = [], 0.0
    for log_weights in (torch.zeros_like(log_w), log_w):
        found = []
        with rng_fork():
            seed_rng(seed)
            # Equal weights copy each draw once if there are as many outputs, so all sets are one.
            same = num_outputs == len(x) and bool((log_weights == log_weights[0]).all())
            for _ in range(1 if same else _NUM_RESAMPLED):
                copies = torch.bincount(systematic(log_weights, num_outputs), minlength=len(x))
                found.append(distance(_moments_of(x, copies.double()), target, root_y))
        distances = torch.tensor(found, dtype=torch.float64)
        means.append(float(distances.mean()))
        variance += 0.0 if same else float(distances.var()) / _NUM_RESAMPLED
    return means[0], means[1], math.sqrt(variance)


def _moments_of(rows: Tensor, weights: Tensor) -> Moments:
    return moments(group_sums(rows, weights, 1)[0], rows.shape[1])


def _bootstrap(x: Tensor, log_w: Tensor, y: Tensor, num_bootstrap: int, generator: torch.Generator) -> float:
    """Return the standard deviation of the difference over resampled groups of draws and of real rows."""
    num_features = x.shape[1]
    most = max(min(_MAX_GROUPS, _TABLE_SIZE // (num_features + 1) ** 2), _MIN_GROUPS)
    num_draws, num_real = min(most, len(x)), min(most, len(y))
    equal = group_sums(x, torch.ones_like(log_w), num_draws)
    weighted = group_sums(x, log_w.softmax(0), num_draws)
    of_real = group_sums(y, torch.ones(len(y), dtype=torch.float64), num_real)
    differences: list[float] = []
    while len(differences) < num_bootstrap:
        draws, real = (
            torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).double()
            for n in (num_draws, num_real)
        )
        after = draws @ weighted
        # All weight can lie in a few groups, and a bootstrap set without them has no distribution.
        if float(after[0]) <= 0:
            continue
        target = moments(real @ of_real, num_features)
        root_y = root(target.covariance)
        gap = distance(moments(after, num_features), target, root_y)
        gap -= distance(moments(draws @ equal, num_features), target, root_y)
        differences.append(gap)
    return float(torch.tensor(differences, dtype=torch.float64).std())
