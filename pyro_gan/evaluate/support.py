"""The number of different outputs of a generator, judged by collisions among its samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import choice, count, extra, real
from pyro_gan.evaluate._rows import as_rows

__all__ = ["ClosestPairs", "CollisionTest", "closest_pairs", "collision_sample_size", "collision_test"]

_MIN_ROWS = 10
_BLOCK = 500
# Relative precision of the search for the least size; the reported size is certified, and too small by this at most.
_RATIO = 1.01


@final
class CollisionTest(NamedTuple):
    """The size of a support, as collisions among samples show it."""

    #: The effective size, 1 / (share of pairs that collide): a uniform distribution of this size collides as often.
    #: Infinite if no pair collides.
    value: float
    #: Lower end of the confidence interval of the effective size.
    low: float
    #: Upper end; infinite if no pair collides.
    high: float
    #: Number of pairs that collide.
    num_collisions: int
    #: Size of a set of samples of which no two collide.
    num_distinct: int
    #: Fewer sets than this, each of a diameter up to `threshold`, do not hold `mass` of the distribution, with the same
    #: confidence.
    least_size: int


@final
class ClosestPairs(NamedTuple):
    """The pairs of samples that are nearest to each other."""

    #: Indices of both samples.
    pairs: Int[Tensor, "pair 2"]
    #: Their Euclidean distances, the smallest first.
    distance: Float[Tensor, " pair"]


def collision_test(
    samples: Float[Tensor, "draw *event"], *, threshold: float = 0.0, mass: float = 0.9, confidence: float = 0.95
) -> CollisionTest:
    r"""Estimate the size of a generator's support from how often two of its samples coincide.

    Two draws of a distribution p coincide with probability :math:`\sum_i p_i^2`, which is at least 1 over the size of
    the support. Its inverse is the effective size. It takes about its square root of draws to show it: a uniform
    distribution over 10 000 outputs shows a collision in every second set of 118.

    Three things follow, and a fourth does not.

    - The **effective size** and its interval, which is that of a Poisson distribution for few collisions, widened for
      triples that share a sample. It has its coverage in large samples (for 95 per cent we measured 0.89 and more with
      50 samples, 0.94 and more with 200). It misses a rare output of great weight that has not been drawn yet.
    - The **support is larger** than the effective size, never smaller.
    - `least_size`: p is farther than 1 - `mass` in total variation (2 (1 - `mass`) in L1) from every distribution on
      fewer outputs. This holds for every p and n, because the uniform distribution shows the most distinct values. It
      is sharpest if few samples repeat; many repeats could all lie in the mass left out, and it becomes 1.
    - **No upper bound on the support**, nor on the support of most of the mass, follows from any number of collisions:
      if half of the mass lies on one output and the rest is spread out, every fourth pair collides. Certain is that
      some output has probability 1 / `high` or more. The effective size is the support only if p is nearly uniform.

    Samples of a continuous distribution never coincide. With a threshold, two samples collide if they are no farther
    apart, in pixels or (better) in features. The effective size then depends on the threshold. Take it from real data,
    or look at `closest_pairs` and set it where pairs begin to look the same to you; and compare with the same figure of
    held-out real data.

    Args:
        samples: Independent draws of the generator or their features, `(draw, *event)`; not resampled, not a chain.
        threshold: Largest Euclidean distance of a collision; 0 counts equal rows.
        mass: Share of the distribution that `least_size` refers to, above 0 and up to 1.
        confidence: Of the interval (both ends together), and of `least_size` by itself.

    Returns:
        The effective size with its interval, the counts, and the certified least size.

    Raises:
        ValueError: if there are fewer than 10 samples, an entry is not finite, or an argument is out of range.
        ImportError: without SciPy.

    References:
        Do GANs actually learn the distribution? An empirical study, S. Arora and Y. Zhang, 2017,
        https://arxiv.org/abs/1706.08224

        Collision-based Testers are Optimal for Uniformity and Closeness, I. Diakonikolas, T. Gouleakis, J. Peebles and
        E. Price, 2016, https://arxiv.org/abs/1611.03579

    Example:
        >>> outputs = torch.randn(1000, 2)[torch.randint(1000, (400,))]  # a generator with 1000 outputs
        >>> test = collision_test(outputs)
        >>> test.low / 2 < 1000 < 2 * test.high, 100 < test.least_size < 1400
        (True, True)
    """
    threshold, mass = real("threshold", threshold, minimum=0), real("mass", mass, above=0, maximum=1)
    confidence = real("confidence", confidence, above=0, below=1)
    rows = _checked(samples)
    with extra("evaluate"):
        from scipy.stats import gamma
    partners, num_distinct = _collisions(rows, threshold)
    num_draws = len(rows)
    num_pairs = num_draws * (num_draws - 1) / 2
    num_collisions = partners.sum() / 2
    share = num_collisions / num_pairs
    least_size = _least_size(num_draws, num_draws - num_distinct, mass, 1 - confidence)
    # A number whose variance is `spread` times its mean is worth number / spread collisions of a Poisson distribution.
    spread = 1 - share
    if num_collisions:
        shared = (partners * (partners - 1)).sum() - num_draws * (num_draws - 1) * (num_draws - 2) * share**2
        spread += max(float(shared), 0.0) / num_collisions
    fewest = most = share
    if spread > 0:
        tail, unit = (1 - confidence) / 2, spread / num_pairs
        fewest = gamma.ppf(tail, share / unit) * unit if num_collisions else 0.0
        most = min(gamma.isf(tail, share / unit + 1) * unit, 1.0)
    return CollisionTest(
        value=float(1 / share) if share else math.inf,
        low=float(1 / most),
        high=float(1 / fewest) if fewest else math.inf,
        num_collisions=int(num_collisions),
        num_distinct=num_distinct,
        least_size=least_size,
    )


def collision_sample_size(
    support_size: int, distance: float, *, norm: Literal["l1", "l2"] = "l1", error: float = 0.1
) -> int:
    r"""Return how many samples a test by collisions needs to tell a uniform distribution from all that are so far away.

    The uniform distribution u on k outputs has collision probability 1 / k, any other distribution p on them
    :math:`1 / k + \lVert p - u \rVert_2^2`. Call p uniform if the share of colliding pairs is below
    :math:`1 / k + \gamma / 2`, with :math:`\gamma = \lVert p - u \rVert_2^2` = `distance`\ :sup:`2` for L2. For L1,
    :math:`\lVert p - u \rVert_1 = \epsilon` makes :math:`\gamma \ge \epsilon^2 / k`. With n samples both errors are
    at most `error`, by Chebyshev's inequality and

    .. math:: \operatorname{Var}(\text{share}) \le \frac{2 (1/k + \gamma)}{n (n-1)}
        + \frac{4 (n - 2) (\gamma / k + \gamma^{3/2})}{n (n - 1)}.

    So n grows no faster than :math:`k^{-1/2} / \text{distance}^2` + 1 / distance in L2 and
    :math:`k^{1/2} / \text{distance}^2` in L1, the best order of any test. It is enough, not necessary. L2 needs few
    because it sees little: the distance of a uniform distribution on half of the outputs is 1 in L1, :math:`k^{-1/2}`
    in L2.

    Args:
        support_size: k, 2 or more.
        distance: The distance to notice: L1, up to 2 (twice the total variation), or L2, up to 1.
        norm: Of the distance.
        error: Largest probability of each of the two errors.

    Returns:
        n.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Collision-based Testers are Optimal for Uniformity and Closeness, I. Diakonikolas, T. Gouleakis, J. Peebles and
        E. Price, 2016, https://arxiv.org/abs/1611.03579

    Example:
        >>> collision_sample_size(100, 0.1), collision_sample_size(10_000, 0.1)
        (34352, 213793)
    """
    largest = {"l1": 2.0, "l2": 1.0}
    distance = real("distance", distance, above=0, maximum=largest[choice("norm", norm, largest)])
    count("support_size", support_size, minimum=2)
    error = real("error", error, above=0, below=1)
    gamma = distance**2 / support_size if norm == "l1" else distance**2

    def risk(n: int) -> float:
        linear = 4 * (n - 2) * (gamma / support_size + gamma**1.5)
        return (2 * (1 / support_size + gamma) + linear) / (n * (n - 1)) / (gamma / 2) ** 2

    return _bracket(lambda n: risk(n) <= error)[1]


def closest_pairs(samples: Float[Tensor, "draw *event"], *, num_pairs: int = 20) -> ClosestPairs:
    """Find the pairs of samples that are nearest to each other.

    The last step of Arora and Zhang's test is to look at these pairs and say whether they are duplicates.

    Args:
        samples: `(draw, *event)`, images or features of them.
        num_pairs: Number of pairs.

    Returns:
        Indices and distances, the nearest first.

    Raises:
        ValueError: if there are fewer than 10 samples, an entry is not finite, or there are fewer pairs.

    Example:
        >>> closest_pairs(torch.arange(10.0)[:, None] ** 2, num_pairs=2).pairs
        tensor([[0, 1],
                [1, 2]])
    """
    rows = _checked(samples)
    count("num_pairs", num_pairs, maximum=len(rows) * (len(rows) - 1) // 2)
    index = torch.zeros(0, 2, dtype=torch.long, device=rows.device)
    distance = torch.zeros(0, dtype=rows.dtype, device=rows.device)
    for start in range(0, len(rows), _BLOCK):
        near = _distances(rows[start : start + _BLOCK], rows)
        first, second = torch.triu_indices(len(near), len(rows), offset=start + 1, device=rows.device)
        index = torch.cat([index, torch.stack([first + start, second], dim=1)])
        distance = torch.cat([distance, near[first, second]])
        best = distance.argsort(stable=True)[:num_pairs]
        index, distance = index[best], distance[best]
    return ClosestPairs(index, distance)


def _checked(samples: Tensor) -> Float[Tensor, "draw feature"]:
    return as_rows(samples, "samples", minimum=_MIN_ROWS).double()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # By a product of matrices, equal rows would not be at distance 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _collisions(rows: Tensor, threshold: float) -> tuple[Int[np.ndarray, " draw"], int]:
    """Return the number of rows that each row collides with, and how many rows without a collision can be picked."""
    if not threshold:
        _, identity, sizes = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
        return (sizes[identity] - 1).cpu().numpy(), len(sizes)
    near = torch.cat([_distances(part, rows) <= threshold for part in rows.split(_BLOCK)]).cpu().numpy()
    taken, num_picked = np.zeros(len(near), dtype=bool), 0
    for i in range(len(near)):
        if not taken[i]:
            taken |= near[i]
            num_picked += 1
    return near.sum(1) - 1, num_picked


@functools.cache
def _least_size(num_draws: int, num_repeats: int, mass: float, level: float) -> int:
    """Return a size below which so few repeats have a probability of at most `level`, for every distribution."""
    from scipy.stats import binom

    weights = binom.pmf(np.arange(num_draws + 1), num_draws, mass)

    def chance(size: int) -> float:
        return float(weights @ _at_most(size, num_draws, num_repeats))

    # A single set can hold the mass; chance rises with the number of sets.
    return 1 if chance(1) > level else _bracket(lambda size: chance(size) > level, ratio=_RATIO)[0] + 1


def _bracket(holds: Callable[[int], bool], *, ratio: float = 1.0) -> tuple[int, int]:
    """Return two sizes, neighbours or as close as the ratio; the condition fails at the first, holds at the second."""
    low, high = 1, 2
    while not holds(high) and high <= 2**62:
        low, high = high, 2 * high
    while high - low > 1 and high > ratio * low:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _at_most(size: int, num_draws: int, num_repeats: int) -> Float[np.ndarray, " draws"]:
    """Return, for 0 to `num_draws` draws of a uniform distribution, the probability of at most so many repeats."""
    p = np.zeros(num_repeats + 2)  # by the number of repeats so far; the last place stands for too many
    p[0] = 1.0
    result = np.zeros(num_draws + 1)
    result[0] = 1.0
    for k in range(num_draws):
        # At most `size` of k draws differ, so there are at least k - size repeats.
        fewest, most = max(0, k - size), min(k, num_repeats)
        if fewest > most:
            break
        moved = p[fewest : most + 1] * ((k - np.arange(fewest, most + 1)) / size)
        p[fewest : most + 1] -= moved
        p[fewest + 1 : most + 2] += moved
        p[-1] = 0.0
        result[k + 1] = p[fewest:].sum()
    return result
