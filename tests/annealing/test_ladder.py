"""Ladders rise from 0 to 1, the next rung keeps the effective size, and a mean weight has its standard error."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.annealing import AIS, geometric, linear, log_normaliser, next_beta, sigmoid
from pyro_gan.importance import weight_tail
from tests.annealing.models import affine
from tests.statistics import assert_close_in_se

LADDERS = {"linear": linear, "sigmoid": sigmoid, "geometric": geometric}


@pytest.mark.parametrize("num_rungs", [1, 2, 3, 100])
@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_rises_from_0_to_1(name: str, num_rungs: int) -> None:
    betas = LADDERS[name](num_rungs)
    assert len(betas) == num_rungs + 1 and betas[0] == 0 and betas[-1] == 1
    assert all(low < high for low, high in zip(betas, betas[1:], strict=False))


def test_the_sigmoid_ladder_is_its_formula() -> None:
    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    num_rungs, delta = 7, 4.0
    for rung, beta in enumerate(sigmoid(num_rungs, sharpness=delta)):
        expected = sigma(delta * (2 * rung / num_rungs - 1)) - sigma(-delta)
        assert beta == pytest.approx(expected / (sigma(delta) - sigma(-delta)))
    assert sigmoid(9, sharpness=1e-6) == pytest.approx(linear(9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear(0), "num_rungs of at least 1; got 0"),
        (lambda: sigmoid(5, sharpness=0.0), "positive, finite sharpness; got 0.0"),
        (lambda: geometric(5, first=1.0), r"first in \(0, 1\); got 1.0"),
        (lambda: AIS(affine(), (0.0, 0.5)), r"rises from 0 .* to 1 .*; got \(0.0, 0.5\)"),
        (lambda: AIS(affine(), (1.0,)), "rises from 0"),
        (lambda: AIS(affine(), (0.0, 0.5, 0.5, 1.0)), "rises from 0"),
        (lambda: AIS(affine(), tuple(range(9))), "got 9 powers"),
    ],
)
def test_bad_ladders_raise(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("min_ess", [100.0, 500.0, 900.0])
def test_the_next_rung_keeps_the_effective_size(min_ess: float) -> None:
    log_weight, log_share = 5 * torch.randn(2, 1000, dtype=torch.float64)
    log_share = log_share / 20
    beta = next_beta(log_weight, log_share, beta=0.2, min_ess=min_ess)
    assert 0.2 < beta < 1
    assert weight_tail(log_share + (beta - 0.2) * log_weight).ess == pytest.approx(min_ess, rel=1e-6)


def test_a_flat_weight_goes_to_1_at_once_and_dead_particles_do_not_stop_the_ladder() -> None:
    flat = torch.zeros(100)
    assert next_beta(flat, flat, beta=0.3, min_ess=99.0) == 1.0
    # There are fewer particles above zero than `min_ess`: nearly all of them are kept.
    log_weight = torch.full((1000,), -math.inf, dtype=torch.float64)
    log_weight[:100] = 5 * torch.randn(100, dtype=torch.float64)
    beta = next_beta(log_weight, torch.zeros(1000), beta=0.0, min_ess=500.0)
    assert 0 < beta < 1
    assert weight_tail(beta * log_weight).ess == pytest.approx(99.0, rel=1e-6)


def test_the_log_normaliser_agrees_with_the_weights_own_report() -> None:
    log_weights = torch.randn(5, 1000, dtype=torch.float64)
    estimate = log_normaliser(log_weights)
    for row, tail in enumerate(map(weight_tail, log_weights)):
        assert float(estimate.value[row]) == pytest.approx(tail.log_mean_weight)
        assert float(estimate.standard_error[row]) == pytest.approx(tail.log_mean_weight_se)
        assert float(estimate.ess[row]) == pytest.approx(tail.ess)
    assert (estimate.num_zero == 0).all()


def test_error_and_bias_are_those_of_repeats() -> None:
    # exp(N(0, 1)) has mean exp(1/2).
    num_repeats = 20_000
    estimate = log_normaliser(torch.randn(num_repeats, 100, dtype=torch.float64))
    error = estimate.value - 0.5
    assert float(estimate.standard_error.mean()) == pytest.approx(float(error.std()), rel=0.07)
    se = error.std() / math.sqrt(num_repeats)
    # The bias is known to first order only; without it the error would be large.
    assert (error - estimate.bias).mean().abs() < 0.25 * error.mean().abs()
    with pytest.raises(AssertionError, match="standard errors"):
        assert_close_in_se(error.mean(), 0.0, se, "a log without its bias")


def test_nan_and_infinity_count_as_zero() -> None:
    log_weights = torch.tensor([[0.0, math.nan, math.inf, -math.inf], [-math.inf] * 4])
    estimate = log_normaliser(log_weights)
    assert float(estimate.value[0]) == pytest.approx(-math.log(4))
    assert estimate.num_zero.tolist() == [3, 4] and estimate.ess.tolist() == [1, 0]
    assert float(estimate.value[1]) == -math.inf and estimate.standard_error[1].isnan()
    with pytest.raises(ValueError, match=r"at least one draw; got .*\(3, 0\)"):
        log_normaliser(torch.zeros(3, 0))
