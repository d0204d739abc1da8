"""False alarms of `compare`: many comparisons of a generator with itself, for independent rows, chains and copies."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pyro_gan.evaluate import Comparison, compare
from pyro_gan.importance import systematic
from tests.numbers.size import FULL
from tests.statistics import FALSE_ALARM

pytestmark = pytest.mark.numbers

COUNT, DIM, NUM_REAL = 200 if FULL else 40, 4, 400
JUDGES = Comparison._fields[: Comparison._fields.index("verdict")]


def independent() -> tuple[Tensor, None]:
    return torch.randn(500, DIM), None


def chains(num_chains: int, num_draws: int) -> tuple[Tensor, Tensor]:
    """Stationary chains of N(0, I) with an autocorrelation time of 50."""
    keep = 49 / 51
    x = [torch.randn(num_chains, DIM)]
    for _ in range(num_draws - 1):
        x.append(keep * x[-1] + math.sqrt(1 - keep**2) * torch.randn(num_chains, DIM))
    return torch.stack(x, dim=1).flatten(0, 1), torch.arange(num_chains).repeat_interleave(num_draws)


def resampled() -> tuple[Tensor, None]:
    """Copies by weights that are noise: a third of the draws is left."""
    return torch.randn(500, DIM)[systematic(torch.randn(500), 500)], None


SAMPLERS: dict[str, Callable[[], tuple[Tensor, Tensor | None]]] = {
    "independent": independent,
    "20 chains of 25": lambda: chains(20, 25),
    "10 chains of 100": lambda: chains(10, 100),
    "100 chains of 10": lambda: chains(100, 10),
    "resampled": resampled,
}


@pytest.mark.parametrize("shift", [0.0, 0.5], ids=["G is the data", "G is not"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_generator_is_no_better_and_no_worse_than_itself(
    name: str, shift: float, figure: Callable[..., None]
) -> None:
    """Any of nine judges says so in at most 5 % of all comparisons; each alone is counted beyond two errors."""
    alarms, beyond = 0, dict.fromkeys(JUDGES, 0)
    for seed in range(COUNT):
        after, blocks = SAMPLERS[name]()
        found = compare(
            torch.randn(len(after), DIM),
            after,
            torch.randn(NUM_REAL, DIM) + shift,
            features=torch.clone,
            blocks_after=blocks,
            classifier=LogisticRegression(),
            seed=seed,
        )
        alarms += found.verdict != "no difference"
        for judge in JUDGES:
            one = getattr(found, judge)
            beyond[judge] += abs(one.difference) > 2 * one.standard_error
    shares = {judge: number / COUNT for judge, number in beyond.items()}
    figure("compare", sampler=name, shift=shift, false_alarms=alarms / COUNT, **shares)
    assert alarms <= 0.05 * COUNT or (not FULL and binom.sf(alarms - 1, COUNT, 0.05) > FALSE_ALARM)
    for judge, number in beyond.items():
        # Student's distribution with the degrees of freedom of ten chains is beyond 2 in 8 % of cases.
        assert binom.sf(number - 1, COUNT, 0.08) > FALSE_ALARM, f"{judge}: {number} of {COUNT} beyond two errors"
