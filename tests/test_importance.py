"""Importance weights against formulas, and Pareto smoothing against distributions of known tail."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pyro_gan.importance import effective_size, has_enough_draws, log_mean_weight, smooth, systematic, weight_tail

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_weight_of_many_sets_is_that_of_each(dtype: torch.dtype) -> None:
    log_w = torch.randn(3, 2, 500, dtype=dtype)
    mean = log_mean_weight(log_w)
    assert all(figure.shape == (3, 2) and figure.dtype == dtype for figure in mean)
    assert effective_size(log_w).dtype == torch.float64
    w = log_w.double().exp()
    close = {"rtol": 1e-5 if dtype == torch.float32 else 1e-12, "atol": 0.0, "check_dtype": False}
    torch.testing.assert_close(mean.value.exp(), w.mean(-1), **close)
    torch.testing.assert_close(mean.standard_error, w.std(-1) / w.mean(-1) / math.sqrt(500), **close)
    torch.testing.assert_close(mean.ess, w.sum(-1).square() / w.square().sum(-1), **close)
    tail = weight_tail(log_w[2, 1])
    for ours, theirs in zip(mean, (tail.log_mean_weight, tail.log_mean_weight_se, tail.ess), strict=True):
        assert float(ours[2, 1]) == pytest.approx(theirs, rel=close["rtol"], abs=1e-6)


def test_the_mean_weight_is_differentiable() -> None:
    log_w = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    mean = log_mean_weight(log_w)
    assert not mean.standard_error.requires_grad and not mean.ess.requires_grad
    (gradient,) = torch.autograd.grad(mean.value.sum(), log_w)
    torch.testing.assert_close(gradient, log_w.softmax(-1))


def test_the_mean_weight_of_one_draw_of_none_and_far_away() -> None:
    """Single precision holds no square of exp(-1000); zero weights leave no effective draw."""
    inf = math.inf
    mean = log_mean_weight(torch.tensor([[-inf, -inf], [0.0, -inf], [-1000.0, -1000.0]]))
    assert mean.value.tolist() == pytest.approx([-inf, -math.log(2), -1000])
    assert mean.ess.tolist() == pytest.approx([0, 1, 2])
    assert mean.standard_error.tolist() == pytest.approx([inf, 1, 0], abs=1e-6)
    one = log_mean_weight(torch.tensor([-3.0]))
    assert float(one.value) == -3 and float(one.ess) == 1 and math.isnan(one.standard_error)


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
        (torch.zeros(1000), -math.inf),  # no tail
        (torch.cat([torch.zeros(997), torch.tensor([50.0, 60.0, 70.0])]), math.inf),  # three draws are all there is
        (torch.cat([torch.full((990,), -math.inf), torch.zeros(10)]), math.inf),
    ],
)
def test_no_tail_to_fit(log_w: torch.Tensor, k: float) -> None:
    smoothed, found = smooth(log_w)
    assert torch.equal(smoothed, log_w)
    assert found == k
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


def installed_psis() -> Callable[[Any], tuple[Any, Any]]:
    """Return the installed ArviZ's PSIS, of log weights."""
    try:
        from arviz_stats.base import array_stats
    except ImportError:
        import arviz

        return arviz.psislw
    return lambda log_w: array_stats.psislw(-log_w)


