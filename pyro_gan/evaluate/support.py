"""How many different outputs a generator has, judged by collisions among its samples, as birthdays are."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.evaluate._rows import as_rows

__all__ = ["ClosestPairs", "CollisionTest", "closest_pairs", "collision_sample_size", "collision_test"]

_MIN_ROWS = 10
_BLOCK = 500
# How fine the least size is searched for; what is reported is certified, at most this much too small.
_RATIO = 1.01


class CollisionTest(NamedTuple):
    """What collisions among samples say of the size of a support."""

    #: 1 / (share of pairs that collide): the effective size, that of a uniform law which collides as often. Infinite
    #: if no pair does.
    value: float
    #: Lower end of the interval that covers the effective size with the confidence asked for.
    low: float
    #: Upper end; infinite if no pair collides.
    high: float
    #: Pairs that collide.
    num_collisions: int
    #: Samples of which none collides with another.
    num_distinct: int
    #: Fewer sets than this, each of a diameter up to `threshold`, do not hold `mass` of the law; guaranteed, with the
    #: same confidence.
    least_size: int


class ClosestPairs(NamedTuple):
    """The pairs of samples that are nearest to each other, to be looked at."""

    #: Indices of both samples, `(pair, 2)`.
    pairs: Tensor
    #: Their Euclidean distances, rising, `(pair,)`.
    distance: Tensor


def collision_test(
    samples: Float[Tensor, "draw *event"],
    *,
    threshold: float = 0.0,
    mass: float = 0.9,
    confidence: float = 0.95,
) -> CollisionTest:
    r"""Estimate the size of a generator's support from how often two of its samples coincide.

    Two draws of a law p coincide with probability :math:`\sum_i p_i^2`, which is at least 1 over the size of the
    support. Its inverse, the effective size, is what n draws show from about its square root on: a uniform law over
    10 000 outputs shows a collision in every second set of 118.

    Three things follow, and a fourth does not.

    - The **effective size** and its interval: of a Poisson law for few collisions, widened by what triples that share a
      sample add. It covers what it says in large samples (at 95 per cent we measured .89 and more with 50 samples, .94
      and more with 200); a rare output of great weight that was not drawn yet is not in it.
    - The **support is larger** than the effective size, never smaller.
    - `least_size`: p is farther than 1 - `mass` in total variation (2 (1 - `mass`) in L1) from every law on fewer
      outputs. For every p and n: of all laws on so many outputs the uniform one shows the most distinct values. It is
      sharpest where few samples repeat; many repeats could all be the 1 - `mass` left out, and it becomes 1.
    - **No upper bound on the support**, nor on that of most of the mass, follows from any number of collisions: half of
      the mass on one output and the rest spread out collides in every fourth pair. What is certain is that some output
      has at least probability 1 / `high`. To call the effective size "the support" assumes that p is nearly uniform.

    Samples of a continuous law never coincide. With a threshold, two collide if no farther apart than it, in pixels or
    (better) in features; the effective size is then that of a law as crowded, and changes with the threshold. Take the
    threshold from real data, or look at `closest_pairs` and set it where pairs begin to look the same to you; and put
    the same figure of held-out real data beside it.

    Args:
        samples: Independent draws of the generator or features of them, `(draw, *event)`: no resampled rows, no chain.
        threshold: Largest Euclidean distance of a collision; 0 counts equal rows.
        mass: Share of the law that `least_size` is about, above 0 and up to 1.
        confidence: Of the interval (both ends together), and of `least_size` on its own.

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
    if not (0 <= threshold < math.inf and 0 < mass <= 1 and 0 < confidence < 1):
        raise ValueError(
            "Expected a threshold of at least 0, a mass in (0, 1] and a confidence in (0, 1); got "
            f"{threshold}, {mass} and {confidence}."
        )
    rows = _checked(samples)
    try:
        from scipy.stats import gamma
    except ImportError as error:
        error.add_note("pip install pyro-gan[evaluate]")
        raise
    partners, num_distinct = _collisions(rows, threshold)
    num_draws = len(rows)
    num_pairs = num_draws * (num_draws - 1) / 2
    count = partners.sum() / 2
    share = count / num_pairs
    least_size = _least_size(num_draws, num_draws - num_distinct, mass, 1 - confidence)
    # A count whose variance is `spread` times its mean is worth count / spread collisions of a Poisson law.
    spread = 1 - share
    if count:
        shared = (partners * (partners - 1)).sum() - num_draws * (num_draws - 1) * (num_draws - 2) * share**2
        spread += max(float(shared), 0.0) / count
    fewest = most = share
    if spread > 0:
        tail, unit = (1 - confidence) / 2, spread / num_pairs
        fewest = gamma.ppf(tail, share / unit) * unit if count else 0.0
        most = min(gamma.isf(tail, share / unit + 1) * unit, 1.0)
    return CollisionTest(
        value=float(1 / share) if share else math.inf,
        low=float(1 / most),
        high=float(1 / fewest) if fewest else math.inf,
        num_collisions=int(count),
        num_distinct=num_distinct,
        least_size=least_size,
    )


