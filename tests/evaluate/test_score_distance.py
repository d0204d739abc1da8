"""Distances between scores: SciPy's values, known distances, and a gap that exact samples close."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_gan import toys
from pyro_gan.evaluate import score_distance
from tests.statistics import FALSE_ALARM


def test_figures_by_hand() -> None:
    distance = score_distance(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0]))
    assert distance.ks == pytest.approx(0.5) and distance.wasserstein == pytest.approx(1.0)
    x = torch.randn(500)
    assert score_distance(x, x) == (0.0, 1.0, 0.0)
    assert score_distance(x, x.double() + 0.7).wasserstein == pytest.approx(0.7, abs=1e-6)
    assert score_distance(x + 100, x).ks == 1.0


def test_p_values_are_uniform_under_one_distribution() -> None:
    p_values = [score_distance(torch.randn(300), torch.randn(400)).p_value for _ in range(400)]
    # The statistic is discrete, so its p-values are slightly too large.
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > FALSE_ALARM
    assert sum(p <= 0.5 for p in p_values) > 120


def test_exact_outputs_recover_the_scores_of_real_data() -> None:
    toy = toys.grid()
    real = toy.log_ratio(toy.sample_data(4000))
    before = score_distance(toy.log_ratio(toy.prior.sample((4000,))), real)
    after = score_distance(toy.log_ratio(toy.posterior.sample((4000,))), real)
    assert after.p_value > FALSE_ALARM > before.p_value
    # The rest of W1 is noise, about 1.8 s / sqrt(n).
    assert after.wasserstein < 3 * 1.8 * float(real.std()) / math.sqrt(4000)
    assert before.wasserstein > 5 * after.wasserstein


@pytest.mark.parametrize(
    "outputs, real, words",
    [
        (torch.randn(5, 1), torch.randn(5), r"outputs of shape.*\(5, 1\).*flatten"),
        (torch.randn(5), torch.randn(1), r"real of shape.*\(1,\)"),
        (
            torch.randn(5),
            torch.tensor([0.0, math.nan, math.inf]),
            "finite scores of real; got NaN or infinity in 2 of 3 rows",
        ),
    ],
)
def test_bad_input_gets_a_clear_error(outputs: Tensor, real: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score_distance(outputs, real)


def test_without_scipy_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError) as error:
        score_distance(torch.randn(9), torch.randn(9))
    assert error.value.__notes__ == ["pip install pyro-gan[evaluate]"]
