"""Three sets compared: what the judges say of known differences, of none, of correlated chains and of copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import pyro_gan
from pyro_gan.evaluate import Comparison, compare, frechet_distance
from pyro_gan.evaluate._sides import make_sides
from tests.statistics import FALSE_ALARM, NUM_SE, assert_mean

JUDGES = Comparison._fields[: Comparison._fields.index("verdict")]


def judged(before: Tensor, after: Tensor, real: Tensor, **settings: object) -> Comparison:
    """Compare rows as they are, with a quick classifier."""
    return compare(before, after, real, features=torch.clone, classifier=LogisticRegression(), **settings)


def chains(num_chains: int, num_draws: int, dim: int, tau: float = 50.0) -> tuple[Tensor, Tensor]:
    """Draws of N(0, I) in chains of an autocorrelation time, and the number of each row's chain."""
    keep = (tau - 1) / (tau + 1)
    x = [torch.randn(num_chains, dim)]
    for _ in range(num_draws - 1):
        x.append(keep * x[-1] + math.sqrt(1 - keep**2) * torch.randn(num_chains, dim))
    return torch.stack(x, dim=1).flatten(0, 1), torch.arange(num_chains).repeat_interleave(num_draws)


def test_better_worse_and_mixed() -> None:
    real, good, off = torch.randn(600, 2), torch.randn(600, 2), torch.randn(600, 2) + 1.0
    better, worse = judged(off, good, real), judged(good, off, real)
    assert better.verdict == "better" and worse.verdict == "worse"
    for name in ("frechet_distance", "kernel_distance", "residual_auc", "coverage", "balance"):
        assert getattr(better, name).verdict == "better" and getattr(worse, name).verdict == "worse"
    good, narrow, real = torch.randn(400, 10), 0.5 * torch.randn(400, 10), torch.randn(400, 10)
    mixed = judged(good, narrow, real)
    assert mixed.verdict == "mixed" and mixed.precision.verdict == "better" and mixed.recall.verdict == "worse"


def test_difference_is_that_of_the_figures() -> None:
    """For independent rows, within an error that counts the halves; and of the known Frechet distance."""
    before, after, real = torch.randn(800, 3) + 0.8, 1.4 * torch.randn(800, 3), torch.randn(800, 3)
    found = judged(before, after, real)
    for name in JUDGES:
        one = getattr(found, name)
        assert one.difference == pytest.approx(one.after - one.before, abs=3 * one.standard_error), name
    assert found.frechet_distance.before == pytest.approx(frechet_distance(before, real))
    true = 3 * 0.4**2 - 3 * 0.8**2
    assert abs(found.frechet_distance.difference - true) < NUM_SE * found.frechet_distance.standard_error


def test_one_distribution_in_chains_shows_no_difference_on_average() -> None:
    """At an autocorrelation time of 50 the figures themselves are biased, which is the negative control."""
    differences, figures, alarms, count = [], [], 0, 30
    for seed in range(count):
        after, blocks = chains(20, 25, 2)
        found = judged(torch.randn(500, 2), after, torch.randn(300, 2) + 0.5, blocks_after=blocks, seed=seed)
        alarms += found.verdict != "no difference"
        differences.append([getattr(found, name).difference for name in JUDGES])
        figures.append(found.coverage.after - found.coverage.before)
    assert_mean(torch.tensor(differences, dtype=torch.float64), torch.zeros(len(JUDGES)), "differences")
    assert binom.sf(alarms - 1, count, 0.05) > FALSE_ALARM
    assert np.mean(figures) < -NUM_SE * np.std(figures) / math.sqrt(count)


def test_rows_of_chains_taken_for_blocks_give_false_alarms() -> None:
    """The negative control of the blocks: each row of a chain counted as independent."""
    alarms = 0
    for seed in range(10):
        after, _ = chains(20, 25, 2)
        alarms += judged(torch.randn(500, 2), after, torch.randn(300, 2) + 0.5, seed=seed).verdict != "no difference"
    assert alarms >= 5


