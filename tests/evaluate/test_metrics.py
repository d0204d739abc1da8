"""The laws of the metrics of two samples. They find their members by themselves: all that carry the mark `Metric`.

A metric that deals its rows at random (it takes a seed) keeps a law on average; every other metric keeps it exactly.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from pyro_gan import evaluate
from pyro_gan.evaluate import Metric
from tests.evaluate.members import FUNCTIONS, METRICS, call, is_random, measure, takes_two_samples
from tests.statistics import FALSE_ALARM, NUM_SE, assert_mean

NUM_ROWS, DIM, NUM_REPEATS = 120, 3, 20

FACTS: dict[str, Metric] = {name: function.metric for name, function in METRICS.items()}
#: Those that state a standard error.
WITH_ERROR = [name for name, facts in FACTS.items() if not math.isnan(measure(name, *torch.randn(2, 60, 3)).error)]


def pair() -> tuple[Tensor, Tensor]:
    """Two samples of different distributions."""
    return torch.randn(NUM_ROWS, DIM), 0.5 + 1.5 * torch.randn(NUM_ROWS, DIM)


def by_first(x: Tensor) -> Tensor:
    return x[x[:, 0].argsort()]


def assert_unchanged(name: str, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Assert that a change of the samples leaves the figure as it is, on average if the metric is random."""
    differences = []
    for seed in range(NUM_REPEATS if is_random(name) else 3):
        x, y = pair()
        differences.append(measure(name, x, y, seed=seed).figure - measure(name, *change(x, y), seed=seed).figure)
    if is_random(name):
        assert_mean(torch.tensor(differences, dtype=torch.float64), 0.0, name)
    else:
        assert differences == pytest.approx([0.0] * len(differences), abs=1e-5)


def test_every_function_of_two_samples_is_marked() -> None:
    for name, function in FUNCTIONS.items():
        assert takes_two_samples(function) == (name in METRICS), f"Mark {name} with @Metric(...)."
    assert len(METRICS) > 8


@pytest.mark.parametrize("name", METRICS)
def test_samples_come_first_and_all_else_by_keyword(name: str) -> None:
    parameters = [*inspect.signature(METRICS[name]).parameters.values()]
    assert [parameter.name for parameter in parameters[:2]] == ["outputs", "real"]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[2:])


@pytest.mark.parametrize("name", METRICS)
def test_order_of_rows_does_not_matter(name: str) -> None:
    assert_unchanged(name, lambda x, y: (by_first(x), by_first(y)))


@pytest.mark.parametrize("name", METRICS)
def test_order_of_samples_matters_only_if_the_mark_says_so(name: str) -> None:
    if FACTS[name].symmetric:
        assert_unchanged(name, lambda x, y: (y, x))
    else:
        with pytest.raises(AssertionError):
            assert_unchanged(name, lambda x, y: (y, x))


@pytest.mark.parametrize("name", METRICS)
def test_equal_samples_show_no_difference(name: str) -> None:
    """The figure is the null value. If the metric is random it is no larger on average.

    (An unbiased estimate is even smaller: it takes a row's copy in the other sample for an independent row.)
    """
    found = []
    for seed in range(NUM_REPEATS if is_random(name) else 3):
        x = torch.randn(NUM_ROWS, DIM)
        found.append(measure(name, x, x.clone(), seed=seed).figure - FACTS[name].null)
    if is_random(name):
        assert np.mean(found) <= NUM_SE * np.std(found) / math.sqrt(len(found)) + 1e-5
    else:
        assert found == pytest.approx([0.0] * len(found), abs=1e-5)


