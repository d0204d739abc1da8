"""The maximum mean discrepancy: an unbiased estimate, its error, and an exact permutation test."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from pyro_gan.evaluate import mmd_test
from pyro_gan.evaluate.mmd import _discrepancies, _relabellings
from pyro_gan.objectives import MMD, GaussianKernel, RationalQuadraticKernel
from tests.statistics import FALSE_ALARM, assert_mean

# The squared MMD of N(0, 1) and N(0.5, 0.8^2), by bandwidth.
TRUTH = {0.5: 0.05671803, 1.0: 0.06562523, 2.0: 0.03949982}


def test_unbiased_and_its_error_covers() -> None:
    for h, truth in TRUTH.items():
        runs = torch.tensor(
            [
                mmd_test(
                    torch.randn(100, 1), 0.5 + 0.8 * torch.randn(140, 1), kernel=GaussianKernel([h]), num_permutations=1
                )
                for _ in range(400)
            ],
            dtype=torch.float64,
        )
        assert_mean(runs[:, 0], truth)
        assert float(runs[:, 0].std()) == pytest.approx(float(runs[:, 1].square().mean().sqrt()), rel=0.25)


@pytest.mark.parametrize("dim", [1, 30])
def test_under_the_null_p_values_are_as_rare_as_they_say(dim: int) -> None:
    count = 800
    runs = np.array(
        [mmd_test(torch.randn(30, dim), torch.randn(20, dim), num_permutations=99, seed=seed) for seed in range(count)]
    )
    for level in (0.05, 0.2, 0.5):
        num_below = int((runs[:, 2] <= level).sum())
        assert binom.sf(num_below - 1, count, level) > FALSE_ALARM, (level, num_below / count)
        assert binom.cdf(num_below, count, level) > FALSE_ALARM, (level, num_below / count)
    assert_mean(torch.from_numpy(runs[:, 0]), 0.0)
    # The error is rather too large; without the correction for the quadratic term it is 1.4 times too large and more.
    assert 0.9 < math.sqrt((runs[:, 1] ** 2).mean()) / runs[:, 0].std() < (1.6 if dim == 1 else 1.3)


def test_finds_a_shift_a_scale_and_a_lost_mode() -> None:
    x = torch.randn(300, 2)
    for y in (
        torch.randn(300, 2) + 0.5,
        torch.randn(300, 2) * 1.6,
        torch.randn(300, 2).abs() * torch.tensor([1.0, -1.0]),
    ):
        assert mmd_test(x, y).p_value == 0.001


@pytest.mark.parametrize("kernel", [GaussianKernel([0.5, 2.0]), RationalQuadraticKernel([0.5, 1.0])])
def test_the_value_is_the_loss_s_and_every_relabelling_s(kernel: Any) -> None:
    x, y = torch.randn(12, 3).double(), torch.randn(15, 3).double() + 1
    assert mmd_test(x, y, kernel=kernel).value == pytest.approx(float(MMD(kernel)(y, x)), rel=1e-9)
    rows = torch.cat([x, y])
    similarity = kernel(torch.cdist(rows, rows).square()).fill_diagonal_(0)
    labels = _relabellings(27, 12, 5, seed=0).double()
    assert (labels.sum(1) == 12).all() and torch.equal(labels[0].nonzero().flatten(), torch.arange(12))
    expected = [float(MMD(kernel)(rows[row == 0], rows[row == 1])) for row in labels]
    assert _discrepancies(similarity, labels).tolist() == pytest.approx(expected, rel=1e-9)


def test_the_p_value_is_that_of_all_relabellings() -> None:
    x, y = torch.randn(10, 1).double(), torch.randn(10, 1).double() + 0.8
    kernel, rows = GaussianKernel([1.0]), torch.cat([x, y])
    chosen = torch.tensor(list(itertools.combinations(range(20), 10)))
    labels = torch.zeros(len(chosen), 20, dtype=torch.float64).scatter_(1, chosen, 1.0)
    values = _discrepancies(kernel(torch.cdist(rows, rows).square()).fill_diagonal_(0), labels)
    exact = float((values >= values[0] - 1e-12).double().mean())
    count = 4000
    found = mmd_test(x, y, kernel=kernel, num_permutations=count).p_value
    assert abs(found - exact) < 4.4 * math.sqrt(exact * (1 - exact) / count) + 2 / count


def test_equal_constants_images_and_generators() -> None:
    x, y = torch.randn(20, 1, 2, 2), torch.randn(30, 1, 2, 2)
    state = torch.get_rng_state()
    assert mmd_test(x, y) == mmd_test(x.flatten(1), y.flatten(1))
    assert torch.equal(torch.get_rng_state(), state)
    # Ties must count: nearly all points are equal, so relabellings differ by rounding only.
    x = torch.zeros(20, 2)
    y = torch.zeros(20, 2)
    y[0] = 1.0
    assert mmd_test(x, y).p_value == 1.0
    assert mmd_test(x, x, kernel=GaussianKernel([1.0])).value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "x, y, settings, words",
    [
        (torch.randn(20, 2), torch.randn(20, 3), {}, r"real of shape \(row, 2\); got \(20, 3\)"),
        (torch.randn(20), torch.randn(20), {}, r"\(20,\)"),
        (torch.randn(9, 2), torch.randn(20, 2), {}, r"outputs of shape .* at least 10 rows; got \(9, 2\)"),
        (torch.randn(20, 2), torch.full((20, 2), math.nan), {}, "finite real; got NaN or infinity in 20 of 20 rows"),
        (torch.zeros(20, 2), torch.zeros(20, 2), {}, "all rows of both sets are equal"),
        (
            torch.randn(20, 2),
            torch.randn(20, 2),
            {"kernel": torch.mean},
            r"similarities of the kernel of shape \(row, 40\); got \(\)",
        ),
        (
            torch.randn(20, 2),
            torch.randn(20, 2),
            {"kernel": torch.reciprocal},
            "finite similarities of the kernel; got NaN or infinity in 40",
        ),
        (torch.randn(20, 2), torch.randn(20, 2), {"num_permutations": 0}, "at least 1; got 0"),
    ],
)
def test_bad_input_gets_a_clear_error(x: Tensor, y: Tensor, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mmd_test(x, y, **settings)
