"""The change of moments: its closed form, the rate of its false alarms, and what it refuses."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from pyro_gan.ratio import moment_change
from tests.statistics import assert_close_in_se


def test_gaps_are_those_of_the_formula() -> None:
    """Means apart by d standard deviations have the gap d^2; the exact ratio closes it, its inverse doubles d."""
    d, found = 0.5, []
    for _ in range(30):
        real, generated = torch.randn(1000, 2) * 3 + torch.tensor([3 * d, 0.0]), torch.randn(2000, 2) * 3
        log_ratio = d * generated[:, 0] / 3
        found.append((*(moment_change(real, generated, sign * log_ratio, num_bootstrap=60) for sign in (1, -1)),))
    for index, (after, verdict) in enumerate(((0.0, "better"), ((2 * d) ** 2 / 2, "worse"))):
        records = [each[index] for each in found]
        assert {each.verdict for each in records} == {verdict}
        for name, expected in (("before", d**2 / 2), ("after", after), ("change", after - d**2 / 2)):
            values = torch.tensor([getattr(each, name) for each in records])
            # The unit, a variance over 1000 rows, adds a bias of a few parts in a thousand.
            se = values.std() / math.sqrt(len(values)) + 0.004 * abs(expected)
            assert_close_in_se(values.mean(), expected, se, name)
        # The bootstrap's error is that of repetitions.
        errors = torch.tensor([each.change_se for each in records]).mean()
        assert_close_in_se(errors / torch.tensor([each.change for each in records]).std(), 1.0, 0.15, "error")


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("sigma", [1.0, 1.8])
def test_weights_of_pure_noise_change_nothing(shift: float, sigma: float) -> None:
    """No change is called at three errors: by chance one run in 370, and two of 40 once in 190 tests of these four.

    Three or more are allowed here, which chance reaches once in 12 000 tests.
    """
    verdicts: Counter[str] = Counter()
    for seed in range(40):
        real, generated = torch.randn(500, 10) + shift, torch.randn(1500, 10)
        found = moment_change(real, generated, sigma * torch.randn(1500), num_bootstrap=50, seed=seed)
        verdicts[found.verdict] += 1
    assert verdicts["better"] + verdicts["worse"] <= 2, verdicts
    assert verdicts["no difference that these rows can show"] >= 15


def test_few_effective_draws_are_named() -> None:
    real, generated = torch.randn(500, 2) + 3, torch.randn(2000, 2)
    assert moment_change(real, generated, 3 * generated[:, 0]).verdict == "too few effective draws"


def test_a_rare_cluster_does_not_blow_up_the_error() -> None:
    """A column that is 1 in a single real row: replicates without it, or with several, must not decide."""
    real, generated = torch.randn(500, 2), torch.randn(3000, 2) + 0.5
    real[:, 1] = 0
    real[0, 1] = 1
    generated[:, 1] = (torch.rand(3000) < 0.002).float()
    assert moment_change(real, generated, -0.5 * generated[:, 0]).verdict == "better"


def test_constants_cancel_and_columns_keep_their_names() -> None:
    real, generated = torch.randn(500, 3), torch.randn(1000, 3)
    real[:, 1] = 7
    generated[:, 2] += 1
    found = moment_change(real, generated, torch.zeros(1000))
    again = moment_change(1000 + 2 * real, 1000 + 2 * generated, torch.full((1000,), 50.0))
    assert found.num_columns == 2 and found.worst[0][0] == 2 and {each[0] for each in found.worst} == {0, 2}
    assert abs(found.change) < 1e-12 and found.verdict.startswith("no difference") and "worst columns: 2" in str(found)
    assert again.before == pytest.approx(found.before, rel=1e-6)


def test_it_has_a_generator_of_its_own() -> None:
    real, generated = torch.randn(200, 2), torch.randn(300, 2)
    state = torch.get_rng_state()
    first, again, other = (moment_change(real, generated, generated[:, 0], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert first.change_se == again.change_se != other.change_se and first.change == other.change


@pytest.mark.parametrize(
    ("real", "generated", "log_weights", "options", "message"),
    [
        (torch.randn(9, 2), torch.randn(9, 3), torch.zeros(9), {}, "features of generated rows of shape"),
        (torch.randn(9), torch.randn(9), torch.zeros(9), {}, "features of real rows of shape"),
        (torch.randn(9, 2), torch.randn(9, 2), torch.zeros(8), {}, "log_weights of shape"),
        (torch.randn(9, 2), torch.randn(9, 2), torch.full((9,), math.nan), {}, "NaN"),
        (torch.randn(9, 2), torch.randn(9, 2), torch.full((9,), -math.inf), {}, "above zero"),
        (torch.randn(9, 2) / 0, torch.randn(9, 2), torch.zeros(9), {}, "finite features of real rows"),
        (torch.ones(9, 2), torch.randn(9, 2), torch.zeros(9), {}, "varies over the real rows"),
        (torch.randn(9, 2), torch.randn(9, 2), torch.zeros(9), {"num_bootstrap": 5}, "num_bootstrap"),
    ],
)
def test_what_it_refuses(real: Tensor, generated: Tensor, log_weights: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moment_change(real, generated, log_weights, **options)
