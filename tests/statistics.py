"""Statistical assertions with one stated false-alarm rate: each check has FALSE_ALARM, which is 4.4 standard errors.

A check of several numbers (coordinates, projections) is one check: the numbers share its rate (Bonferroni). A failure
prints the value, what was expected, and the gap in standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

__all__ = [
    "FALSE_ALARM",
    "NUM_SE",
    "Estimate",
    "assert_chain_mean",
    "assert_chain_sd",
    "assert_close_in_se",
    "assert_different",
    "assert_follows",
    "assert_mean",
    "assert_same_distribution",
    "assert_sd",
    "chain_mean",
    "chain_sd",
    "sample_sd",
    "two_sample_p_value",
]

FALSE_ALARM = 1e-5
NUM_SE = float(stats.norm.isf(FALSE_ALARM / 2))  # 4.417

_MIN_CHAINS = 16
_NUM_DIRECTIONS = 3


class Estimate(NamedTuple):
    """Numbers with their Monte-Carlo standard errors."""

    value: Tensor  # (*event)
    standard_error: Tensor  # (*event)


def assert_close_in_se(
    value: Tensor | float,
    expected: Tensor | float,
    se: Tensor | float,
    what: str = "value",
    *,
    degrees_of_freedom: float = math.inf,
    max_relative_se: float | None = None,
) -> None:
    """Assert that numbers lie within their standard errors, times the limit of one check, of what is expected.

    Args:
        value: Estimates of any shape.
        expected: The truth, broadcast.
        se: Standard errors, broadcast. Zero requires equality; NaN fails.
        what: Name of the numbers in the failure.
        degrees_of_freedom: Of the standard errors, if they are estimated from few independent terms.
        max_relative_se: Fail if `se / |expected|` is larger, because the check would have no power.
    """
    value, expected, se = torch.broadcast_tensors(*(_double(x) for x in (value, expected, se)))
    limit = float(stats.t.isf(FALSE_ALARM / 2 / max(value.numel(), 1), degrees_of_freedom))
    gap = (value - expected).abs()
    ok = gap <= limit * se
    if not bool(ok.all()):
        lines = [
            f"{tuple(i)}: got {value[tuple(i)]:.6g}, expected {expected[tuple(i)]:.6g}, standard error "
            f"{se[tuple(i)]:.3g}, off by {gap[tuple(i)] / se[tuple(i)]:.2f} of them"
            for i in (~ok).nonzero().tolist()[:5]
        ]
        raise AssertionError(
            f"{what}: {int((~ok).sum())} of {ok.numel()} beyond {limit:.2f} standard errors; " + "; ".join(lines)
        )
    if max_relative_se is not None and not bool((se <= max_relative_se * expected.abs()).all()):
        worst = float((se / expected.abs()).max())
        raise AssertionError(f"{what}: no power, relative standard error {worst:.3g} > {max_relative_se:.3g}")


def assert_mean(samples: Tensor, expected: Tensor | float, what: str = "mean") -> None:
    """Assert that independent samples `(draw, *event)` have this mean."""
    x = _double(samples)
    assert_close_in_se(x.mean(0), expected, x.std(0) / math.sqrt(len(x)), what)


def sample_sd(samples: Tensor) -> Estimate:
    """Estimate the standard deviation of independent samples `(draw, *event)`.

    The standard error is that of a variance, sqrt((m4 - s^4) / n), divided by 2 s because ds = d(s^2) / (2 s). It
    does not assume a normal distribution.
    """
    x = _double(samples)
    centred = x - x.mean(0)
    variance = centred.square().mean(0) * len(x) / (len(x) - 1)
    se_variance = ((centred**4).mean(0) - variance.square()).clamp(min=0).sqrt() / math.sqrt(len(x))
    sd = variance.sqrt()
    return Estimate(sd, se_variance / (2 * sd))


def assert_sd(
    samples: Tensor, expected: Tensor | float, what: str = "sd", *, max_relative_se: float | None = None
) -> None:
    """Assert that independent samples `(draw, *event)` have this standard deviation."""
    sd, standard_error = sample_sd(samples)
    assert_close_in_se(sd, expected, standard_error, what, max_relative_se=max_relative_se)


def chain_mean(chains: Tensor) -> Estimate:
    """Estimate the mean from independent chains `(chain, draw, *event)`, and its error from the means of the chains.

    The error is right for any autocorrelation within a chain, if the chains are independent.
    """
    return _over_chains(_double(chains).mean(1))


def chain_sd(chains: Tensor, mean: Tensor | float) -> Estimate:
    """Estimate the standard deviation about a known mean from independent chains `(chain, draw, *event)`."""
    second = _over_chains((_double(chains) - _double(mean)).square().mean(1))
    sd = second.value.sqrt()
    return Estimate(sd, second.standard_error / (2 * sd))


def assert_chain_mean(chains: Tensor, expected: Tensor | float, what: str = "chain mean") -> None:
    """Assert that independent chains `(chain, draw, *event)` have this mean."""
    estimate = chain_mean(chains)
    assert_close_in_se(estimate.value, expected, estimate.standard_error, what, degrees_of_freedom=len(chains) - 1)


def assert_chain_sd(
    chains: Tensor,
    expected: Tensor | float,
    mean: Tensor | float,
    what: str = "chain sd",
    *,
    max_relative_se: float | None = None,
) -> None:
    """Assert that independent chains `(chain, draw, *event)` have this standard deviation about the known mean."""
    estimate = chain_sd(chains, mean)
    assert_close_in_se(
        estimate.value,
        expected,
        estimate.standard_error,
        what,
        degrees_of_freedom=len(chains) - 1,
        max_relative_se=max_relative_se,
    )


def two_sample_p_value(a: Tensor, b: Tensor) -> tuple[float, str]:
    """Test whether two independent sets of independent samples `(draw, *event)` have one distribution.

    Both are whitened with their pooled moments. Then every coordinate, a few fixed random directions, and the squared
    norm are compared by the tests of Kolmogorov-Smirnov (any difference) and of Welch (means; on the squared norm it
    finds a wrong scale with a tenth of the samples that Kolmogorov-Smirnov needs).

    Returns:
        The smallest p-value times the number of comparisons, and the name of that comparison.
    """
    a, b = (_double(x).flatten(1) for x in (a, b))
    if not (a.isfinite().all() and b.isfinite().all()):
        raise AssertionError("samples that are not finite cannot be tested")
    pooled = torch.cat([a, b])
    mean = pooled.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(pooled.T).reshape(len(mean), len(mean)))
    whiten = vectors * values.clamp(min=1e-12 * float(values.max())).rsqrt()
    features = []
    for x in (a, b):
        white = (x - mean) @ whiten
        columns = {f"coordinate {j}": x[:, j] for j in range(len(mean))}
        if len(mean) > 1:
            # The directions are fixed: they come from their own generator.
            generator = torch.Generator().manual_seed(0)
            directions = torch.randn(len(mean), _NUM_DIRECTIONS, dtype=torch.float64, generator=generator)
            columns |= {f"direction {j}": (white @ directions)[:, j] for j in range(_NUM_DIRECTIONS)}
        columns["squared norm"] = white.square().sum(-1)
        features.append({name: column.numpy() for name, column in columns.items()})
    names = list(features[0])
    p_values = {
        f"{name} (KS)": float(stats.ks_2samp(features[0][name], features[1][name], method="asymp").pvalue)
        for name in names
    }
    welch = stats.ttest_ind(*(np.stack(list(columns.values())) for columns in features), axis=1, equal_var=False)
    p_values |= {f"{name} (t)": float(p) for name, p in zip(names, welch.pvalue, strict=True)}
    worst = min(p_values, key=p_values.__getitem__)
    return min(1.0, p_values[worst] * len(p_values)), worst


def assert_same_distribution(a: Tensor, b: Tensor, what: str = "samples") -> None:
    """Assert that two independent sets of independent samples `(draw, *event)` have one distribution."""
    p_value, where = two_sample_p_value(a, b)
    assert p_value >= FALSE_ALARM, f"{what}: different distributions, p = {p_value:.2g} at {where}"


def assert_different(a: Tensor, b: Tensor, what: str = "samples") -> None:
    """Assert that the same test finds a difference; this is the negative control."""
    p_value, _ = two_sample_p_value(a, b)
    assert p_value < FALSE_ALARM, f"{what}: expected different distributions, but p = {p_value:.2g}; take more samples"


def assert_follows(samples: Tensor, cdf: Callable[[np.ndarray], np.ndarray], what: str = "samples") -> None:
    """Assert that independent numbers `(draw,)` or `(draw, 1)` have a distribution function (Kolmogorov-Smirnov)."""
    p_value = float(stats.kstest(_double(samples).flatten().numpy(), cdf, method="asymp").pvalue)
    assert p_value >= FALSE_ALARM, f"{what}: does not follow its distribution, p = {p_value:.2g}"


def _over_chains(per_chain: Tensor) -> Estimate:
    if len(per_chain) < _MIN_CHAINS:
        raise ValueError(f"Expected {_MIN_CHAINS} chains or more for an error between chains; got {len(per_chain)}.")
    return Estimate(per_chain.mean(0), per_chain.std(0) / math.sqrt(len(per_chain)))


def _double(x: Tensor | float | Sequence[float]) -> Tensor:
    return torch.as_tensor(x).detach().to("cpu", torch.float64)
