"""The residual AUC: 0.5 for equal distributions, the known value for a shift, and no reward for duplicates."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from pyro_gan import toys
from pyro_gan.evaluate import c2st, residual_auc
from pyro_gan.evaluate.residual import _delong
from tests.statistics import FALSE_ALARM, assert_close_in_se


def test_equal_distributions_give_one_half() -> None:
    x = torch.randn(2, 1000, 20)
    auc = residual_auc(x[0], x[1])
    assert_close_in_se(auc.value, 0.5, auc.standard_error, "null")
    # DeLong's .0129, and up to 1.4 times that because the folds share their training rows.
    assert 0.013 < auc.standard_error < 0.02


def test_a_shift_gives_its_auc() -> None:
    toy = toys.gaussian_shift(0.8)
    auc = residual_auc(toy.prior.sample((4000,)), toy.sample_data(4000))
    assert_close_in_se(auc.value, 0.8, 1.5 * auc.standard_error, "shift")
    assert auc.standard_error == pytest.approx(0.005, rel=0.2)


def test_one_far_row_blinds_no_judge() -> None:
    """Neither the centre nor the scale of the default critic's features depends on it."""
    outputs, real = torch.randn(200, 2) + 1.5, torch.randn(200, 2)
    outputs[3] = 1e6
    assert residual_auc(outputs, real, num_folds=2).value > 0.85
    for dtype in (torch.float32, torch.float64):
        assert c2st(outputs.to(dtype), real.to(dtype)).p_value < 1e-6


def test_error_covers_with_the_fewest_rows() -> None:
    """50 rows of each set: at most a tenth beyond two errors; and rows without a mistake leave an error."""
    count = 60
    found = [residual_auc(*torch.randn(2, 50, 3), classifier=LogisticRegression(), seed=seed) for seed in range(count)]
    missed = sum(abs(auc.value - 0.5) > 2 * auc.standard_error for auc in found)
    assert binom.sf(missed - 1, count, 0.1) > FALSE_ALARM, f"{missed} of {count} beyond two errors"
    # A real difference adds nothing to DeLong's error but what the folds share.
    x, y = torch.randn(2, 50, 3)
    assert 0.01 < residual_auc(x, y + 20, classifier=LogisticRegression()).standard_error < 0.05
    assert 0.01 < c2st(x, y + 20, classifier=LogisticRegression()).standard_error < 0.05


def test_a_difference_of_scale_is_seen_in_many_dimensions() -> None:
    # The AUC of the best critic is 0.86.
    auc = residual_auc(1.15 * torch.randn(1500, 60), torch.randn(1500, 60))
    assert auc.value > 0.7


def test_resampling_with_replacement_is_not_found_out_by_memory() -> None:
    pool = torch.randn(500, 10)
    auc = residual_auc(pool[torch.arange(500).repeat(4)], torch.randn(2000, 10))
    # Four copies of a row count once, so the stated error is larger than the 0.009 of 2000 independent rows.
    assert_close_in_se(auc.value, 0.5, 1.6 * auc.standard_error, "duplicates")
    assert auc.standard_error > 0.011


def test_a_users_classifier_is_copied_and_used() -> None:
    toy = toys.gaussian_shift(0.8)
    outputs, real = toy.prior.sample((2000,)), toy.sample_data(2000)
    for classifier in (LogisticRegression(), LinearSVC()):
        auc = residual_auc(outputs, real, classifier=classifier, num_folds=5)
        assert_close_in_se(auc.value, 0.8, 1.2 * auc.standard_error, type(classifier).__name__)
        assert not hasattr(classifier, "coef_")


def test_images_and_the_seed() -> None:
    outputs, real = torch.rand(120, 1, 4, 4), torch.rand(100, 1, 4, 4)
    state = torch.get_rng_state(), np.random.get_state()[1]
    first = residual_auc(outputs, real, seed=3)
    assert first == residual_auc(outputs.flatten(1), real.flatten(1), seed=3)
    assert first != residual_auc(outputs, real, seed=4)
    assert torch.equal(state[0], torch.get_rng_state()) and (state[1] == np.random.get_state()[1]).all()


def test_rows_far_from_zero_keep_their_digits() -> None:
    toy = toys.gaussian_shift(0.9, dtype=torch.float64)
    outputs, real = (1e6 + 1e-3 * x for x in (toy.prior.sample((500,)), toy.sample_data(500)))
    assert residual_auc(outputs, real).value > 0.8


def test_a_constant_feature_is_harmless() -> None:
    x = torch.randn(2, 200, 3)
    x[..., 1] = -1.0
    assert math.isfinite(residual_auc(x[0], x[1]).value)


def test_delong_is_the_auc_with_its_error() -> None:
    rng = np.random.default_rng()
    is_real = np.repeat([True, False], [80, 120])

    def scores() -> np.ndarray:
        return np.concatenate([rng.normal(1, 1, 80), rng.normal(0, 2, 120)])

    tied = scores().round(1)
    assert _delong(tied, is_real, np.arange(200))[0] == pytest.approx(roc_auc_score(is_real, tied))
    for copies in (1, 3):
        # All copies of a row have one error together.
        where = np.tile(np.arange(200), copies)
        repeats = [_delong(scores()[where], is_real[where], where) for _ in range(2000)]
        values, variances = np.array(repeats).T
        assert variances.mean() == pytest.approx(values.var(), rel=0.16)


@pytest.mark.parametrize(
    "outputs, real, kwargs, words",
    [
        (torch.randn(99, 3), torch.randn(99, 4), {}, r"real of shape \(row, 3\); got \(99, 4\)"),
        (torch.randn(99), torch.randn(99), {}, "event"),
        (torch.randn(9, 3), torch.randn(99, 3), {}, r"outputs of shape .* at least 50 rows; got \(9, 3\)"),
        (torch.randn(99, 3), torch.full((99, 3), math.nan), {}, "finite real; got NaN or infinity in 99 of 99 rows"),
        (torch.randn(99, 3), torch.randn(99, 3), {"num_folds": 1}, "num_folds of at least 2; got 1"),
        (torch.ones(99, 3), torch.randn(99, 3), {}, "distinct"),
        (torch.randn(14, 3).repeat(25, 1), torch.randn(300, 3), {}, "20 distinct rows of outputs.*got 4, of 14"),
    ],
)
def test_bad_input_gets_a_clear_error(
    outputs: torch.Tensor, real: torch.Tensor, kwargs: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        residual_auc(outputs, real, **kwargs)


def test_without_scikit_learn_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError) as error:
        residual_auc(torch.randn(99, 3), torch.randn(99, 3))
    assert error.value.__notes__ == ["pip install pyro-gan[evaluate]"]
