"""The exact transport cost between two finite samples, minus the cost between two samples of one distribution."""

from __future__ import annotations

from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import count, extra
from pyro_gan.evaluate._blocks import between_blocks, deal, mean_over_repeats, without_floor
from pyro_gan.evaluate._rows import two_sets
from pyro_gan.evaluate.metric import Metric, Outputs, Real

__all__ = ["TransportDistance", "transport_cost", "transport_distance"]

_MOST_ROWS = 1000
# The solver's own limit is too low for a thousand rows, and it then returns a plan that is not optimal.
_MOST_PIVOTS = 100_000_000


@final
class TransportDistance(NamedTuple):
    """Transport between blocks of N rows, and the bound on the distance of the distributions that follows."""

    #: Mean over repeats of W_N, the exact distance between N outputs and N real rows.
    value: float
    #: Its standard error, between repeats that share no row.
    standard_error: float
    #: W_N between two blocks of one set, the smaller of both sets'; `value` is about this for equal distributions.
    floor: float
    #: `value` minus the floor; in expectation no larger than the distance W of the distributions.
    lower_bound: float
    #: Its standard error, between repeats.
    lower_bound_error: float
    #: N, the rows of a block.
    num_rows: int


@Metric(figure="lower_bound", error="lower_bound_error")
def transport_distance(
    outputs: Outputs,
    real: Real,
    *,
    order: Literal[1, 2] = 1,
    num_repeats: int = 8,
    num_rows: int | None = None,
    seed: int = 0,
) -> TransportDistance:
    r"""Measure the Wasserstein distance of finite samples exactly, and bound that of their distributions from below.

    .. math:: W_N(P, Q) = E\, W(\hat P_N, \hat Q_N), \qquad
        W(P, Q) \ge W_N(P, Q) - \min\bigl( W_N(P, P'), W_N(Q, Q') \bigr),

    where :math:`\hat P_N` is N rows drawn from P, and P' is a second, independent draw. The bound holds for
    expectations. Proof: draw N pairs from the best coupling of P and Q, go from :math:`\hat P'_N` to their first halves
    and from there, pair by pair, to their second halves. The triangle inequality gives :math:`W(\hat P'_N, \hat Q_N)
    \le W(\hat P'_N, \hat P_N) + (\operatorname{mean}_i \lVert x_i - y_i \rVert^p)^{1/p}`; take means, and use Jensen's
    inequality for p = 2. A single estimate can lie above W by its error: subtract two standard errors before you call
    it a bound. It holds for the distances, not for their squares, and for equal N only.

    With order 1, `value` is an upper bound in the same sense, :math:`W_N \ge W`, because W is convex. With order 2 it
    is not: the samples 0 or 1 of a coin and the constant 0 have :math:`W_2 = 0.71` and :math:`W_{2, N=1} = 0.5`.

    **In many dimensions neither figure is the distance.** W_N approaches W as N^(-1/d), so no number of rows that is
    polynomial in d is enough: in 64 dimensions two sets of 1000 rows of one standard normal distribution lie 8.92
    apart, and a shift by 1 makes that 8.97. The lower bound still holds, but is of little use (0.06 there); `value` is
    mostly floor. Look at features of few dimensions, or use `projected_distance` (0.67 there, with as many rows).

    Each repeat uses its own blocks, two of each set, so the standard errors count all randomness of the rows. The price
    is that N is a small part of the rows, one in `2 * num_repeats`. (A bootstrap would reuse rows, and W_N of repeated
    rows is another figure.) The errors are widened by Student's quantile, so that two of them cover 95 %, however few
    the repeats. A quarter of the repeats decides whose floor is subtracted; the others judge the bound. It
    takes `4 * num_repeats` exact solutions, of at most 0.2 s each at N = 1000; the time grows faster than N squared.

    Args:
        outputs: The samples to judge, `(draw_a, *event)`, or features of them; independent rows, no copies.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        order: p, the power of the Euclidean distance: W_1 or W_2.
        num_repeats: Number of disjoint repeats, 3 or more. Few repeats of many rows have a low floor and a wide error.
        num_rows: N; if None, as large as the rows allow, `draw // (2 * num_repeats)`, 1000 at most.
        seed: Of the blocks; no global generator is moved.

    Returns:
        The distance at N rows, the floor, the bound, and standard errors.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, there are too few rows, or order is not 1 or 2.
        ImportError: without POT, if rows have more than one entry.

    References:
        On the rate of convergence in Wasserstein distance of the empirical measure, N. Fournier and A. Guillin, 2015,
        https://arxiv.org/abs/1312.2128

        POT: Python Optimal Transport, R. Flamary et al., 2021, https://jmlr.org/papers/v22/20-451.html

    Example:
        >>> distance = transport_distance(torch.randn(2000, 1), torch.randn(2000, 1) + 2.0)
        >>> abs(distance.value - 2.0) < 0.3, distance.lower_bound < distance.value
        (True, True)
    """
    count("order", order, maximum=2)
    p, q = deal(outputs, real, num_repeats=num_repeats, num_rows=num_rows, most_rows=_MOST_ROWS, seed=seed)
    pairs = [pair for blocks in zip(p, q, strict=True) for pair in between_blocks(*blocks)]
    costs = torch.tensor([transport_cost(*pair, order=order) for pair in pairs], dtype=torch.float64)
    costs = costs.reshape(-1, 4)
    across = costs[:, :2].mean(1)
    corrected, floor = without_floor(across, costs[:, 2:])
    value, bound = mean_over_repeats(across), mean_over_repeats(corrected)
    return TransportDistance(*value, floor, *bound, p.shape[2])


@Metric()
def transport_cost(
    outputs: Float[Tensor, "draw *event"], real: Float[Tensor, "draw *event"], *, order: Literal[1, 2] = 1
) -> float:
    r"""Return the exact Wasserstein distance between two point clouds of equally many equal weights.

    .. math:: W = \Bigl( \min_\pi \operatorname{mean}_i \lVert a_i - b_{\pi(i)} \rVert^p \Bigr)^{1/p},

    over permutations. In one dimension both are sorted; in more, the network simplex of POT solves it.

    Args:
        outputs: Rows, `(draw, *event)`.
        real: The same number of rows, `(draw, *event)`.
        order: p, 1 or 2.

    Returns:
        The distance.

    Raises:
        ValueError: if the shapes differ, an entry is not finite, or order is not 1 or 2.
        ImportError: without POT, if rows have more than one entry.

    Example:
        >>> transport_cost(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [1.0]]))
        1.5
    """
    count("order", order, maximum=2)
    a, b = (rows.to("cpu", torch.float64) for rows in two_sets(outputs, real))
    if len(a) != len(b):
        raise ValueError(f"Expected as many outputs as real rows; got {len(a)} and {len(b)}.")
    if a.shape[1] == 1:
        cost = float((a.sort(0).values - b.sort(0).values).abs().pow(order).mean())
    else:
        with extra("transport"):
            import ot
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").pow(order)
        cost = float(ot.emd2([], [], distances.numpy(), numItermax=_MOST_PIVOTS))
    return cost ** (1 / order)
