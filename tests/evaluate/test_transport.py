"""Transport of finite samples: exact costs, the bound in expectation, its error, and errors for bad input."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, chi2, norm, t
from torch import Tensor

from pyro_gan.evaluate import TransportDistance, transport_cost, transport_distance
from pyro_gan.evaluate._blocks import deal
from tests.statistics import FALSE_ALARM, assert_close_in_se, assert_mean

# The distances of N(0.5, 0.8^2) and N(0, 1).
W1, W2 = 0.50080165, 0.53851648


def pair(num_rows: int) -> tuple[Tensor, Tensor]:
    return torch.randn(num_rows, 1).double(), 0.5 + 0.8 * torch.randn(num_rows, 1).double()


def repeat(count: int, draw: Callable[[], tuple[Tensor, Tensor]], **settings: Any) -> dict[str, Tensor]:
    results = [transport_distance(*draw(), seed=seed, **settings) for seed in range(count)]
    return {
        name: torch.tensor([getattr(result, name) for result in results], dtype=torch.float64)
        for name in TransportDistance._fields
    }


def assert_error_covers(values: Tensor, errors: Tensor, num_terms: int) -> None:
    """Assert that the stated variance is right on average: a ratio of variances, with slack for heavy tails."""
    # The error of few repeats is widened by Student's quantile, so that two errors cover.
    wider = t.ppf(norm.cdf(2), num_terms - 1) / 2
    ratio = float(values.var() / errors.div(wider).square().mean())
    count = len(values)
    low, high = (chi2.ppf(q, count - 1) / (count - 1) for q in (FALSE_ALARM / 2, 1 - FALSE_ALARM / 2))
    slack = 1 + 4.4 * math.sqrt(2 / (count * (num_terms - 1)))
    assert low / slack / 1.1 < ratio < high * slack * 1.1, ratio


@pytest.mark.parametrize("order", [1, 2])
def test_the_cost_is_that_of_the_best_assignment(order: int) -> None:
    for dim in (1, 2, 7):
        a, b = torch.randn(40, dim).double(), torch.randn(40, dim).double() * 2
        costs = torch.cdist(a, b).pow(order)
        rows, columns = linear_sum_assignment(costs.numpy())
        expected = float(costs[rows, columns].mean()) ** (1 / order)
        assert transport_cost(a, b, order=order) == pytest.approx(expected, rel=1e-9)
        # Rows of one dimension are sorted; more dimensions need the solver.
        padded = [torch.cat([x, torch.zeros_like(x)], 1) for x in (a, b)]
        assert transport_cost(*padded, order=order) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("order, truth", [(1, W1), (2, W2)])
def test_gaussians_with_many_rows(order: int, truth: float) -> None:
    distance = transport_distance(*pair(300_000), order=order)
    assert distance.num_rows == 1000
    distance = transport_distance(*pair(400_000), order=order, num_rows=25_000)
    assert distance.lower_bound < distance.value
    assert distance.value == pytest.approx(truth, abs=0.03)
    assert distance.lower_bound == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("order, truth", [(1, W1), (2, W2)])
def test_the_bound_holds_in_expectation_and_the_errors_cover(order: int, truth: float) -> None:
    count = 300
    found = repeat(count, lambda: pair(640), order=order)
    assert float(found["lower_bound"].mean()) < truth
    # The bound is not useless: 40 rows show a fixed part of the distance.
    assert float(found["lower_bound"].mean()) > 0.3 * truth
    if order == 1:
        assert float(found["value"].mean()) > truth
    assert float((found["value"] - found["floor"]).mean()) == pytest.approx(
        float(found["lower_bound"].mean()), abs=0.02
    )
    assert_error_covers(found["value"], found["standard_error"], 8)
    assert_error_covers(found["lower_bound"], found["lower_bound_error"], 6)
    below = (found["lower_bound"] - 2 * found["lower_bound_error"] <= truth).double()
    assert float(below.mean()) > 0.95


def test_under_one_distribution_the_bound_is_0_on_average() -> None:
    # If the same repeats chose the smaller floor and subtracted it, the mean would be above 0.
    found = repeat(1500, lambda: (torch.randn(96, 1), torch.randn(96, 1)), num_repeats=4)
    assert_mean(found["lower_bound"], 0.0)
    assert_error_covers(found["lower_bound"], found["lower_bound_error"], 3)


@pytest.mark.parametrize("num_repeats", [3, 4, 8])
def test_two_errors_cover_however_few_the_repeats(num_repeats: int) -> None:
    """At most 4.6 % lie beyond two errors, and with the plain error of three repeats far more would."""
    count = 400
    found = repeat(count, lambda: (torch.randn(96, 1), torch.randn(96, 1)), num_repeats=num_repeats)
    gaps = found["lower_bound"].abs() / found["lower_bound_error"]
    allowed = 2 * norm.sf(2)
    assert binom.sf(int((gaps > 2).sum()) - 1, count, allowed) > FALSE_ALARM
    judging = num_repeats - max(1, num_repeats // 4)
    plain = int((gaps * t.ppf(norm.cdf(2), judging - 1) / 2 > 2).sum())
    assert num_repeats == 8 or binom.sf(plain - 1, count, allowed) < FALSE_ALARM


def test_the_smaller_floor_is_subtracted() -> None:
    narrow, wide = torch.randn(400, 2) * 0.1, torch.randn(400, 2)
    one, other = transport_distance(narrow, wide), transport_distance(wide, narrow)
    for distance in (one, other):
        assert distance.floor < 0.1
        assert distance.lower_bound == pytest.approx(distance.value - distance.floor, abs=0.2)


def test_shifted_gaussians_in_the_plane_lie_between_the_bounds() -> None:
    shift = torch.tensor([1.2, -0.9])
    found = repeat(40, lambda: (torch.randn(800, 2), torch.randn(800, 2) + shift))
    assert float(found["lower_bound"].mean()) < 1.5 < float(found["value"].mean())
    assert float(found["lower_bound"].mean()) > 0.9


def test_order_2_is_no_upper_bound() -> None:
    coin = torch.randint(2, (6000, 1)).double()
    distance = transport_distance(coin, torch.zeros_like(coin), order=2, num_rows=2, num_repeats=1500)
    # E sqrt(mean of two coins) = (0 + 2 sqrt(0.5) + 1) / 4.
    assert_close_in_se(distance.value, (2 * math.sqrt(0.5) + 1) / 4, distance.standard_error)
    assert distance.value + 5 * distance.standard_error < math.sqrt(0.5)


def test_in_many_dimensions_the_floor_is_nearly_all() -> None:
    x, y = torch.randn(1600, 64), torch.randn(1600, 64)
    distance = transport_distance(x, y + 1 / 8)
    assert distance.floor > 0.97 * distance.value
    assert distance.lower_bound < 0.5


def test_no_row_is_used_twice_and_no_generator_moved() -> None:
    x = torch.arange(100.0)[:, None]
    state = torch.get_rng_state()
    p, q = deal(x, -x, num_repeats=3, num_rows=None, most_rows=1000, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert p.shape == q.shape == (3, 2, 16, 1)
    assert len(p.unique()) == p.numel() and len(q.unique()) == q.numel()
    assert transport_distance(x, -x, seed=1) == transport_distance(x, -x, seed=1)
    assert transport_distance(x, -x, seed=1) != transport_distance(x, -x, seed=2)


def test_without_pot_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ot":
            raise ImportError("No module named 'ot'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError) as caught:
        transport_cost(torch.randn(5, 2), torch.randn(5, 2))
    assert any("pyro-gan[transport]" in note for note in caught.value.__notes__)
    assert transport_cost(torch.zeros(5, 1), torch.ones(5, 1)) == 1.0


@pytest.mark.parametrize(
    "shape_a, shape_b, settings, words",
    [
        ((200, 2), (200, 3), {}, r"real of shape \(row, 2\); got \(200, 3\)"),
        ((200,), (200,), {}, r"\(200,\)"),
        ((31, 2), (200, 2), {}, "32 rows or more.*got 31 outputs"),
        ((200, 2), (200, 2), {"num_rows": 20}, "320 rows or more"),
        ((200, 2), (200, 2), {"num_rows": 1}, "num_rows of at least 2; got 1"),
        ((200, 2), (200, 2), {"num_repeats": 2}, "num_repeats of at least 3; got 2"),
        ((200, 2), (200, 2), {"order": 3}, "order between 1 and 2; got 3"),
    ],
)
def test_bad_input_gets_a_clear_error(
    shape_a: tuple[int, ...], shape_b: tuple[int, ...], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        transport_distance(torch.randn(shape_a), torch.randn(shape_b), **settings)


def test_nan_and_unequal_clouds_are_refused() -> None:
    bad = torch.randn(100, 2)
    bad[3, 1] = math.nan
    with pytest.raises(ValueError, match="finite real; got NaN or infinity in 1 of 100 rows"):
        transport_distance(torch.randn(100, 2), bad)
    with pytest.raises(ValueError, match="as many outputs as real rows; got 5 and 4"):
        transport_cost(torch.randn(5, 2), torch.randn(4, 2))
