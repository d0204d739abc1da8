"""The tail guard: smooth, monotone, never above its cap and never flat."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.ratio import TailGuard


class TestTailGuard:
    def test_smooth_at_the_knee(self) -> None:
        guard = TailGuard(3.0).double()
        value = torch.tensor([2 - 1e-6, 2 + 1e-6], dtype=torch.float64, requires_grad=True)
        guarded = guard(value)
        (gradient,) = torch.autograd.grad(guarded.sum(), value)
        assert torch.allclose(guarded, value, atol=1e-11) and torch.allclose(
            gradient, torch.ones(2).double(), atol=1e-5
        )
        assert torch.autograd.gradcheck(guard, torch.linspace(-5, 30, 50, dtype=torch.float64).requires_grad_())

    def test_identity_below_monotone_above_never_over_and_never_flat(self) -> None:
        for cap in (-7.3, 0.1, 3.0, 55.5):
            guard = TailGuard(cap)
            value = torch.cat([torch.linspace(-100, 99, 5001), torch.logspace(2, 9, 50)]).requires_grad_()
            guarded = guard(value)
            below = value <= guard.knee
            assert torch.equal(guarded[below], value[below]) and below.any()
            assert (guarded.diff() >= 0).all() and guarded.max() <= guard.cap
            (gradient,) = torch.autograd.grad(guarded.sum(), value)
            assert (gradient > 0).all() and (gradient <= 1).all()

    def test_off(self) -> None:
        value = torch.tensor([-1e30, 0.0, 1e30, math.inf], requires_grad=True)
        guarded = TailGuard(None)(value)
        assert torch.equal(guarded, value)
        (gradient,) = torch.autograd.grad(guarded[:3].sum(), value)
        assert torch.equal(gradient, torch.tensor([1.0, 1.0, 1.0, 0.0]))

    def test_infinity_is_capped_and_nan_is_passed_on(self) -> None:
        guarded = TailGuard(2.0)(torch.tensor([math.inf, -math.inf, math.nan]))
        assert guarded[0] == 2 and guarded[1] == -math.inf and guarded[2].isnan()

    @pytest.mark.parametrize("cap", [math.inf, math.nan])
    def test_bad_cap(self, cap: float) -> None:
        with pytest.raises(ValueError, match="finite cap"):
            TailGuard(cap)
