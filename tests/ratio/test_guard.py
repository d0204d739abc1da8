"""The tail guard: smooth, monotone, never above its cap and never flat; and where it begins to bend."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_gan.ratio import CalibratedLogRatio, Isotonic, TailGuard, calibrate
from pyro_gan.ratio._knee import contradicted_from

SEEDS = range(20)
GRID = torch.linspace(-8, 12, 4001, dtype=torch.float64)


def normal(mean: float, sd: float = 1.0) -> Tensor:
    """Return the probabilities of the grid's points under N(mean, sd^2)."""
    return torch.softmax(-0.5 * ((GRID - mean) / sd).square(), 0)


def critic_of(shift: float) -> Callable[[Tensor], Tensor]:
    """Return the exact log ratio of N(shift, 1) to N(0, 1)."""
    return lambda x: (shift * x - shift**2 / 2).reshape(-1)


def rows_of(number: int, shift: float, seed: int, *, junk: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return real rows of N(shift, 1), and generated ones of N(0, 1) with a share of junk from N(6, .3^2)."""
    generator = torch.Generator().manual_seed(seed)
    real, generated, far = torch.randn(3, number, 1, generator=generator, dtype=torch.float64)
    is_junk = torch.rand(number, 1, generator=generator) < junk
    return real + shift, torch.where(is_junk, 6 + 0.3 * far, generated)


def target(log_ratio: CalibratedLogRatio, generated: Tensor, guard: TailGuard | None = None) -> Tensor:
    """Return the grid's probabilities under what an exact sampler draws, p_G r."""
    value = log_ratio.calibrator(log_ratio.critic(GRID[:, None]))
    return torch.softmax(generated.log() + (guard or log_ratio.guard)(value).detach(), 0)


def tv(a: Tensor, b: Tensor) -> float:
    """Return the total variation of two sets of probabilities."""
    return float((a - b).abs().sum()) / 2


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


class TestKnee:
    """Where `calibrate` lets the guard bend: means of 20 sets of rows, targets by quadrature, no sampler."""

    @pytest.mark.parametrize(
        ("number", "shift", "limit"), [(3000, 1.5, 0.02), (3000, 3.0, 0.02), (600, 1.5, 0.03), (600, 4.0, 0.03)]
    )
    def test_an_exact_critic_keeps_its_ratio(self, number: int, shift: float, limit: float) -> None:
        """A knee that twenty generated rows reach, which they cannot where a critic separates well, costs .05 to .6."""
        cost, old_cost, loss = torch.zeros(3, dtype=torch.float64)
        for seed in SEEDS:
            real, generated = rows_of(number, shift, seed)
            log_ratio = calibrate(critic_of(shift), real, generated, seed=seed)
            free = tv(target(log_ratio, normal(0), TailGuard(None)), normal(shift))
            cost += tv(target(log_ratio, normal(0)), normal(shift)) - free
            of_generated = log_ratio.calibrator(critic_of(shift)(generated[: number // 2])).detach()
            old = TailGuard(float(of_generated.topk(20).values[-1]) + 1).double()
            old_cost += tv(target(log_ratio, normal(0), old), normal(shift)) - free
            assert log_ratio.report is not None
            loss += log_ratio.report.guard_loss
        assert cost / len(SEEDS) < limit / 4 < limit < old_cost / len(SEEDS)
        assert loss / len(SEEDS) < 1e-4

    @pytest.mark.parametrize("number", [600, 3000])
    def test_junk_that_the_critic_takes_for_data_is_held_down(self, number: int) -> None:
        """2 % of the generated rows lie where the critic is surest. Without a guard they are most of the target."""
        p_generated = 0.98 * normal(0) + 0.02 * normal(6, 0.3)
        on, off = torch.zeros(2, dtype=torch.float64)
        for seed in SEEDS:
            real, generated = rows_of(number, 1.5, seed, junk=0.02)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a guard that bends a tenth of the real rows
                log_ratio = calibrate(critic_of(1.5), real, generated, seed=seed)
            on += target(log_ratio, p_generated)[GRID > 4.5].sum()
            off += target(log_ratio, p_generated, TailGuard(None))[GRID > 4.5].sum()
        assert on / len(SEEDS) < 0.35 and off / len(SEEDS) > 0.8

    def test_an_exact_ratio_is_seldom_contradicted(self) -> None:
        """In about 1 of 200 sets of rows. More than 8 of 100 would be an accident of 1 in 1e6 at a rate of 1 %."""
        found = 0
        for seed in range(100):
            real, generated = (critic_of(2.0)(part) for part in rows_of(300, 2.0, seed))
            found += contradicted_from(real, generated) is not None
        assert found <= 8

    def test_a_staircase_is_held_down_where_it_rests_on_its_last_step(self) -> None:
        real, generated = rows_of(5000, 1.5, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log_ratio = calibrate(critic_of(1.5), real, generated, method=Isotonic())
        free, held = (tv(target(log_ratio, normal(0), guard), normal(1.5)) for guard in (TailGuard(None), None))
        assert held < 0.1 < free / 2

    def test_what_the_guard_does_is_said(self) -> None:
        real, generated = rows_of(3000, 1.5, 0, junk=0.02)
        with pytest.warns(UserWarning, match=r"bends the log ratio of [123]\d% of the held-out real rows"):
            log_ratio = calibrate(critic_of(1.5), real, generated)
        assert log_ratio.report is not None and log_ratio.report.guard_loss < -0.01
        clean, _ = rows_of(3000, 1.5, 1)
        with pytest.warns(UserWarning, match=r"raises the held-out log loss by 0\.\d+, more than its error"):
            calibrate(critic_of(1.5), clean, generated[generated < 4][:, None], max_log_ratio=1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            calibrate(critic_of(1.5), clean, generated[generated < 4][:, None])