def collision_sample_size(
    support_size: int, distance: float, *, norm: Literal["l1", "l2"] = "l1", error: float = 0.1
) -> int:
    r"""Return with how many samples a count of collisions tells a uniform law from every law that far away.

    The uniform law u on k outputs has collision probability 1 / k, any other law p on them
    :math:`1 / k + \lVert p - u \rVert_2^2`. Call p uniform if the share of colliding pairs is below
    :math:`1 / k + \gamma / 2`, with :math:`\gamma = \lVert p - u \rVert_2^2` = `distance`\ :sup:`2` for L2. For L1,
    :math:`\lVert p - u \rVert_1 = \epsilon` makes :math:`\gamma \ge \epsilon^2 / k`. Of this many samples n both errors
    are at most `error`, by Chebyshev's inequality and

    .. math:: \operatorname{Var}(\text{share}) \le \frac{2 (1/k + \gamma)}{n (n-1)}
        + \frac{4 (n - 2) (\gamma / k + \gamma^{3/2})}{n (n - 1)}.

    So n grows no faster than :math:`k^{-1/2} / \text{distance}^2` + 1 / distance in L2 and
    :math:`k^{1/2} / \text{distance}^2` in L1, which is the best order that any test has. It is enough, not necessary.
    L2 asks little because it sees little: a uniform law on half of the outputs is at 1 in L1, at :math:`k^{-1/2}` in
    L2.

    Args:
        support_size: k, 2 or more.
        distance: What is to be noticed: L1, up to 2 (twice the total variation), or L2, up to 1.
        norm: Of the distance.
        error: Probability of each of both errors, at most.

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
    if norm not in largest:
        raise ValueError(f"Expected norm 'l1' or 'l2'; got {norm!r}.")
    if support_size < 2 or not 0 < distance <= largest[norm] or not 0 < error < 1:
        raise ValueError(
            f"Expected a support of 2 or more, a distance in (0, {largest[norm]:g}] and an error in (0, 1); got "
            f"{support_size}, {distance} and {error}."
        )
    gamma = distance**2 / support_size if norm == "l1" else distance**2

    def risk(n: int) -> float:
        linear = 4 * (n - 2) * (gamma / support_size + gamma**1.5)
        return (2 * (1 / support_size + gamma) + linear) / (n * (n - 1)) / (gamma / 2) ** 2

    low, high = 1, 2
    while risk(high) > error:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if risk(middle) <= error else (middle, high)
    return high


def closest_pairs(samples: Float[Tensor, "draw *event"], *, num_pairs: int = 20) -> ClosestPairs:
    """Find the pairs of samples that are nearest to each other.

    Arora and Zhang's test ends in a look: show these pairs, and say whether they are duplicates.

    Args:
        samples: `(draw, *event)`, images or features of them.
        num_pairs: How many pairs.

    Returns:
        Indices and distances, the nearest first.

    Raises:
        ValueError: if there are fewer than 10 samples, an entry is not finite, or there are not so many pairs.

    Example:
        >>> closest_pairs(torch.arange(10.0)[:, None] ** 2, num_pairs=2).pairs
        tensor([[0, 1],
                [1, 2]])
    """
    rows = _checked(samples)
    if not 1 <= num_pairs <= len(rows) * (len(rows) - 1) // 2:
        raise ValueError(
            f"Expected between 1 pair and all of {len(rows)} samples; got num_pairs = {num_pairs}."
        )
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
    rows = as_rows(samples, "samples")
    if len(rows) < _MIN_ROWS:
        raise ValueError(f"Expected at least {_MIN_ROWS} samples; got {len(rows)}.")
    return rows.double()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Through a product of matrices, equal rows would not be at distance 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _collisions(rows: Tensor, threshold: float) -> tuple[Int[np.ndarray, " draw"], int]:
    """Return with how many others each row collides, and how many rows can be picked of which none do."""
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


def _least_size(num_draws: int, num_repeats: int, mass: float, level: float) -> int:
    """Return a size below which so few repeats have a probability of at most `level`, whatever the law."""
    from scipy.stats import binom

    weights = binom.pmf(np.arange(num_draws + 1), num_draws, mass)

    def chance(size: int) -> float:
        return float(weights @ _at_most(size, num_draws, num_repeats))

    # Sets that hold the mass can be as few as 1; chance rises with their number.
    low, high = 1, 2
    if chance(low) > level:
        return low
    while chance(high) <= level:
        low, high = high, 2 * high
        if high > 2**62:
            break
    while high - low > 1 and high > _RATIO * low:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) > level else (middle, high)
    return low + 1


def _at_most(size: int, num_draws: int, num_repeats: int) -> Float[np.ndarray, " draws"]:
    """Return, for 0 to `num_draws` draws of a uniform law, the probability of at most so many repeats."""
    law = np.zeros(num_repeats + 2)  # by repeats so far; the last place is of those that have too many
    law[0] = 1.0
    result = np.zeros(num_draws + 1)
    result[0] = 1.0
    for k in range(num_draws):
        # Of k draws at most `size` differ, so fewer repeats than k - size cannot be.
        fewest, most = max(0, k - size), min(k, num_repeats)
        if fewest > most:
            break
        moved = law[fewest : most + 1] * ((k - np.arange(fewest, most + 1)) / size)
        law[fewest : most + 1] -= moved
        law[fewest + 1 : most + 2] += moved
        law[-1] = 0.0
        result[k + 1] = law[fewest:].sum()
    return result
