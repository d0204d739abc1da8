"""The maximum mean discrepancy of two sets, without bias, with its error and an exact permutation test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.evaluate._rows import as_rows
from pyro_gan.objectives import GaussianKernel

__all__ = ["MMDTest", "mmd_test"]

_MIN_ROWS = 10
# Rows of labels that meet the kernel matrix at a time.
_BLOCK = 100


class MMDTest(NamedTuple):
    """A squared maximum mean discrepancy, and what chance says of it."""

    #: The unbiased estimate of MMD^2: 0 on average under one law, and negative half of the time.
    value: float
    #: Its standard error over repeated draws of both sets.
    standard_error: float
    #: Share of relabellings whose value is as large, this one included: exact under one law.
    p_value: float


def mmd_test(
    outputs: Float[Tensor, "draw_a *event"],
    real: Float[Tensor, "draw_b *event"],
    *,
    kernel: Callable[[Tensor], Tensor] | None = None,
    num_permutations: int = 999,
    seed: int = 0,
) -> MMDTest:
    r"""Estimate the squared maximum mean discrepancy, and test by permutation whether the sets have one law.

    .. math:: \mathrm{MMD}^2 = \operatorname{mean}_{i \ne j} k(x_i, x_j) + \operatorname{mean}_{i \ne j} k(y_i, y_j)
        - 2 \operatorname{mean}_{i, j} k(x_i, y_j)

    Under one law all ways to call `draw_a` of the pooled rows outputs are equally likely, so the p-value is exact for
    any kernel that does not know the labels, also in many dimensions and with few rows. What falls in many dimensions
    is the power: there all distances are nearly equal, and a kernel of one bandwidth sees a difference of means but
    little else. Pass features. The value depends on the kernel: compare values of one kernel only.

    The standard error is that of a U-statistic, both of its terms: the linear one, which rules where the laws differ,
    and the quadratic one, which is all there is where they do not; there it is too large rather than too small (by up
    to two fifths with 50 rows), so read the p-value.

    Args:
        outputs: What is judged, `(draw_a, *event)`, or features of it; independent rows, no copies.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        kernel: Maps squared distances to similarities, as `GaussianKernel` and `RationalQuadraticKernel` of
            `pyro_gan.objectives` do, mixtures both; chosen before these rows were seen. By default Gaussian
            kernels of half, once and twice the median distance of the pooled rows.
        num_permutations: The smallest p-value is 1 / (this + 1).
        seed: Of the permutations; no global generator is moved.

    Returns:
        The estimate, its standard error and the one-sided p-value. Time and memory grow with the square of
        `draw_a + draw_b`: 4000 rows in all take 128 MB a matrix.

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
    if outputs.dim() < 2 or outputs.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"Expected outputs and real of shapes (draw, *event) with one event; got {tuple(outputs.shape)} and "
            f"{tuple(real.shape)}."
        )
    if min(len(outputs), len(real)) < _MIN_ROWS:
        raise ValueError(
            f"Expected at least {_MIN_ROWS} rows in each set; got {len(outputs)} outputs and {len(real)} real."
        )
    if num_permutations < 1:
        raise ValueError(f"Expected num_permutations of at least 1; got {num_permutations}.")
    x = as_rows(outputs, "outputs").double()
    y = as_rows(real, "real").to(x)
    rows = torch.cat([x, y])
    squares = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    with torch.no_grad():
        similarity = (_default_kernel(squares) if kernel is None else kernel)(squares)
    if similarity.shape != squares.shape or not similarity.isfinite().all():
        raise ValueError(
            f"Expected a kernel of finite similarities {tuple(squares.shape)} for as many squared distances; got shape "
            f"{tuple(similarity.shape)}, or values that are not finite."
        )
    similarity = similarity.double().fill_diagonal_(0)
    num_outputs = len(x)
    labels = _relabellings(len(rows), num_outputs, num_permutations, seed).to(x)
    values = torch.cat([_discrepancies(similarity, block) for block in labels.split(_BLOCK)])
    # A sum in another order can differ in its last bit, and a tie must count.
    as_large = int((values[1:] >= values[0] - 1e-12 * similarity.abs().max()).sum())
    return MMDTest(
        float(values[0]),
        _standard_error(similarity, num_outputs),
        (1 + as_large) / (1 + num_permutations),
    )


def _default_kernel(squares: Tensor) -> GaussianKernel:
    # Of the pooled rows, the labels unseen, so that the test stays exact.
    above = squares[tuple(torch.triu_indices(len(squares), len(squares), offset=1, device=squares.device))]
    median = float(above.median().sqrt()) or float(above.mean().sqrt())
    if not median:
        raise ValueError(
            "Expected rows that differ; all rows of both sets are equal, and no bandwidth suits them."
        )
    return GaussianKernel([median / 2, median, 2 * median])


def _relabellings(num_rows: int, num_outputs: int, count: int, seed: int) -> Float[Tensor, "relabelling row"]:
    """Return 1 for a row called output, else 0; the true labels first."""
    generator = torch.Generator().manual_seed(seed)
    # In float64 two keys are never equal, so each row of labels has exactly as many ones.
    keys = torch.rand(count, num_rows, generator=generator, dtype=torch.float64)
    labels = torch.zeros(count + 1, num_rows, dtype=torch.float64)
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
    # The noise of the row means has entered the linear term as twice the quadratic one.
    return math.sqrt(max(float(linear - quadratic), float(quadratic)))


def _centred_within(block: Tensor, row_means: Tensor) -> Tensor:
    centred = (block - row_means - row_means[:, None] + row_means.mean()).square()
    return centred.fill_diagonal_(0)
