"""Collisions: the effective size and its interval, the certified least size, and enough samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from pyro_gan.evaluate import closest_pairs, collision_sample_size, collision_test
from pyro_gan.evaluate.support import _at_most
from tests.statistics import FALSE_ALARM

DISTRIBUTIONS: dict[str, Tensor] = {
    "uniform": torch.full((1000,), 1 / 1000, dtype=torch.float64),
    "two levels": torch.cat([torch.full((500,), 0.9 / 500), torch.full((10_000,), 0.1 / 10_000)]).double(),
    "zipf": 1 / torch.arange(1, 3001).double(),
    "geometric": 0.97 ** torch.arange(1000).double(),
}


def draw(p: Tensor, num_draws: int) -> Tensor:
    """Outputs of a generator with these probabilities, as rows of two numbers."""
    index = torch.multinomial(p, num_draws, replacement=True)
    return torch.stack([index.double(), -index.double()], dim=1)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_intervals_and_least_sizes_cover(name: str) -> None:
    p = DISTRIBUTIONS[name] / DISTRIBUTIONS[name].sum()
    effective = 1 / float(p.square().sum())
    needed = int((p.sort(descending=True).values.cumsum(0) < 0.9 - 1e-9).sum()) + 1
    count = 150
    tests = [collision_test(draw(p, 200)) for _ in range(count)]
    missed = sum(not test.low <= effective <= test.high for test in tests)
    # The interval holds for large samples: twice the 0.05 is allowed.
    assert binom.sf(missed - 1, count, 0.1) > FALSE_ALARM, missed
    too_large = sum(test.least_size > needed for test in tests)
    assert binom.sf(too_large - 1, count, 0.05) > FALSE_ALARM, too_large
    assert np.median([test.high / test.low for test in tests]) < 5
    shares = np.array([1 / test.value for test in tests])
    assert abs(shares.mean() - 1 / effective) < 4.4 * shares.std() / math.sqrt(count)


def test_the_least_size_is_not_idle() -> None:
    assert np.median([collision_test(draw(DISTRIBUTIONS["uniform"], 300)).least_size for _ in range(9)]) > 400
    # 23 people without a common birthday: with mass 1 there are at least 88 days (0.95), by the product below.
    alone = math.prod(1 - i / 86 for i in range(23))
    found = collision_test(torch.arange(23.0)[:, None], mass=1.0)
    assert found.value == found.high == math.inf and found.num_collisions == 0
    assert alone < 0.05
    assert math.prod(1 - i / (found.least_size - 1) for i in range(23)) <= 0.05
    assert math.prod(1 - i / (1.02 * found.least_size) for i in range(23)) > 0.05


def test_heavy_outputs_do_not_deceive_the_least_size() -> None:
    # Half of the mass lies on one output, half is spread out: many pairs collide, but few outputs never hold 0.9 of it.
    x = torch.randn(400, 1)
    x[torch.rand(400) < 0.5] = 0.0
    test = collision_test(x)
    assert test.value < 10
    assert collision_test(x, mass=0.4).least_size == 1
    with_all = collision_test(x, mass=1.0)
    assert with_all.least_size > test.least_size


def test_repeats_of_a_uniform_distribution_by_counting() -> None:
    assert 1 - _at_most(365, 23, 0)[23] == pytest.approx(0.5073, abs=1e-4)
    draws = np.random.default_rng().integers(40, size=(20_000, 25))
    repeats = 25 - np.array([len(np.unique(row)) for row in draws])
    for most in (3, 6, 9):
        share, expected = (repeats <= most).mean(), _at_most(40, 25, most)[25]
        assert abs(share - expected) < 4.4 * math.sqrt(expected * (1 - expected) / len(draws))
    assert _at_most(1, 5, 4).tolist() == [1.0] * 6
    assert _at_most(1, 5, 3)[5] == 0.0


def test_a_threshold_counts_near_copies() -> None:
    centres = 10 * torch.randn(300, 2)
    x = centres[torch.randint(300, (300,))]
    noisy = x + 1e-4 * torch.rand(300, 2)
    assert collision_test(noisy).num_collisions == 0
    assert collision_test(noisy, threshold=1e-3) == collision_test(x)
    distances = torch.pdist(noisy.double())
    assert collision_test(noisy, threshold=3.0).num_collisions == int((distances <= 3.0).sum())


def test_picked_samples_are_farther_apart_than_the_threshold() -> None:
    grid = torch.arange(50.0)[:, None]
    # In a chain of neighbours each one collides with the next, and every second one can be picked.
    test = collision_test(grid, threshold=1.0)
    assert (test.num_collisions, test.num_distinct) == (49, 25)


def test_all_equal_and_none_equal() -> None:
    one = collision_test(torch.zeros(40, 3))
    assert (one.value, one.low, one.high, one.num_distinct, one.least_size) == (1.0, 1.0, 1.0, 1, 1)
    none = collision_test(torch.randn(200, 3))
    assert none.value == none.high == math.inf and none.low > 4000
    strict = collision_test(torch.randn(200, 3), confidence=0.999)
    assert strict.low < none.low and strict.least_size < none.least_size


@pytest.mark.parametrize("norm, distance", [("l1", 0.9), ("l2", 0.9 / 200**0.5)])
def test_so_many_samples_are_enough(norm: Any, distance: float) -> None:
    size, error, count = 200, 0.1, 20
    enough = collision_sample_size(size, distance, norm=norm, error=error)
    gamma = distance**2 / (size if norm == "l1" else 1)
    tilt = math.sqrt(gamma * size)
    far = torch.tensor([1 + tilt, 1 - tilt]).repeat(size // 2).double() / size
    limit = 1 / size + gamma / 2
    for p, called_far in ((torch.full((size,), 1 / size), False), (far, True)):
        shares = [1 / collision_test(draw(p, enough), mass=0.5).value for _ in range(count)]
        wrong = sum((share > limit) != called_far for share in shares)
        assert binom.sf(wrong - 1, count, error) > FALSE_ALARM


@pytest.mark.parametrize("size, distance", [(10, 0.02), (1000, 0.05), (100_000, 0.2)])
def test_chebyshev_s_inequality_holds_for_the_worst_distribution_and_is_nearly_tight(
    size: int, distance: float
) -> None:
    # One output takes mass from all others, which makes the sum of third powers largest.
    p = torch.full((size,), 1 / size, dtype=torch.float64)
    p -= distance * math.sqrt(1 - 1 / size) / (size - 1)
    p[0] = 1 - p[1:].sum()
    gamma, share, third = (float((p - 1 / size).square().sum()), float(p.square().sum()), float((p**3).sum()))
    assert gamma == pytest.approx(distance**2, rel=0.25)

    def risk(n: int) -> float:
        variance = 2 * share * (1 - share) + 4 * (n - 2) * (third - share**2)
        return variance / (n * (n - 1)) / (gamma / 2) ** 2

    enough = collision_sample_size(size, math.sqrt(gamma), norm="l2", error=0.1)
    assert risk(enough) <= 0.1 < risk(int(0.6 * enough))


def test_sample_sizes_grow_as_they_say() -> None:
    def ratio(few: tuple[int, float], many: tuple[int, float], norm: Any) -> float:
        return collision_sample_size(*many, norm=norm) / collision_sample_size(*few, norm=norm)

    assert ratio((10**6, 1e-3), (10**8, 1e-3), "l1") == pytest.approx(10, rel=0.05)
    assert ratio((10**6, 1e-7), (10**8, 1e-7), "l2") == pytest.approx(1 / 10, rel=0.05)
    assert ratio((100, 2e-3), (100, 1e-3), "l1") == pytest.approx(4, rel=0.05)
    assert collision_sample_size(400, 0.5) == collision_sample_size(400, 0.5 / 20, norm="l2")


def test_closest_pairs_are_those_of_all_pairs() -> None:
    x = torch.randn(1200, 1, 2, 2)
    x[700] = x[3]
    found = closest_pairs(x, num_pairs=15)
    distances = torch.pdist(x.flatten(1).double())
    assert torch.allclose(found.distance, distances.sort().values[:15], atol=1e-12)
    assert found.pairs[0].tolist() == [3, 700] and found.distance[0] == 0
    first, second = found.pairs.T
    assert torch.allclose((x[first] - x[second]).flatten(1).norm(dim=1).double(), found.distance, atol=1e-6)
    assert len(closest_pairs(x[:10], num_pairs=45).pairs) == 45


@pytest.mark.parametrize(
    "samples, settings, words",
    [
        (torch.randn(9, 2), {}, r"at least 10 rows; got \(9, 2\)"),
        (torch.randn(20), {}, r"\(20,\)"),
        (torch.full((20, 2), math.nan), {}, "finite samples; got NaN or infinity in 20 of 20 rows"),
        (torch.randn(20, 2), {"threshold": -1.0}, "threshold of at least 0"),
        (torch.randn(20, 2), {"mass": 0.0}, r"mass in \(0, 1\]"),
        (torch.randn(20, 2), {"confidence": 1.0}, r"confidence in \(0, 1\)"),
    ],
)
def test_bad_input_gets_a_clear_error(samples: Tensor, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        collision_test(samples, **settings)


def test_bad_settings_get_a_clear_error() -> None:
    for arguments, words in (
        ((1, 0.5), "support_size of at least 2; got 1"),
        ((100, 0.0), r"distance in \(0, 2\]; got 0"),
        ((100, 2.5), r"distance in \(0, 2\]; got 2.5"),
    ):
        with pytest.raises(ValueError, match=words):
            collision_sample_size(*arguments)
    with pytest.raises(ValueError, match=r"distance in \(0, 1\]"):
        collision_sample_size(100, 1.5, norm="l2")
    with pytest.raises(ValueError, match="'l1', 'l2'; got 'max'"):
        collision_sample_size(100, 0.5, norm="max")
    for num_pairs in (0, 46):
        with pytest.raises(ValueError, match=f"num_pairs between 1 and 45; got {num_pairs}"):
            closest_pairs(torch.randn(10, 2), num_pairs=num_pairs)