def test_copies_are_counted_and_make_one_block() -> None:
    before, real = torch.randn(300, 2), torch.randn(300, 2)
    index = torch.arange(100).repeat_interleave(3)
    found = judged(before, torch.randn(100, 2)[index], real)
    assert found.num_copies == (0, 200) and found.num_blocks == (300, 100) and found.num_rows == 300
    shared = make_sides(before, before[index], 300, blocks_before=None, blocks_after=None, seed=0)
    # Equal rows of both sides lie in one block, and so in one fold.
    assert len(np.unique(shared.block)) == 300 and (shared.fold[300:] == shared.fold[index.numpy()]).all()
    # What the two sides share cancels: rows in another order differ in nothing.
    same = judged(before, before.flip(0), real)
    assert same.c2st.difference == pytest.approx(0.0, abs=1e-12) == same.c2st.standard_error
    assert same.verdict == "no difference" and found.c2st.standard_error > 0.01


def test_the_larger_side_is_cut_by_whole_blocks() -> None:
    blocks = torch.arange(30).repeat_interleave(20)
    sides = make_sides(torch.randn(205, 2), torch.randn(600, 2), 100, blocks_before=None, blocks_after=blocks, seed=0)
    sizes = torch.bincount(blocks[torch.from_numpy(sides.kept[1])])
    assert int(sizes.sum()) == 205 and sorted(sizes[sizes > 0].tolist()) == [5] + 10 * [20]
    for side in (0, 1):
        # Whole blocks in either fold, and about as many rows.
        folds = [set(sides.block[sides.of(side, fold)]) for fold in (0, 1)]
        assert not folds[0] & folds[1] and abs(sides.of(side, 0).sum() - sides.of(side, 1).sum()) <= 25


def test_default_features_and_the_table() -> None:
    before, after, real = torch.randn(200, 1, 4, 4) + 1, torch.randn(150, 1, 4, 4), torch.randn(200, 1, 4, 4)
    state = torch.get_rng_state()
    found = compare(before, after, real, classifier=LogisticRegression())
    assert torch.equal(state, torch.get_rng_state()) and found.verdict == "better"
    assert found == compare(before, after, real, classifier=LogisticRegression())
    table = str(found)
    assert "before: 150 rows in 150 blocks, 0 copies" in table and table.endswith("verdict: better")
    assert "no difference that 150 rows can show" in str(compare(after, after, real, classifier=LogisticRegression()))


def test_far_and_singular_features() -> None:
    """Constant, doubled and few-valued features, and data far from 0, give figures that are finite."""

    def singular(x: Tensor) -> Tensor:
        return torch.cat([x, x, torch.ones(len(x), 2), (x > 0).double()], dim=1) + 1e4

    sets = [torch.randn(150, 2, dtype=torch.float64) + shift for shift in (1.0, 0.0, 0.0)]
    found = compare(*sets, features=singular, classifier=LogisticRegression())
    for name in JUDGES:
        assert all(math.isfinite(value) for value in getattr(found, name)[:5]), name
    assert found.frechet_distance.verdict == "better"


def test_classes_of_the_user() -> None:
    before, after, real = torch.rand(400, 1), torch.rand(400, 1).square(), torch.rand(400, 1)
    found = judged(before, after, real, classes=lambda x: (4 * x[:, 0]).long())
    assert found.balance.verdict == "worse"
    # Shares of rows below 1/4 and so on are 1/2, .207, .159, .134.
    assert abs(found.balance.after - 0.25) < 0.12
    with pytest.raises(ValueError, match=r"Pass lambda x: classifier\(x\).argmax\(1\)"):
        judged(before, after, real, classes=lambda x: x)


def test_evaluate_is_found_after_a_plain_import() -> None:
    assert pyro_gan.evaluate.compare is compare


def test_wrong_arguments() -> None:
    x, real = torch.randn(200, 2), torch.randn(200, 2)
    with pytest.raises(ValueError, match="at least 8 independent blocks in after"):
        judged(x, x, real, blocks_after=torch.arange(4).repeat_interleave(50))
    with pytest.raises(ValueError, match="blocks_after as whole numbers"):
        judged(x, x, real, blocks_after=torch.rand(200))
    with pytest.raises(ValueError, match=r"blocks_before of shape \(200,\)"):
        judged(x, x, real, blocks_before=torch.arange(199))
    with pytest.raises(ValueError, match="real of shape .* with at least 100 rows"):
        judged(x, x, real[:99])
