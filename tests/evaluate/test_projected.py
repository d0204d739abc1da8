"""Projected transport: its constant, bounds that hold and are nearly reached, and their errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pyro_gan.evaluate import projected_distance, projection_constant, transport_distance
from tests.evaluate.test_transport import W1, W2, assert_error_covers, pair
from tests.statistics import assert_close_in_se, assert_mean


@pytest.mark.parametrize("dim, order", [(1, 1), (1, 2), (3, 1), (3, 2), (6, 1)])
def test_the_constant_is_the_mean_length_of_a_projected_unit_vector(dim: int, order: int) -> None:
    vectors = torch.randn(20_000, 6, dtype=torch.float64)
    lengths = (vectors / vectors.norm(dim=1, keepdim=True))[:, :dim].norm(dim=1).pow(order)
    assert_close_in_se(
        lengths.mean(),
        projection_constant(6, dim=dim, order=order) ** order,
        lengths.std() / math.sqrt(len(lengths)) + 1e-12,
    )


def test_the_constant_in_closed_form_and_its_place_below_the_root() -> None:
    assert projection_constant(1) == pytest.approx(1.0)
    assert projection_constant(3) == pytest.approx(0.5)
    assert projection_constant(50, dim=2, order=2) == pytest.approx(0.2)
    for n in (2, 5, 100, 10_000):
        assert math.sqrt(2 / math.pi) <= math.sqrt(n) * projection_constant(n) < 1
    assert math.sqrt(1e6) * projection_constant(10**6) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_a_shift_is_bounded_tightly_and_from_below(order: int) -> None:
    dim = 20
    distance = projected_distance(
        torch.randn(40_000, dim), torch.randn(40_000, dim) + 5 / math.sqrt(dim), order=order, num_projections=200
    )
    # Order 2 loses a factor: the W_2 of a projected shift is |U s|, and its mean is below the root of its mean square.
    reached = 0.93 if order == 1 else 0.93 * projection_constant(dim) / projection_constant(dim, order=2)
    limit = 4.4 * 1.5 * distance.lower_bound_error
    assert 5 * reached - limit < distance.lower_bound < 5 + limit
    # With the square root of n in place of 1 / c the bound would be a fifth smaller.
    if order == 1:
        with_root = distance.lower_bound * projection_constant(dim) * math.sqrt(dim)
        assert with_root < distance.lower_bound * 0.83


@pytest.mark.parametrize("dim, rows, count", [(1, 960, 100), (2, 480, 25)])
def test_bounds_hold_on_average_and_their_errors_cover(dim: int, rows: int, count: int) -> None:
    scale = torch.tensor([3.0, 1.0, 1.0, 0.5])
    runs = torch.tensor(
        [
            projected_distance(
                torch.randn(rows, 4), torch.randn(rows, 4) * scale, dim=dim, num_projections=4, seed=seed
            )[:6]
            for seed in range(count)
        ],
        dtype=torch.float64,
    )
    # W_2 of two Gaussians with common axes; W_1 is below it.
    truth = float((scale - 1).norm())
    assert float(runs[:, 2].mean()) < truth and float(runs[:, 4].mean()) < truth
    assert float(runs[:, 2].mean()) > 0.3 * truth
    assert_error_covers(runs[:, 2], runs[:, 3], 6)
    if count >= 100:
        assert_error_covers(runs[:, 0], runs[:, 1], 8)


def test_under_one_distribution_both_bounds_are_0_on_average() -> None:
    runs = torch.tensor(
        [
            projected_distance(torch.randn(240, 3), torch.randn(240, 3), num_projections=8, seed=seed)[:6]
            for seed in range(300)
        ],
        dtype=torch.float64,
    )
    # The largest projection would lie above 0 on the rows that chose it.
    assert_mean(runs[:, [2, 4]], 0.0)


def test_a_difference_in_one_direction_is_for_the_largest_projection() -> None:
    shift = torch.tensor([3.0, 0.0, 0.0])
    distance = projected_distance(torch.randn(20_000, 3), torch.randn(20_000, 3) + shift, num_projections=64)
    assert 2.7 < distance.largest < 3 + 5 * distance.largest_error
    spread = projected_distance(torch.randn(20_000, 3), torch.randn(20_000, 3) * 2)
    assert spread.largest < spread.lower_bound


@pytest.mark.parametrize("order, truth", [(1, W1), (2, W2)])
def test_one_dimension_is_the_distance_itself(order: int, truth: float) -> None:
    x, y = pair(100_000)
    distance = projected_distance(x, y, order=order, num_projections=1)
    whole = transport_distance(x, y, order=order, num_rows=distance.num_rows)
    assert distance.value == pytest.approx(whole.value, rel=1e-9)
    assert distance.lower_bound == pytest.approx(whole.lower_bound, rel=1e-9)
    assert distance.value == pytest.approx(truth, abs=0.05)


def test_projections_to_all_dimensions_change_nothing() -> None:
    x, y = torch.randn(320, 3), torch.randn(320, 3) + 1
    distance = projected_distance(x, y, dim=3, num_projections=2)
    whole = transport_distance(x, y)
    assert distance.value == pytest.approx(whole.value, rel=1e-9)
    assert distance.lower_bound == pytest.approx(whole.lower_bound, rel=1e-9)


def test_where_transport_fails_a_projection_still_sees() -> None:
    x, y = torch.randn(1600, 64), torch.randn(1600, 64) + 0.5  # 4 apart
    assert projected_distance(x, y).lower_bound > 1.5 * transport_distance(x, y).lower_bound


def test_images_seeds_and_generators() -> None:
    x, y = torch.randn(100, 1, 3, 3), torch.randn(120, 1, 3, 3)
    state = torch.get_rng_state()
    assert projected_distance(x, y, seed=3) == projected_distance(x.flatten(1), y.flatten(1), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert projected_distance(x, y, seed=3) != projected_distance(x, y, seed=4)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"dim": 0}, "dim between 1 and 2; got 0"),
        ({"dim": 3}, "dim between 1 and 2; got 3"),
        ({"num_projections": 0}, "num_projections of at least 1; got 0"),
        ({"order": 0.5}, "order to be a whole number between 1 and 2; got 0.5"),
        ({"num_repeats": 60}, "rows or more in each set"),
    ],
)
def test_bad_settings_get_a_clear_error(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        projected_distance(torch.randn(100, 2), torch.randn(100, 2), **settings)


def test_bad_samples_get_a_clear_error() -> None:
    x = torch.randn(100, 2)
    with pytest.raises(ValueError, match=r"real of shape \(row, 2\); got \(100, 3\)"):
        projected_distance(x, torch.randn(100, 3))
    with pytest.raises(ValueError, match="finite outputs; got NaN or infinity in 100 of 100"):
        projected_distance(x * math.nan, x)
