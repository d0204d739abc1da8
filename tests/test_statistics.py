"""The statistical assertions keep their false-alarm rate and find the differences that they should find."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from tests.statistics import (
    FALSE_ALARM,
    NUM_SE,
    assert_chain_mean,
    assert_chain_sd,
    assert_close_in_se,
    assert_different,
    assert_follows,
    assert_mean,
    assert_same_distribution,
    assert_sd,
    chain_mean,
    sample_sd,
    two_sample_p_value,
)


def test_one_number_is_held_to_4_4_standard_errors() -> None:
    assert NUM_SE == pytest.approx(4.417, abs=1e-3)
    assert_close_in_se(1.0 + 0.99 * NUM_SE * 0.1, 1.0, 0.1)
    with pytest.raises(AssertionError, match="height: 1 of 1 beyond 4.42 .* off by 4.46"):
        assert_close_in_se(1.0 + 1.01 * NUM_SE * 0.1, 1.0, 0.1, "height")


def test_several_numbers_share_the_false_alarm_rate() -> None:
    limit = float(stats.norm.isf(FALSE_ALARM / 2 / 1000))
    value = torch.zeros(1000, dtype=torch.float64)
    value[7] = 0.99 * limit
    assert_close_in_se(value, 0.0, 1.0)
    value[7] = 1.01 * limit
    with pytest.raises(AssertionError, match=r"\(7,\)"):
        assert_close_in_se(value, 0.0, 1.0)


@pytest.mark.parametrize("value, se", [(math.nan, 1.0), (1.0, math.nan), (1.0, 0.0)])
def test_nan_and_a_missing_error_fail(value: float, se: float) -> None:
    with pytest.raises(AssertionError):
        assert_close_in_se(value, 0.0, se)


def test_a_check_without_power_fails() -> None:
    assert_close_in_se(1.0, 1.0, 0.01, max_relative_se=0.02)
    with pytest.raises(AssertionError, match="no power"):
        assert_close_in_se(1.0, 1.0, 0.03, max_relative_se=0.02)


def test_moments_of_independent_samples() -> None:
    x = 2 + 3 * torch.distributions.Laplace(0.0, 1.0).sample((40_000, 4))
    sd = 3 * math.sqrt(2)
    assert_mean(x, 2.0)
    assert_sd(x, sd, max_relative_se=0.01)
    with pytest.raises(AssertionError):
        assert_mean(x, 2.0 + 8 * sd / 200)
    with pytest.raises(AssertionError):
        assert_sd(x, 1.09 * sd)


def test_sd_error_uses_the_fourth_moment() -> None:
    # A Laplace distribution has kurtosis 6: the error of its sd is sqrt(5/4) sd / sqrt(n); a normal one has sqrt(1/2).
    n, repeats = 2000, 2000
    x = torch.distributions.Laplace(torch.zeros((), dtype=torch.float64), 1.0).sample((n, repeats))
    sd, standard_error = sample_sd(x)
    assert float(sd.std()) == pytest.approx(math.sqrt(2 * 1.25 / n), rel=0.12)
    assert float(standard_error.mean()) == pytest.approx(math.sqrt(2 * 1.25 / n), rel=0.12)


def test_chains_with_strong_autocorrelation() -> None:
    # AR(1) with coefficient 0.95: 200 draws are worth about 5.
    num_chains, num_draws, rho = 400, 200, 0.95
    x = torch.empty(num_chains, num_draws, dtype=torch.float64)
    x[:, 0] = torch.randn(num_chains)
    for t in range(1, num_draws):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * torch.randn(num_chains)
    x = 1 + 2 * x
    assert_chain_mean(x, 1.0)
    assert_chain_sd(x, 2.0, 1.0, max_relative_se=0.02)
    # The variance of a chain's mean is (1 + 2 sum_k (1 - k/n) rho^k) / n times that of a draw.
    lags = torch.arange(1, num_draws, dtype=torch.float64)
    variance = 4 * float(1 + 2 * ((1 - lags / num_draws) * rho**lags).sum()) / num_draws / num_chains
    assert float(chain_mean(x).standard_error) == pytest.approx(math.sqrt(variance), rel=0.17)
    with pytest.raises(AssertionError):
        assert_chain_mean(x, 1.5)
    with pytest.raises(AssertionError):
        assert_chain_sd(x, 2.4, 1.0)
    with pytest.raises(ValueError, match="16 chains"):
        chain_mean(x[:4])


def test_two_sample_test_has_its_false_alarm_rate() -> None:
    repeats = 400
    p_value = torch.empty(repeats)
    for i in range(repeats):
        x = torch.randn(2, 300, 2, dtype=torch.float64) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]).double()
        p_value[i] = two_sample_p_value(x[0], x[1])[0]
    # The comparisons of one pair overlap, so Bonferroni stays below its level (about 0.028 at 0.05, 0.094 at 0.2). It
    # must stay within a factor of four of it; otherwise the test would see nothing.
    for level in (0.05, 0.2):
        alarms = int((p_value < level).sum())
        assert alarms <= stats.binom.isf(FALSE_ALARM, repeats, level)
        assert alarms >= stats.binom.ppf(FALSE_ALARM, repeats, level / 4)


@pytest.mark.parametrize("fault", ["mean", "sd", "correlation", "shape", "mode"])
def test_two_sample_test_has_power(fault: str) -> None:
    n = 20_000
    mix = torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=torch.float64)
    a = torch.randn(n, 2, dtype=torch.float64) @ mix
    b = torch.randn(n, 2, dtype=torch.float64)
    if fault == "mean":
        b = b @ mix + 0.07
    elif fault == "sd":
        b = b @ mix * 1.05
    elif fault == "correlation":
        b = b @ (mix * torch.tensor([[1.0, 0.9], [1.0, 1.0]]))
        b = b / b.std(0) * a.std(0)
    elif fault == "shape":
        b = (3**0.5) * (2 * torch.rand(n, 2, dtype=torch.float64) - 1) @ mix
    else:
        b = b @ mix
        b[: n // 25] = 0.0
    assert_different(a, b)
    with pytest.raises(AssertionError, match="different distributions"):
        assert_same_distribution(a, b)


def test_two_sample_test_passes_equal_distributions_and_refuses_nan() -> None:
    x = torch.randn(2, 5000, 3)
    assert_same_distribution(x[0], x[1])
    assert_same_distribution(x[0, :, :1], x[1, :, :1])
    with pytest.raises(AssertionError, match="p = "):
        assert_different(x[0], x[1])
    x[0, 0, 0] = math.nan
    with pytest.raises(AssertionError, match="not finite"):
        two_sample_p_value(x[0], x[1])


def test_follows_a_distribution() -> None:
    x = torch.randn(20_000, 1)
    assert_follows(x, stats.norm.cdf)
    with pytest.raises(AssertionError, match="p = "):
        assert_follows(1.1 * x, stats.norm.cdf)