@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_of_arviz_give_the_same(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PSIS takes log weights in ArviZ 0; in ArviZ 1 it takes log likelihoods (the sign is turned) and normalises."""
    psis, calls = installed_psis(), []

    def fake(values: Any) -> tuple[Any, Any]:
        calls.append(version)
        smoothed, k = psis(-values if version else values)
        return smoothed - (np.logaddexp.reduce(smoothed) if version else 0), k

    log_w = torch.randn(5000, dtype=torch.float64) * 2
    expected, k = smooth(log_w)
    old, new = types.ModuleType("arviz"), types.ModuleType("arviz_stats.base")
    old.psislw, new.array_stats = fake, types.SimpleNamespace(psislw=fake)
    monkeypatch.setitem(sys.modules, "arviz", old)
    monkeypatch.setitem(sys.modules, "arviz_stats", types.ModuleType("arviz_stats"))
    monkeypatch.setitem(sys.modules, "arviz_stats.base", new if version else None)
    smoothed, again = smooth(log_w)
    assert calls == [version] and again == pytest.approx(k)
    assert torch.allclose(smoothed, expected)


@pytest.mark.parametrize("spread", [1e3, 1e4, 1e6])
def test_weights_that_span_thousands_of_nats_are_bad_and_never_nan(spread: float) -> None:
    log_w = spread * torch.randn(2000, dtype=torch.float64)
    smoothed, k = smooth(log_w)
    assert k > 0.7 and weight_tail(log_w).pareto_k == k
    assert not smoothed.isnan().any() and smoothed.max() <= log_w.max()


def test_a_fit_that_fails_counts_as_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_gan.importance.tail._psis", lambda log_w: (log_w, math.nan))
    log_w = torch.randn(1000)
    assert weight_tail(log_w).pareto_k == math.inf
    assert torch.equal(smooth(log_w)[0], log_w)


@pytest.mark.parametrize(
    ("log_w", "message"),
    [
        (None, "torch.Tensor; got None"),
        ([0.0, 1.0], "torch.Tensor; got"),
        (torch.tensor([0.0, math.nan]), "NaN"),
        (torch.tensor([0.0, math.inf]), r"\+inf"),
        (torch.full((3,), -math.inf), "all -inf"),
        (torch.empty(0), r"at least one row; got \(0,\)"),
        (torch.zeros(3, 2), r"\(3, 2\)"),
    ],
)
def test_bad_weights_raise(log_w: torch.Tensor, message: str) -> None:
    for function in (weight_tail, smooth, lambda values: systematic(values, 3)):
        with pytest.raises(ValueError, match=message):
            function(log_w)


@pytest.mark.parametrize("value", [0, -1, 2.5, math.nan, None, "3"])
def test_a_number_of_outputs_is_a_count(value: object) -> None:
    with pytest.raises(ValueError, match="num_outputs"):
        systematic(torch.zeros(5), value)


@pytest.mark.parametrize(
    ("log_w", "message"), [(None, "torch.Tensor"), ("x", "torch.Tensor"), (torch.tensor(1.0), "draw")]
)
def test_no_weights_at_all_raise(log_w: object, message: str) -> None:
    for function in (effective_size, log_mean_weight):
        with pytest.raises(ValueError, match=message):
            function(log_w)
    with pytest.raises(ValueError, match="at least one draw"):
        log_mean_weight(torch.zeros(3, 0))


def test_tied_weights_come_back_whole() -> None:
    tied = torch.full((100_000,), -1.0)
    tied[:5000] = 1.5
    tied[:100] = 2.0
    smoothed, _ = smooth(tied)
    assert torch.isfinite(smoothed).all()


def test_complaints_of_a_heavy_tail_and_none_of_a_bounded_one() -> None:
    """The fit of a tail whose largest weight is 1.6 times the mean may give any shape: no draw of it does any harm."""
    heavy = weight_tail(-0.9 * torch.rand(100_000, dtype=torch.float64).log())
    assert any("Pareto k" in text for text in heavy.complaints)
    few = torch.rand(100_000, dtype=torch.float64) < 0.01
    rough, fine = torch.rand(2, 100_000, dtype=torch.float64)
    bounded = weight_tail(torch.where(few, 1 + 0.6 * rough**8, 1 + 0.01 * fine**30).log())
    assert bounded.pareto_k > 0.7 and bounded.ess_fraction > 0.99 and not bounded.complaints
    # The share that one draw may carry is 100 times the mean where draws are few.
    assert not weight_tail(torch.randn(10_000) - 0.5).complaints


@pytest.mark.parametrize("field", ["ess_fraction", "largest_weight_share", "pareto_k"])
def test_a_figure_that_is_nan_is_bad(field: str) -> None:
    good = weight_tail(torch.randn(10_000) / 2)
    assert not good.complaints and len(good._replace(**{field: math.nan}).complaints) >= 1


def test_a_mean_needs_a_hundred_effective_draws_and_no_ten_with_half_the_weight() -> None:
    assert has_enough_draws(torch.zeros(100)) and not has_enough_draws(torch.zeros(99))
    heavy = torch.zeros(100_000)
    heavy[:10] = math.log(10_000.0)
    assert weight_tail(heavy).ess > 10 and has_enough_draws(heavy[10:]) and not has_enough_draws(heavy)
    assert not has_enough_draws(torch.full((200,), -math.inf))
