"""Importance weights against formulas on paper, and Pareto smoothing against laws of known tail."""

from __future__ import annotations

import math
import sys
import types

import arviz
import pytest
import torch

from pyro_gan.importance import smooth, weight_tail

Z = 4.4  # standard errors: one false alarm in 1e5


def test_kong_by_hand() -> None:
    tail = weight_tail(torch.tensor([3.0, 1.0, 1.0, 1.0]).log())
    assert tail.num_draws == 4
    assert tail.ess == pytest.approx(36 / 12)
    assert tail.ess_fraction == pytest.approx(0.75)
    assert tail.largest_weight_share == pytest.approx(0.5)
    assert tail.log_mean_weight == pytest.approx(math.log(6 / 4))
    assert tail.log_mean_weight_se == pytest.approx(1.0 / math.sqrt(4) / 1.5)  # sd 1, mean 1.5


def test_formulas_on_many_weights() -> None:
    w = torch.randn(2000, dtype=torch.float64).exp()
    tail = weight_tail(w.log())
    assert tail.ess == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
    assert tail.log_mean_weight == pytest.approx(float(w.mean().log()))
    assert tail.log_mean_weight_se == pytest.approx(float(w.std() / w.mean()) / math.sqrt(2000))


def test_log_normal_ess_in_a_million_draws() -> None:
    """E[w]^2 / E[w^2] = exp(-s^2), with the delta method's standard error."""
    log_w = 0.5 * torch.randn(1_000_000)
    ratio = log_w.double().exp() / math.exp(0.125)
    se = float((2 * ratio - ratio.square() * math.exp(-0.25)).std()) * math.exp(-0.25) / 1000
    tail = weight_tail(log_w)
    assert abs(tail.ess_fraction - math.exp(-0.25)) < Z * se
    assert abs(tail.log_mean_weight - 0.125) < Z * tail.log_mean_weight_se


def test_a_constant_moves_the_mean_alone() -> None:
    log_w = torch.randn(500, dtype=torch.float64)
    low, high = weight_tail(log_w), weight_tail(log_w + 5000)
    assert high.log_mean_weight == pytest.approx(low.log_mean_weight + 5000)
    for name in ("ess", "largest_weight_share", "pareto_k", "log_mean_weight_se"):
        assert getattr(high, name) == pytest.approx(getattr(low, name))


def test_minus_infinity_is_a_weight_of_zero() -> None:
    log_w = torch.randn(500, dtype=torch.float64)
    padded = torch.cat([torch.full((500,), -math.inf), log_w])
    bare, tail = weight_tail(log_w), weight_tail(padded)
    assert tail.ess == pytest.approx(bare.ess) and tail.ess_fraction == pytest.approx(bare.ess_fraction / 2)
    assert tail.pareto_k == pytest.approx(bare.pareto_k)
    assert tail.log_mean_weight == pytest.approx(bare.log_mean_weight - math.log(2))
    smoothed, _ = smooth(padded)
    assert torch.isneginf(smoothed[:500]).all() and torch.equal(smoothed[500:], smooth(log_w)[0])


@pytest.mark.parametrize("k", [0.3, 0.7, 1.0])
def test_pareto_k_of_a_pareto_law(k: float) -> None:
    """w = U^-k has shape k; the fit to m tail draws has standard error (1 + k) / sqrt(m), and a weak pull to .5."""
    log_w = k * torch.distributions.Exponential(1.0).sample((100_000,))
    m = 3 * math.sqrt(100_000)
    assert abs(weight_tail(log_w).pareto_k - k) < Z * (1 + k) / math.sqrt(m) + 10 / m


def test_smoothing_touches_the_tail_alone() -> None:
    log_w = 2 * torch.randn(10_000, dtype=torch.float64) + 700
    smoothed, k = smooth(log_w)
    changed = (smoothed - log_w).abs() > 1e-9
    assert 200 <= changed.sum() <= 301  # 3 sqrt(n)
    assert log_w[changed].min() >= log_w.sort().values[-302]
    assert smoothed.max() <= log_w.max()
    assert (smoothed[log_w.argsort()].diff() >= 0).all()  # the order stays, but for ties at the largest
    assert k == weight_tail(log_w).pareto_k


def test_smoothing_keeps_dtype_and_drops_the_gradient() -> None:
    log_w = torch.randn(100).requires_grad_()
    smoothed, _ = smooth(log_w)
    assert smoothed.dtype == torch.float32 and not smoothed.requires_grad
    assert weight_tail(log_w).num_draws == 100


@pytest.mark.parametrize(
    ("log_w", "k"),
    [
        (torch.zeros(1), math.inf),  # nothing to tell by
        (torch.randn(24), math.inf),
        (torch.zeros(1000), math.nan),  # no tail
        (
            torch.cat([torch.zeros(997), torch.tensor([50.0, 60.0, 70.0])]),
            math.inf,
        ),  # three draws are all there is
        (torch.cat([torch.full((990,), -math.inf), torch.zeros(10)]), math.inf),
    ],
)
def test_no_tail_to_fit(log_w: torch.Tensor, k: float) -> None:
    smoothed, found = smooth(log_w)
    assert torch.equal(smoothed, log_w)
    assert found == k or (math.isnan(k) and math.isnan(found))
    assert math.isfinite(weight_tail(log_w).ess)


def test_single_and_equal_weights() -> None:
    one = weight_tail(torch.tensor([-3.0]))
    assert one.ess == one.largest_weight_share == 1 and math.isnan(one.log_mean_weight_se)
    equal = weight_tail(torch.full((1000,), 0.1))
    assert (
        equal.ess == pytest.approx(1000)
        and equal.ess_fraction <= 1
        and equal.log_mean_weight_se == pytest.approx(0, abs=1e-6)
    )


def test_arviz_1_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its PSIS takes log likelihoods (the sign is turned) and normalises."""

    class Stats:
        calls = 0

        def psislw(self, ary: object) -> object:
            Stats.calls += 1
            return arviz.psislw(-ary, normalize=True)

    log_w = torch.randn(5000, dtype=torch.float64) * 2
    expected, k = smooth(log_w)
    base = types.ModuleType("arviz_stats.base")
    base.array_stats = Stats()
    monkeypatch.setitem(sys.modules, "arviz_stats", types.ModuleType("arviz_stats"))
    monkeypatch.setitem(sys.modules, "arviz_stats.base", base)
    smoothed, k_1 = smooth(log_w)
    assert Stats.calls == 1 and k_1 == pytest.approx(k)
    assert torch.allclose(smoothed, expected)


@pytest.mark.parametrize(
    ("log_w", "message"),
    [
        (torch.tensor([0.0, math.nan]), "NaN"),
        (torch.tensor([0.0, math.inf]), r"\+inf"),
        (torch.full((3,), -math.inf), "all -inf"),
        (torch.empty(0), r"\(draw,\)"),
        (torch.zeros(3, 2), r"\(3, 2\)"),
    ],
)
def test_bad_weights_raise(log_w: torch.Tensor, message: str) -> None:
    for function in (weight_tail, smooth):
        with pytest.raises(ValueError, match=message):
            function(log_w)


def test_tied_weights_come_back_whole() -> None:
    tied = torch.full((100_000,), -1.0)
    tied[:5000] = 1.5
    tied[:100] = 2.0
    smoothed, _ = smooth(tied)
    assert torch.isfinite(smoothed).all()
