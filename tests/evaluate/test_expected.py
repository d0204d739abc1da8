"""Occupancy and expected metrics against enumeration and simulated chains, and with less variance than the latter."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from pyro_gan import toys
from pyro_gan.evaluate import expected, expected_after_steps, occupancy
from tests.statistics import assert_close_in_se, assert_mean


def enumerated(log_weights: list[float]) -> list[float]:
    """The distribution after all steps, summed over every outcome of the accept coins."""
    steps = len(log_weights) - 1
    p = [0.0] * (steps + 1)
    for coins in itertools.product([True, False], repeat=steps):
        at, probability = 0, 1.0
        for step, accepts in enumerate(coins, start=1):
            accept = min(1.0, math.exp(log_weights[step] - log_weights[at]))
            probability *= accept if accepts else 1 - accept
            at = step if accepts else at
        p[at] += probability
    return p


def simulated(log_weights: Tensor) -> Tensor:
    """The proposals at which plain chains are after every step, `(chain, step + 1)`."""
    at = torch.zeros(len(log_weights), dtype=torch.long)
    path = [at]
    for step in range(1, log_weights.shape[1]):
        log_accept = log_weights[:, step] - log_weights.gather(1, at[:, None]).squeeze(1)
        at = torch.where(torch.rand(len(at)).log() < log_accept, step, at)
        path.append(at)
    return torch.stack(path, dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_every_outcome_of_three_coins(dtype: torch.dtype) -> None:
    log_weights = 2 * torch.randn(50, 4, dtype=dtype)
    p = occupancy(log_weights)
    assert p.dtype == torch.float64
    torch.testing.assert_close(p.tolist(), [enumerated(row) for row in log_weights.tolist()])


def test_agrees_with_simulated_chains() -> None:
    steps, chains = 30, 20_000
    log_weights = (1.5 * torch.randn(1, steps + 1)).expand(chains, -1)
    p = occupancy(log_weights[:1])[0]
    ends = torch.bincount(simulated(log_weights)[:, -1], minlength=steps + 1) / chains
    assert_close_in_se(ends, p, (p * (1 - p) / chains).sqrt() + 1 / chains, "shares of chains")
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)


def test_curve_is_the_distribution_times_the_values_and_starts_at_the_start() -> None:
    log_weights, values = torch.randn(7, 12), torch.randn(7, 12, 2, 3)
    found = expected_after_steps(log_weights, values)
    assert found.value.shape == found.standard_error.shape == (12, 2, 3)
    for step in (0, 1, 5, 11):
        p = occupancy(log_weights[:, : step + 1]) if step else torch.ones(7, 1, dtype=torch.float64)
        per_chain = torch.einsum("cj,cjab->cab", p, values[:, : step + 1].double())
        torch.testing.assert_close(found.value[step], per_chain.mean(0))
        torch.testing.assert_close(found.standard_error[step], per_chain.std(0) / math.sqrt(7))


def test_blocks_of_chains_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log_weights, values = torch.randn(23, 9), torch.randn(23, 9, 2) + 1e4
    p, found = occupancy(log_weights), expected_after_steps(log_weights, values)
    for numbers in (1, 60, 200):
        monkeypatch.setattr(expected, "BLOCK_NUMBERS", numbers)
        assert torch.equal(occupancy(log_weights), p)
        torch.testing.assert_close(tuple(expected_after_steps(log_weights, values)), tuple(found))


def test_mean_agrees_with_plain_chains_on_the_same_proposals_with_less_variance() -> None:
    toy, chains, steps = toys.grid(), 4000, 40
    x = toy.prior.sample((chains, steps + 1))
    log_weights, values = toy.log_ratio(x), x[..., 0].double()
    found = expected_after_steps(log_weights, values)
    plain = values.gather(1, simulated(log_weights))
    coins = plain[:, -1] - (occupancy(log_weights) * values).sum(1)
    assert_mean(coins, 0.0, "what the coins add")
    # Integrating the coins out removes their variance, a large part of the whole: the ratio of the errors is 0.75.
    assert float(found.standard_error[-1]) < 0.85 * float(plain[:, -1].std()) / math.sqrt(chains)


def test_chains_that_start_on_target_stay_there() -> None:
    toy, chains, steps = toys.gaussian_shift(auc=0.8), 4000, 20
    start = toy.posterior.sample((chains, 1))
    z = torch.cat([start, toy.prior.sample((chains, steps))], dim=1)
    p = occupancy(toy.log_ratio(z.flatten(0, 1)).reshape(z.shape[:2]))
    assert_mean((p * z.squeeze(-1)).sum(1) - start.squeeze(), 0.0, "drift")
    # The negative control: chains that start at the prior are still moving after one step.
    away = toy.prior.sample((chains, 2))
    p = occupancy(toy.log_ratio(away.flatten(0, 1)).reshape(away.shape[:2]))
    drift = float((p * away.squeeze(-1)).sum(1).mean() - toy.posterior.mean)
    assert abs(drift) > 0.1


def test_share_that_never_moves_from_a_real_data_point_is_predicted() -> None:
    """A sharp ratio and a real start: many chains accept nothing, and column 0 says how many."""
    toy, chains, steps = toys.gaussian_shift(auc=0.98), 2000, 100
    proposals = toy.log_ratio(toy.prior.sample((chains * steps,))).reshape(chains, steps)
    log_weights = torch.cat([toy.log_ratio(toy.sample_data(chains))[:, None], proposals], dim=1)
    expected_share = occupancy(log_weights)[:, 0]
    stuck = (simulated(log_weights)[:, -1] == 0).double()
    assert_mean(stuck - expected_share, 0.0, "never moved")
    assert 0.2 < float(expected_share.mean()) < 0.7


def test_unusable_proposals_are_never_accepted_and_never_read() -> None:
    log_weights, values = torch.randn(6, 5), torch.randn(6, 5)
    bad = log_weights.clone()
    bad[:, 2] = torch.tensor([math.nan, math.inf, -math.inf, math.nan, math.inf, -math.inf])
    without = log_weights[:, [0, 1, 3, 4]]
    p = occupancy(bad)
    assert (p[:, 2] == 0).all()
    torch.testing.assert_close(p[:, [0, 1, 3, 4]], occupancy(without))
    nan_values = values.clone()
    nan_values[:, 2] = math.nan
    found = expected_after_steps(bad, nan_values).value
    torch.testing.assert_close(found[[0, 1, 3, 4]], expected_after_steps(without, values[:, [0, 1, 3, 4]]).value)
    assert found[2] == found[1]


def test_extreme_weights_and_whole_numbers() -> None:
    assert occupancy(torch.tensor([[1e4, -1e4, 2e4]])).tolist() == [[0, 0, 1]]
    assert occupancy(torch.tensor([[5e4, -5e4, -6e4]])).tolist() == [[1, 0, 0]]
    is_good = torch.tensor([[True, False]])
    found = expected_after_steps(torch.tensor([[0, 0]]), is_good)
    assert found.value.tolist() == [1.0, 0.0]
    # One chain gives no error.
    assert found.standard_error.isnan().all()


@pytest.mark.parametrize(
    "log_weights, values, words",
    [
        (torch.randn(5), torch.randn(5), r"\(chain, k \+ 1\).*\(5,\)"),
        (torch.randn(5, 1), torch.randn(5, 1), r"at least one proposal.*\(5, 1\)"),
        (torch.randn(0, 5), torch.randn(0, 5), r"\(0, 5\)"),
        (torch.tensor([[math.nan, 0.0], [0.0, 0.0]]), torch.randn(2, 2), "column 0.*1 of 2"),
        (torch.tensor([[-math.inf, 0.0]]), torch.randn(1, 2), "column 0.*1 of 1"),
        (torch.randn(5, 3), torch.randn(5, 4), r"\(5, 4\)"),
        (torch.randn(5, 3), torch.randn(15), r"\(15,\)"),
        (torch.randn(5, 3), torch.randn(5, 3, 0), r"at least one number.*\(5, 3, 0\)"),
        (torch.zeros(5, 3), torch.full((5, 3), math.nan), "15 of a block's 15"),
    ],
)
def test_bad_input_gets_a_clear_error(log_weights: Tensor, values: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        expected_after_steps(log_weights, values)
    if "block" not in words and values.shape == log_weights.shape:
        with pytest.raises(ValueError, match=words):
            occupancy(log_weights)
