"""The maximum mean discrepancy of two sets: an unbiased estimate, its error, and an exact permutation test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import count, function, rows
from pyro_gan.evaluate._rows import seeded, two_sets
from pyro_gan.evaluate.metric import Metric, Outputs, Real
from pyro_gan.objectives import GaussianKernel

__all__ = ["MMDTest", "mmd_test"]

_MIN_ROWS = 10
# Relabellings that are multiplied by the kernel matrix at a time.
_BLOCK = 100


@final
class MMDTest(NamedTuple):
    """A squared maximum mean discrepancy, its error, and its p-value."""

    #: The unbiased estimate of MMD^2; for equal distributions it is 0 on average and negative half of the time.
    value: float
    #: Its standard error over repeated draws of both sets.
    standard_error: float
    #: Share of relabellings whose value is as large, this one included; exact for equal distributions.
    p_value: float


@Metric()
def mmd_test(
    outputs: Outputs,
    real: Real,
    *,
    kernel: Callable[[Tensor], Tensor] | None = None,
    num_permutations: int = 999,
    seed: int = 0,
) -> MMDTest:
    r"""Estimate the squared maximum mean discrepancy, and test by permutation whether two distributions are equal.

    .. math:: \mathrm{MMD}^2 = \operatorname{mean}_{i \ne j} k(x_i, x_j) + \operatorname{mean}_{i \ne j} k(y_i, y_j)
        - 2 \operatorname{mean}_{i, j} k(x_i, y_j)

    If the distributions are equal, all ways to call `draw_a` of the pooled rows outputs are equally likely. The p-value
    is then exact for any kernel that does not depend on the labels, also in many dimensions and with few rows. The
    power falls in many dimensions: all distances are nearly equal there, and a kernel of one bandwidth sees a
    difference of means but little else. Pass features. The value depends on the kernel: compare values of one kernel
    only.

    The standard error is that of a U-statistic and counts both of its terms. The linear term dominates where the
    distributions differ; where they are equal only the quadratic term is left, and the error is too large rather than
    too small (by up to two fifths with 50 rows), so read the p-value there.

    Args:
        outputs: The samples to judge, `(draw_a, *event)`, or features of them; independent rows, no copies.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        kernel: Maps squared distances to similarities, as `GaussianKernel` and `RationalQuadraticKernel` of
            `pyro_gan.objectives` do (both are mixtures); choose it before you see these rows. By default, Gaussian
            kernels of half, once and twice the median distance of the pooled rows.
        num_permutations: Number of relabellings; the smallest possible p-value is 1 / (num_permutations + 1).
        seed: Of the permutations; no global generator is moved.

    Returns:
        The estimate, its standard error and the one-sided p-value. Time and memory grow with the square of
        `draw_a + draw_b`; a matrix of 4000 rows in all takes 128 MB.

    Raises:
        ValueError: if shapes disagree, a set has fewer than 10 rows, an entry is not finite, all rows are equal, or
            `num_permutations` is below 1.

    References:
        A Kernel Two-Sample Test, A. Gretton, K. Borgwardt, M. Rasch, B. Schoelkopf and A. Smola, 2012,
        https://www.jmlr.org/papers/v13/gretton12a.html

    Example:
        >>> test = mmd_test(torch.randn(200, 2), torch.randn(300, 2) + 1.0)
        >>> test.value > 5 * test.standard_error, round(test.p_value, 3)
        (True, 0.001)
    """
    x, y = two_sets(outputs, real, minimum=_MIN_ROWS)
    count("num_permutations", num_permutations)
    pooled = torch.cat([x.double(), y.double().to(x.device)])
    num_outputs, num_rows = len(x), len(pooled)
    squares = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist").square()
    with torch.no_grad():
        similarity = (_default_kernel(squares) if kernel is None else function("kernel", kernel))(squares)
    similarity = rows("similarities of the kernel", similarity, minimum=num_rows, event_shape=(num_rows,))
    similarity = similarity.double().fill_diagonal_(0)
    labels = _relabellings(num_rows, num_outputs, num_permutations, seed).to(pooled)
    values = torch.cat([_discrepancies(similarity, block) for block in labels.split(_BLOCK)])
    # Sums in another order can differ in the last bit, and a tie must count.
    as_large = int((values[1:] >= values[0] - 1e-12 * similarity.abs().max()).sum())
    p_value = (1 + as_large) / (1 + num_permutations)
    return MMDTest(float(values[0]), _standard_error(similarity, num_outputs), p_value)


def _default_kernel(squares: Tensor) -> GaussianKernel:
    # The pooled rows, without their labels, so that the test stays exact.
    above = squares[tuple(torch.triu_indices(len(squares), len(squares), offset=1, device=squares.device))]
    median = float(above.median().sqrt()) or float(above.mean().sqrt())
    if not median:
        raise ValueError("Expected rows that differ; got sets in which all rows of both sets are equal. Pass a kernel.")
    return GaussianKernel([median / 2, median, 2 * median])


def _relabellings(num_rows: int, num_outputs: int, number: int, seed: int) -> Float[Tensor, "relabelling row"]:
    """Return 1 for a row called output, else 0; the true labels first."""
    # In float64 two keys are never equal, so each row of labels has exactly `num_outputs` ones.
    keys = torch.rand(number, num_rows, generator=seeded(seed), dtype=torch.float64)
    labels = torch.zeros(number + 1, num_rows, dtype=torch.float64)
    labels[0, :num_outputs] = 1
    labels[1:].scatter_(1, keys.argsort(1)[:, :num_outputs], 1)
    return labels


def _discrepancies(
    similarity: Float[Tensor, "row row"], labels: Float[Tensor, "relabelling row"]
) -> Float[Tensor, " relabelling"]:
    n = labels[0].sum()
    m = labels.shape[1] - n
    to_outputs = labels @ similarity
    within_x = (to_outputs * labels).sum(1)
    across = to_outputs.sum(1) - within_x
    within_y = similarity.sum() - within_x - 2 * across
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)


def _standard_error(similarity: Float[Tensor, "row row"], num_outputs: int) -> float:
    n, m = num_outputs, len(similarity) - num_outputs
    xx, yy, xy = similarity[:n, :n], similarity[n:, n:], similarity[:n, n:]
    mean_xx, mean_yy = xx.sum(1) / (n - 1), yy.sum(1) / (m - 1)
    linear = 4 * (mean_xx - xy.mean(1)).var() / n + 4 * (mean_yy - xy.mean(0)).var() / m
    quadratic = sum(
        2 * _centred_within(block, mean).sum() / (k * (k - 1)) ** 2
        for block, mean, k in ((xx, mean_xx, n), (yy, mean_yy, m))
    )
    quadratic += 4 * (xy - xy.mean(0) - xy.mean(1, keepdim=True) + xy.mean()).square().sum() / (n * m) ** 2
    # The noise of the row means adds twice the quadratic term to the linear one.
    return math.sqrt(max(float(linear - quadratic), float(quadratic)))


def _centred_within(block: Tensor, row_means: Tensor) -> Tensor:
    centred = (block - row_means - row_means[:, None] + row_means.mean()).square()
    return centred.fill_diagonal_(0)
