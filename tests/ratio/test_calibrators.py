"""Calibration of critics whose exact ratio is known, its warnings, and bad input."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_gan import toys
from pyro_gan._networks import frozen_twin
from pyro_gan.objectives import Bernoulli
from pyro_gan.ratio import (
    Beta,
    CalibratedLogRatio,
    CalibrationReport,
    LogRatio,
    MonotoneSpline,
    Platt,
    Temperature,
    calibrate,
)
from pyro_gan.ratio._holdout import disjoint_parts

Z = 4.4  # standard errors: one false alarm in 1e5


def scores(number: int = 160_000, *, auc: float = 0.8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Real and generated data that are their own exact log ratio, `(number, 1)`."""
    toy = toys.gaussian_shift(auc, dtype=dtype)
    x, z = toy.sample_data(number), toy.prior.sample((number,))
    return toy.log_ratio(x)[:, None], toy.log_ratio(z)[:, None]


def times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * x


def held_out_of(num_rows: int, *, seed: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the indices of held-out and of fitting rows, real and generated, for so many rows of each class."""
    generator = torch.Generator().manual_seed(seed)
    real, generated = (
        disjoint_parts(num_rows, [0.5], name=name, minimum=1, generator=generator) for name in ("real", "generated")
    )
    return (real[0], generated[0]), (real[1], generated[1])


def report_of(log_ratio: CalibratedLogRatio) -> CalibrationReport:
    assert log_ratio.report is not None
    return log_ratio.report


@pytest.fixture
def small() -> tuple[Tensor, Tensor]:
    return scores(1000)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_wrong_slope_is_reported_and_repaired_where_z_is_blind(factor: float) -> None:
    log_ratio = calibrate(times(factor), *scores(), max_log_ratio=None)
    report = report_of(log_ratio)
    before, after = report.before, report.after
    assert abs(before.slope - 1 / factor) < Z * before.slope_se
    assert abs(before.slope - 1) > 20 * before.slope_se
    assert abs(before.dawid_z) < Z
    # The half that fits and the half that judges have the same error, so their variances add.
    assert abs(after.slope - 1) < Z * math.sqrt(2) * after.slope_se
    assert abs(after.intercept) < Z * math.sqrt(2) * after.intercept_se
    assert abs(after.dawid_z) < Z * math.sqrt(2)
    assert after.log_loss < before.log_loss and after.ece < before.ece


def test_a_shift_fails_z_and_is_repaired() -> None:
    report = report_of(calibrate(lambda x: x + 1, *scores(), max_log_ratio=None))
    assert abs(report.before.dawid_z) > 20
    assert abs(report.before.intercept + 1) < Z * report.before.intercept_se
    assert abs(report.after.dawid_z) < Z * math.sqrt(2)
    assert abs(report.after.intercept) < Z * math.sqrt(2) * report.after.intercept_se
    assert abs(report.after.slope - 1) < Z * math.sqrt(2) * report.after.slope_se


def test_the_guard_leaves_the_bulk_calibrated() -> None:
    """The guard changes only values beyond all but 20 held-out generated rows: the slope stays 1 within its error."""
    report = report_of(calibrate(times(2.0), *scores()))
    assert abs(report.after.slope - 1) < Z * math.sqrt(2) * report.after.slope_se
    assert 0 < report.guarded_share < 0.02


def test_a_saturated_discriminator_stays_finite_to_the_end() -> None:
    real, generated = torch.randn(4000, 1) + 0.5, torch.randn(4000, 1) - 0.5

    def discriminator(x: Tensor) -> Tensor:
        return torch.sigmoid(60 * x)

    assert (discriminator(real) == 1).any() and (discriminator(generated) == 0).any()
    with pytest.warns(UserWarning, match="saturated"):
        log_ratio = calibrate(LogRatio.from_probability(discriminator), real, generated)
    report = report_of(log_ratio)
    for side in (report.before, report.after):
        numbers = (side.dawid_z, side.slope, side.intercept, side.brier, side.log_loss, side.ece, side.auc)
        assert all(math.isfinite(number) for number in numbers)
    extreme = torch.tensor([[-1e6], [-5.0], [0.0], [5.0], [1e6]], requires_grad=True)
    value = log_ratio(extreme)
    value.sum().backward()
    assert value.isfinite().all() and (value.diff() >= 0).all()
    assert extreme.grad is not None and extreme.grad.isfinite().all()


def test_a_heavy_tail_is_named_and_capped() -> None:
    def critic(x: Tensor) -> Tensor:
        return x + 2 * torch.relu(x - 2).pow(2)

    real, generated = scores(40_000)
    free, guarded = (calibrate(critic, real, generated, max_log_ratio=cap) for cap in (None, "auto"))
    cap = report_of(guarded).cap
    assert cap is not None
    assert report_of(free).after.tail.pareto_k > 0.7
    far = torch.linspace(-20, 200, 1000)[:, None]
    assert free(far).max() > 100 and guarded(far).max() <= cap
    assert report_of(guarded).after.tail.ess_fraction > 2 * report_of(free).after.tail.ess_fraction
    assert report_of(guarded).after.tail.largest_weight_share < report_of(free).after.tail.largest_weight_share / 2


def test_the_knee_is_where_the_last_real_rows_begin() -> None:
    """Of 1000 fitting rows 20 lie beyond; of 100 there are 3. The rows that judge are others."""
    for number, beyond in ((2000, 20), (200, 3)):
        real, generated = scores(number)
        log_ratio = calibrate(times(3.0), real, generated, seed=5)
        _, (fitting, _) = held_out_of(number, seed=5)
        value = log_ratio.calibrator(3.0 * real[fitting, 0])
        # The knee is the cap minus one, which is the value of the last of them up to rounding.
        above, reached = (int((value > log_ratio.guard.knee + slack).sum()) for slack in (1e-5, -1e-5))
        assert above < beyond <= reached
        assert float(log_ratio.guard.cap) == pytest.approx(report_of(log_ratio).cap, rel=1e-6)


def test_a_cap_of_ones_own() -> None:
    real, generated = scores(1000)
    with pytest.warns(UserWarning, match="raises the held-out log loss"):
        log_ratio = calibrate(times(1.0), real, generated, max_log_ratio=0.7)
    assert report_of(log_ratio).cap == 0.7 and log_ratio(real).max() < 0.7


def test_platt_is_at_its_optimum() -> None:
    real, generated = (1.5 * part[:, 0] - 0.2 for part in scores(500, dtype=torch.float64))
    platt = Platt()
    platt.fit(real, generated)
    slope, intercept = platt.slope.clone().requires_grad_(), platt.intercept.clone().requires_grad_()
    smoothed = torch.tensor([501 / 502] * 500 + [1 / 502] * 500, dtype=torch.float64)
    logit = slope * torch.cat([real, generated]) + intercept
    loss = nn.functional.binary_cross_entropy_with_logits(logit, smoothed, reduction="sum")
    assert all(abs(float(g)) < 1e-6 for g in torch.autograd.grad(loss, (slope, intercept)))


def test_separable_scores_give_a_finite_slope_and_a_warning() -> None:
    with pytest.warns(UserWarning, match="overlap"):
        log_ratio = calibrate(times(1.0), torch.rand(400, 1) + 1, torch.rand(400, 1) - 2)
    parameters = report_of(log_ratio).parameters
    assert 0 < parameters["slope"] < 100 and math.isfinite(parameters["intercept"])
    assert report_of(log_ratio).after.auc == 1


def test_flipped_and_probability_like_critics_warn(small: tuple[Tensor, Tensor]) -> None:
    with pytest.warns(UserWarning, match="flipped"):
        calibrate(times(-1.0), *small)
    with pytest.warns(UserWarning, match="LogRatio.from_probability"):
        calibrate(torch.sigmoid, *small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(times(1.0), *small)
        calibrate(LogRatio.from_probability(torch.sigmoid), *small)
        calibrate(LogRatio(torch.sigmoid, Bernoulli()), *small)  # the user says that these are logits


def test_a_map_that_is_flat_or_falls_warns() -> None:
    real, generated = scores(2000, auc=0.76, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"Temperature map is nearly flat.*Platt\(\)"):
        calibrate(lambda x: 1e-3 * x + 1e6, real, generated, method=Temperature())
    for method in (Temperature(), Platt(), Beta()):
        with pytest.warns(UserWarning, match=f"{type(method).__name__} map is nearly flat.*decades"):
            calibrate(lambda x: torch.exp(8 * x), real, generated, method=method)
    # The largest scores decide a line: here those of a few generated rows far out, in both halves.
    parts = [generated_rows for _, generated_rows in held_out_of(2000)]
    for these, others in (parts, parts[::-1]):
        far = generated.clone()
        far[these[:3]] = 50.0 + torch.rand(3, 1, dtype=torch.float64)
        far[others[0]] = 49.0
        with pytest.warns(UserWarning, match="Platt map falls.*decades.*MonotoneSpline"):
            calibrate(lambda x: torch.exp(x), real, far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(lambda x: torch.exp(4 * x), real, generated, method=MonotoneSpline())


def test_a_flipped_critic_is_named_whatever_its_largest_score() -> None:
    real, generated = scores(2000)
    real[::100] = 50 + torch.rand(20, 1)
    with pytest.warns(UserWarning, match="flipped"):
        calibrate(lambda x: torch.where(x > 40, 1e9 * x, -x), real, generated)


def test_all_rows_count_and_parts_are_disjoint() -> None:
    real, generated = scores(3000)
    report = report_of(calibrate(times(1.0), real, generated[:1000], holdout=0.3))
    assert (report.num_fit, report.num_held_out) == ((2100, 700), (900, 300))
    assert (report.after.n_real, report.after.n_generated) == (900, 300)
    parts = disjoint_parts(1000, (0.3, 0.2), name="real", minimum=100, generator=torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == [300, 200, 500]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000)) and parts[0].max() > 500


def test_more_generated_rows_give_a_better_ratio() -> None:
    """300 real rows against 300 generated ones, and against 20 000: the mean squared error halves, over 100 sets."""
    grid = torch.linspace(-4, 4, 101, dtype=torch.float64)
    errors = torch.zeros(2, dtype=torch.float64)
    for _ in range(100):
        real, generated = (part[:, 0] for part in scores(20_000, dtype=torch.float64))
        for index, number in enumerate((300, 20_000)):
            platt = Platt()
            platt.fit(2 * real[:300], 2 * generated[:number])
            errors[index] += (platt(2 * grid) - grid).square().mean()
    assert errors[1] < 0.85 * errors[0]


def test_the_rows_that_judge_choose_nothing() -> None:
    real, generated = scores(1000)
    first = calibrate(times(2.0), real, generated)
    (held_real, held_generated), _ = held_out_of(1000)
    real[held_real], generated[held_generated] = scores(500, auc=0.95)
    second = calibrate(times(2.0), real, generated)
    assert torch.equal(first.calibrator.slope, second.calibrator.slope)
    assert torch.equal(first.guard.cap, second.guard.cap)
    assert report_of(second).after.auc > report_of(first).after.auc + 0.05


def test_the_split_follows_its_seed_and_leaves_torch_alone(small: tuple[Tensor, Tensor]) -> None:
    state = torch.get_rng_state()
    first, again, other = (calibrate(times(1.0), *small, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.calibrator.slope, again.calibrator.slope)
    assert not torch.equal(first.calibrator.slope, other.calibrator.slope)


def test_the_critic_sees_small_chunks_without_gradient(small: tuple[Tensor, Tensor]) -> None:
    seen = []

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            seen.append((len(x), torch.is_grad_enabled()))
            return self.scale * x

    real, generated = scores(2500)
    calibrate(Critic(), real, generated)
    assert not any(grad for _, grad in seen)
    # The first passes, of 8 rows and fewer, are the probe's.
    assert [number for number, _ in seen if number > 8] == [1000, 1000, 500] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_round_trips_into_a_fresh_one(dtype: torch.dtype) -> None:
    real, generated = scores(1000, dtype=dtype)
    log_ratio = calibrate(times(2.0), real, generated)
    file = io.BytesIO()
    torch.save(log_ratio.state_dict(), file)
    file.seek(0)
    fresh = CalibratedLogRatio(times(2.0))
    assert not torch.equal(fresh(real), log_ratio(real))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(real), log_ratio(real)) and fresh(real).dtype == dtype
    assert fresh.report is None


def test_copies_answer_alike(small: tuple[Tensor, Tensor]) -> None:
    log_ratio = calibrate(nn.Identity(), *small)
    for twin in (copy.deepcopy(log_ratio), pickle.loads(pickle.dumps(log_ratio)), frozen_twin(log_ratio)):
        assert torch.equal(twin(small[0]), log_ratio(small[0]))
        twin.load_state_dict(CalibratedLogRatio(nn.Identity()).state_dict())
        assert torch.equal(twin(small[0]), small[0][:, 0])


def test_context_and_gradient_go_through(small: tuple[Tensor, Tensor]) -> None:
    log_ratio = calibrate(lambda x, offset=0.0: x + offset, *small)
    x = small[0][:50].clone().requires_grad_()
    assert torch.allclose(log_ratio(x, offset=torch.tensor(0.5)), log_ratio(x + 0.5))
    (gradient,) = torch.autograd.grad(log_ratio(x).sum(), x)
    assert gradient.isfinite().all() and (gradient > 0).all()


def test_the_report_reads(small: tuple[Tensor, Tensor]) -> None:
    text = str(report_of(calibrate(times(2.0), *small)))
    for part in ("Platt: slope", "before", "after", "E_G[r]", "500 real and 500 generated held out", "constant", "cap"):
        assert part in text
    assert "cap off" in str(report_of(calibrate(times(2.0), *small, max_log_ratio=None)))


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(1), nn.Dropout(0.5)])
def test_training_mode_raises_and_names_the_layer(layer: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    critic = nn.Sequential(nn.Identity(), layer)
    with pytest.raises(ValueError, match=type(layer).__name__):
        calibrate(critic, *small)
    calibrate(critic.eval(), *small)


REAL, GENERATED = torch.randn(300, 2), torch.randn(300, 2)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "real empty": ({"real": REAL[:0]}, r"real data of shape \(row, \*event\) with at least 1 rows"),
    "generated empty": ({"generated": REAL[:0]}, r"generated data of shape .* at least 1 rows"),
    "too few": ({"real": REAL[:199]}, "at least 100 real rows in each of 2 parts; 199 rows give 100 and 99"),
    "too few held out": ({"holdout": 0.1}, "at least 100 real rows in each of 2 parts"),
    "NaN data": ({"real": REAL.where(REAL < 1.5, math.nan)}, "finite real data"),
    "event shapes": ({"generated": GENERATED[:, :1]}, "one event shape"),
    "dtypes": ({"generated": GENERATED.double()}, "one dtype"),
    "shared rows": ({"generated": torch.cat([GENERATED, REAL[7:8]])}, "1 distinct rows are in both"),
    "same": ({"generated": REAL}, "300 distinct rows are in both"),
    "NaN scores": ({"critic": lambda x: x[:, 0].log()}, "finite scores of real rows"),
    "infinite scores": ({"critic": lambda x: 1 / (0 * x[:, 0]).abs()}, "finite scores of real rows.*saturated sigmoid"),
    "integer scores": ({"critic": lambda x: (x[:, 0] > 0).long()}, "real numbers; got torch.int64. Return floats"),
    "constant": ({"critic": lambda x: 0 * x[:, 0] + 7.3}, "scores that vary"),
    "wide critic": ({"critic": lambda x: x}, r"got \(300, 2\)"),
    "critic dtype": ({"critic": nn.Linear(2, 1).double()}, "critic's dtype"),
    "holdout 0": ({"holdout": 0.0}, "holdout"),
    "holdout 1": ({"holdout": 1.0}, "holdout"),
    "method by name": ({"method": "spline"}, r"method of type Calibrator; got 'spline'. .*MonotoneSpline\(\)"),
    "method by class": ({"method": Platt}, r"method of type Calibrator; got <class .*Platt\(\)"),
    "fitted result as method": ({"method": nn.Linear(1, 1)}, "method of type Calibrator; got"),
    "critic None": ({"critic": None}, "critic to be a function"),
    "real None": ({"real": None}, "real data to be a torch.Tensor; got None"),
    "generated list": ({"generated": [1.0]}, "generated data to be a torch.Tensor"),
    "seed": ({"seed": math.nan}, "seed to be a whole number"),
    "holdout word": ({"holdout": "x"}, "holdout"),
    "cap": ({"max_log_ratio": math.inf}, "max_log_ratio"),
    "cap word": ({"max_log_ratio": "none"}, "max_log_ratio"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_raises(name: str) -> None:
    given: dict[str, Any] = {"critic": lambda x: x[:, 0], "real": REAL, "generated": GENERATED}
    wrong, message = BAD[name]
    given |= wrong
    with pytest.raises(ValueError, match=message):
        calibrate(given.pop("critic"), given.pop("real"), given.pop("generated"), **given)


def test_rows_that_meet_by_chance_do_not_raise() -> None:
    """Coarse scalars, and binary vectors of which there are only 256: repeats within each set explain them."""
    calibrate(times(1.0), *(part.round(decimals=2) for part in scores(5000)))
    bits = (torch.rand(2000, 8) < 0.6).float(), (torch.rand(2000, 8) < 0.4).float()
    calibrate(lambda x: x.sum(1), *bits)
    calibrate(times(1.0), *scores(100_000))  # some float32 numbers coincide by chance


def test_copied_scalars_raise() -> None:
    real, _ = scores(2000)
    with pytest.raises(ValueError, match="in both"):
        calibrate(times(1.0), real, real + 0)