@pytest.mark.parametrize("name", WITH_ERROR)
def test_error_covers_under_one_distribution(name: str) -> None:
    """The figure is the null value on average, and at most a tenth lies beyond two standard errors of it.

    (For a normal figure with a known error it would be .046, with an error from six repeats .10.)
    """
    count = 120
    found = [measure(name, *torch.randn(2, NUM_ROWS, DIM), seed=seed) for seed in range(count)]
    gaps = torch.tensor([one.figure for one in found], dtype=torch.float64) - FACTS[name].null
    errors = torch.tensor([one.error for one in found], dtype=torch.float64)
    assert_mean(gaps, 0.0, name)
    missed = int((gaps.abs() > 2 * errors).sum())
    assert binom.sf(missed - 1, count, 0.1) > FALSE_ALARM, f"{missed} of {count} beyond two standard errors"
    # A stated error that is much too large would cover, too.
    assert float(errors.square().mean().sqrt()) < 2 * float(gaps.std())


@pytest.mark.parametrize("name", WITH_ERROR)
def test_error_is_the_spread_of_repeats(name: str) -> None:
    """Also for two distributions that differ, within a factor of 1.7; training adds chance that no error states."""
    found = [measure(name, *pair(), seed=seed) for seed in range(60)]
    spread = np.std([one.figure for one in found], ddof=1)
    stated = math.sqrt(np.mean([one.error**2 for one in found]))
    assert spread / 1.7 < stated < 1.7 * spread


@pytest.mark.parametrize("name", METRICS)
def test_small_p_values_are_rare_under_one_distribution(name: str) -> None:
    if not hasattr(call(name, *pair()), "p_value"):
        return
    count = 200
    small = sum(call(name, *torch.randn(2, NUM_ROWS, DIM)).p_value <= 0.05 for _ in range(count))
    assert binom.sf(small - 1, count, 0.05) > FALSE_ALARM, f"{small} of {count} p-values are below .05"
    assert call(name, *pair()).p_value < 0.5


@pytest.mark.parametrize("name", METRICS)
def test_a_large_difference_is_seen(name: str) -> None:
    for seed in range(3):
        x, y = torch.randn(2, NUM_ROWS, DIM)
        far, near = measure(name, x, y + 3, seed=seed), measure(name, x, y, seed=seed)
        assert far.figure > near.figure
        if name in WITH_ERROR:
            assert far.figure > FACTS[name].null + NUM_SE * near.error


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", METRICS)
def test_nan_and_infinity_are_refused(name: str, bad: float) -> None:
    for side in (0, 1):
        samples = torch.randn(2, NUM_ROWS, DIM)
        samples[side, 7, 0] = bad
        with pytest.raises(ValueError, match="NaN or infinity in 1 of 120 rows"):
            call(name, *samples)


@pytest.mark.parametrize("name", METRICS)
def test_complex_and_overflowing_rows_are_refused(name: str) -> None:
    for side in (0, 1):
        samples = torch.randn(2, NUM_ROWS, DIM)
        samples[side, 7, 0] = 1e30
        with pytest.raises(ValueError, match="larger squares overflow; got larger ones in 1 of 120 rows"):
            call(name, *samples)
        both = [*torch.randn(2, NUM_ROWS, DIM)]
        both[side] = both[side].to(torch.complex64)
        with pytest.raises(ValueError, match="as real numbers"):
            call(name, *both)


@pytest.mark.parametrize("name", METRICS)
def test_images_count_as_their_pixels_and_generators_stay(name: str) -> None:
    x, y = torch.randn(2, NUM_ROWS, 1, 2, 2)
    states = torch.get_rng_state(), np.random.get_state()[1]
    one, other = (measure(name, *samples) for samples in ((x, y), (x.flatten(1), y.flatten(1))))
    assert one == pytest.approx(other, nan_ok=True)
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()


def test_a_function_without_its_mark_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the registry."""
    assert takes_two_samples(FUNCTIONS["frechet_distance"]) and not takes_two_samples(evaluate.mode_report)
    monkeypatch.delitem(METRICS, "frechet_distance")
    with pytest.raises(AssertionError, match="Mark frechet_distance"):
        test_every_function_of_two_samples_is_marked()
