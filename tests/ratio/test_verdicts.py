"""Where the verdicts on moments and on the mean ratio change, to the digit."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.ratio import judge_mean_ratio, moment_change


@pytest.mark.parametrize(("errors", "verdict"), [(2.0, "near 1"), (3.9, "near 1"), (4.1, "wrong")])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_is_wrong_beyond_a_factor_and_four_errors(errors: float, verdict: str, sign: int) -> None:
    """Of 10 000 ratios 110 are equal and the others 0: the variance of the log mean is 1 / 110 - 1 / 10 000."""
    generated = torch.full((10_000,), -math.inf, dtype=torch.float64)
    generated[:110] = -math.log(0.011) + sign * (math.log(1.5) + errors * math.sqrt(1 / 110 - 1e-4))
    assert judge_mean_ratio(generated).verdict == verdict


def test_with_real_rows_a_wrong_mean_is_wrong_whatever_the_function_claims() -> None:
    generated, real = 1.2 * torch.randn(10_000) - 9, 3 * torch.randn(1000) + 8
    assert judge_mean_ratio(generated, real, is_normalised=False).verdict == "wrong"


@pytest.mark.parametrize(("slope", "verdict"), [(1e-5, "no difference that these rows can show"), (0.1, "worse")])
def test_a_change_that_is_sure_and_next_to_nothing_is_none(slope: float, verdict: str) -> None:
    real, generated = torch.randn(500, 1) + 20, torch.randn(5000, 1)
    found = moment_change(real, generated, -slope * generated[:, 0])
    assert found.change > 3 * found.change_se and found.verdict == verdict
