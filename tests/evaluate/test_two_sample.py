"""The classifier two-sample test: its p-value under the null hypothesis, its power, and the effect of repeated rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from torch import Tensor

from pyro_gan import toys
from pyro_gan.evaluate import C2ST, c2st
from pyro_gan.evaluate.two_sample import _judge
from tests.statistics import FALSE_ALARM, assert_close_in_se

PAIRS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "distinct": lambda: (torch.randn(100, 3), torch.randn(100, 3)),
    "unequal": lambda: (torch.randn(80, 3), torch.randn(400, 3)),
    # Each output occurs about ten times; without clusters the p-value would be below 0.05 in every third run.
    "resampled": lambda: (torch.randn(60, 3)[torch.randint(60, (600,))], torch.randn(600, 3)),
}


def repeat(draw: Callable[[], tuple[Tensor, Tensor]], count: int) -> list[C2ST]:
    # The p-value is valid for any classifier, so a quick one will do.
    return [c2st(*draw(), classifier=GaussianNB(), seed=seed) for seed in range(count)]


@pytest.mark.parametrize("name", PAIRS)
def test_under_the_null_small_p_values_are_as_rare_as_they_say(name: str) -> None:
    count = 400
    tests = repeat(PAIRS[name], count)
    p_values = np.array([test.p_value for test in tests])
    # With sixty clusters the distribution is only nearly normal: a tenth more is allowed.
    slack = 1.1 if name == "resampled" else 1.0
    for level in (0.05, 0.2, 0.5):
        num_below = int((p_values <= level).sum())
        assert stats.binom.sf(num_below - 1, count, slack * level) > FALSE_ALARM, (level, num_below / count)
    # A p-value that is always 1 would be valid, too. An exact one of few rows is slightly too large.
    assert (p_values <= 0.5).mean() > 0.25
    if name == "resampled":
        assert (p_values <= 0.2).mean() > 0.1
    accuracies = torch.tensor([test.accuracy for test in tests], dtype=torch.float64)
    assert_close_in_se(accuracies.mean(), 0.5, accuracies.std() / math.sqrt(count), "mean accuracy")
    stated = math.sqrt(np.mean([test.standard_error**2 for test in tests]))
    assert float(accuracies.std()) == pytest.approx(stated, rel=0.18)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("spread", ["even", "uneven"])
def test_small_p_values_of_few_clusters_are_rare(spread: str, rate: float) -> None:
    """Twenty distinct rows against 300 fresh ones, for any share that the classifier names real."""
    rng, count = np.random.default_rng(), 3000
    size = np.full(20, 25) if spread == "even" else np.geomspace(1, 100, 20).astype(int)
    identity = np.repeat(np.arange(320), np.concatenate([size, np.ones(300, int)]))
    is_real = identity >= 20
    p_values = [_judge((rng.random(320) < rate)[identity], is_real, identity).p_value for _ in range(count)]
    for level in (0.001, 0.01):
        below = int((np.array(p_values) < level).sum())
        assert stats.binom.sf(below - 1, count, 2 * level) > FALSE_ALARM, (level, below / count)


def test_rows_far_from_zero_keep_their_digits() -> None:
    toy = toys.gaussian_shift(0.9, dtype=torch.float64)
    outputs, real = (1e6 + 1e-3 * x for x in (toy.prior.sample((500,)), toy.sample_data(500)))
    assert c2st(outputs, real).p_value < FALSE_ALARM


def test_the_p_value_is_fisher_s() -> None:
    rng = np.random.default_rng()
    named, is_real = rng.random(60) < 0.4, rng.permutation(np.repeat([True, False], [25, 35]))
    table = [[(named & is_real).sum(), (~named & is_real).sum()]]
    table += [[(named & ~is_real).sum(), (~named & ~is_real).sum()]]
    result = _judge(named, is_real, np.arange(60))
    assert result.p_value == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-9)
    assert result.accuracy == pytest.approx((named[is_real].mean() + (~named)[~is_real].mean()) / 2)
    for always in (np.ones(60, bool), np.zeros(60, bool)):
        for identity in (np.arange(60), np.arange(60) // 2):
            accuracy, error, p_value = _judge(always, is_real, identity)
            assert accuracy == 0.5 and p_value == pytest.approx(1.0)
            # 25 and 35 rows without an exception leave room for one.
            assert 0 < error < 0.05


def test_a_shift_gives_the_accuracy_of_the_best_classifier() -> None:
    toy = toys.gaussian_shift(0.8)
    test = c2st(toy.prior.sample((4000,)), toy.sample_data(4000), classifier=LogisticRegression())
    best = stats.norm.cdf(stats.norm.ppf(0.8) / math.sqrt(2))
    assert_close_in_se(test.accuracy, best, 1.1 * test.standard_error, "accuracy")
    assert test.standard_error == pytest.approx(math.sqrt(best * (1 - best) / 4000), rel=0.05)
    assert test.p_value < 1e-50


def test_the_default_finds_a_difference_of_scale() -> None:
    test = c2st(1.3 * torch.randn(1000, 20), torch.randn(1000, 20))
    assert test.p_value < FALSE_ALARM


def test_copies_of_the_right_rows_are_no_difference_and_of_wrong_ones_are() -> None:
    pool = torch.randn(500, 5)[torch.arange(500).repeat(4)]
    real = torch.randn(2000, 5)
    assert c2st(pool, real).p_value > FALSE_ALARM
    assert c2st(pool + 0.5, real).p_value < FALSE_ALARM


def test_images_and_the_seed() -> None:
    outputs, real = torch.rand(120, 1, 4, 4), torch.rand(100, 1, 4, 4)
    state = torch.get_rng_state(), np.random.get_state()[1]
    classifier = LogisticRegression()
    first = c2st(outputs, real, classifier=classifier, seed=3)
    assert first == c2st(outputs.flatten(1), real.flatten(1), classifier=classifier, seed=3)
    assert first != c2st(outputs, real, classifier=classifier, seed=4)
    assert not hasattr(classifier, "coef_")
    assert torch.equal(state[0], torch.get_rng_state()) and (state[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    "outputs, real, words",
    [
        (torch.randn(99, 3), torch.randn(99, 4), r"real of shape \(row, 3\); got \(99, 4\)"),
        (torch.randn(99), torch.randn(99), "event"),
        (torch.randn(9, 3), torch.randn(99, 3), r"outputs of shape .* at least 50 rows; got \(9, 3\)"),
        (torch.randn(99, 3), torch.full((99, 3), math.inf), "finite real; got NaN or infinity in 99 of 99 rows"),
        (torch.ones(99, 3), torch.randn(99, 3), "distinct"),
        # Rows are dealt evenly, so the seed does not matter here.
        (torch.randn(38, 3).repeat(9, 1), torch.randn(99, 3), "20 distinct rows of outputs.*got 19, of 38 .*342"),
        (torch.randn(99, 3), torch.randn(30, 3).repeat(9, 1), "20 distinct rows of real.*got 15"),
    ],
)
def test_bad_input_gets_a_clear_error(outputs: Tensor, real: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        c2st(outputs, real)


@pytest.mark.parametrize("module", ["sklearn.base", "scipy.stats"])
def test_without_the_extra_the_cure_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        c2st(torch.randn(99, 3), torch.randn(99, 3))
    assert error.value.__notes__ == ["pip install pyro-gan[evaluate]"]
