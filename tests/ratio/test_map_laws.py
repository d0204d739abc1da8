"""The laws of calibration maps, for every map that the package exports."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import math
import pickle
import pkgutil
import warnings

import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC, calibrate, toys
from pyro_gan._networks import frozen_twin
from pyro_gan.mcmc import MALA, IndependenceMH
from pyro_gan.ratio import CalibratedLogRatio, Calibrator, maps
from tests.ratio.members import MAPS, Score, cubic, doubled, every_map, exact, excess, far, fitted, make
from tests.statistics import assert_chain_mean


def columns(number: int) -> tuple[Tensor, Tensor]:
    real, generated = exact(number)
    return real[:, None], generated[:, None]


def test_every_map_of_the_package_is_exported() -> None:
    for module in pkgutil.iter_modules(maps.__path__, f"{maps.__name__}."):
        for name, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(value, Calibrator) and not (inspect.isabstract(value) or name.startswith("_")):
                assert name in MAPS and name in maps.__all__


@every_map
class TestEveryMap:
    def test_recovers_the_ratio_from_a_critic_that_is_too_confident(self, cls: type[Calibrator]) -> None:
        """The excess log loss falls to less than a tenth of that of the critic itself."""
        own = excess(nn.Identity(), doubled)
        assert excess(fitted(cls, doubled, 20_000), doubled) < 0.004 < own / 10

    @pytest.mark.parametrize("counts", [(1000, 30_000), (30_000, 1000)])
    def test_unequal_classes_give_the_same_ratio(self, cls: type[Calibrator], counts: tuple[int, int]) -> None:
        """Without the offset log(n_real / n_generated) = 3.4 an intercept would be wrong by that."""
        real, generated = exact(counts[0])[0], exact(counts[1])[1]
        calibrator = make(cls)
        calibrator.fit(doubled(real), doubled(generated))
        assert excess(calibrator, doubled) < 0.008

    def test_rises_and_is_finite_to_the_end(self, cls: type[Calibrator]) -> None:
        for score in (doubled, cubic, far):
            calibrator = fitted(cls, score)
            grid = torch.cat([-torch.logspace(4, -3, 500), torch.logspace(-3, 4, 500)]).double()
            value = calibrator(grid)
            assert value.isfinite().all()
            assert (value.diff() >= -1e-12 * value.abs().max()).all() and value[-1] > value[0]

    def test_is_finite_and_monotone_before_it_is_fitted(self, cls: type[Calibrator]) -> None:
        value = make(cls)(torch.linspace(-9, 9, 50))
        assert value.isfinite().all() and (value.diff() >= 0).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dtype_and_shape_follow(self, cls: type[Calibrator], dtype: torch.dtype) -> None:
        real, generated = (part.to(dtype) for part in columns(1000))
        log_ratio = calibrate(doubled, real, generated, method=make(cls))
        assert log_ratio(real).dtype == dtype and log_ratio(real).shape == (1000,)
        assert all(buffer.dtype == dtype for buffer in log_ratio.calibrator.buffers())
        other = torch.float32 if dtype == torch.float64 else torch.float64
        converted = log_ratio.to(other)(real.to(other))
        assert converted.dtype == other
        if cls.is_smooth:  # a score on the edge of a step may fall to either side of it
            assert torch.allclose(converted.float(), log_ratio.to(dtype)(real).float(), atol=1e-4)

    def test_state_round_trips_into_a_fresh_one(self, cls: type[Calibrator]) -> None:
        real, generated = columns(1000)
        log_ratio = calibrate(cubic, real, generated, method=make(cls))
        file = io.BytesIO()
        torch.save(log_ratio.state_dict(), file)
        file.seek(0)
        fresh = CalibratedLogRatio(cubic, method=make(cls))
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(fresh(real), log_ratio(real))
        again = calibrate(doubled, real[:300], generated[:300], method=make(cls))  # other shapes
        again.critic = cubic
        again.load_state_dict(log_ratio.state_dict())
        assert torch.equal(again(real), log_ratio(real))

    def test_copies_answer_alike(self, cls: type[Calibrator]) -> None:
        real, generated = columns(500)
        log_ratio = calibrate(nn.Identity(), real, generated, method=make(cls))
        for twin in (copy.deepcopy(log_ratio), pickle.loads(pickle.dumps(log_ratio)), frozen_twin(log_ratio)):
            assert torch.equal(twin(real), log_ratio(real))

    def test_the_given_map_is_neither_fitted_nor_shared(self, cls: type[Calibrator]) -> None:
        method, before = make(cls), make(cls).state_dict()
        real, generated = columns(500)
        first = calibrate(doubled, real, generated, method=method)
        value = first(real)
        second = calibrate(cubic, real, generated, method=method)
        for name, buffer in method.state_dict().items():
            assert torch.equal(buffer, before[name])
        assert torch.equal(first(real), value)
        assert torch.equal(calibrate(cubic, real, generated, method=first.calibrator)(real), second(real))
        assert torch.equal(first(real), value)

    def test_nan_stays_nan(self, cls: type[Calibrator]) -> None:
        value = fitted(cls, doubled)(torch.tensor([math.nan, 0.0], dtype=torch.float64))
        assert value[0].isnan() and value[1].isfinite()

    def test_scores_that_carry_nothing_raise(self, cls: type[Calibrator]) -> None:
        constant, good = torch.full((200,), 7.3), torch.randn(200)
        bad: list[tuple[object, object, str]] = [
            (constant, constant, "scores that vary"),
            (math.nan * good, good, "finite scores of real rows"),
            (good, good / 0, "finite scores of generated rows"),
            (good, good[:0], "at least 1 rows"),
            (good[:, None], good, r"shape \(row,\)"),
            (None, good, "torch.Tensor"),
        ]
        for real, generated, message in bad:
            with pytest.raises(ValueError, match=message):
                make(cls).fit(real, generated)

    def test_separated_scores_stay_finite(self, cls: type[Calibrator]) -> None:
        real, generated = torch.rand(400, 1) + 1, torch.rand(400, 1) - 2
        with pytest.warns(UserWarning, match="overlap"):
            log_ratio = calibrate(lambda x: x, real, generated, method=make(cls), max_log_ratio=None)
        value = log_ratio(torch.tensor([[-1e4], [-1.5], [0.0], [1.5], [1e4]]))
        assert value.isfinite().all() and value[3] > 2 > -2 > value[1]
        assert log_ratio.report is not None and log_ratio.report.after.auc == 1

    def test_scores_that_repeat(self, cls: type[Calibrator]) -> None:
        """A critic of two values; in the second case only five rows have the larger one."""
        for num_real, num_generated in ((1000, 500), (4, 1)):
            real, generated = torch.zeros(2, 2000, dtype=torch.float64)
            real[:num_real], generated[:num_generated] = 1, 1
            calibrator = make(cls)
            calibrator.fit(real, generated)
            value = calibrator(torch.tensor([0.0, 1.0], dtype=torch.float64))
            assert value.isfinite().all() and value[1] > value[0]

    def test_the_report_names_its_numbers(self, cls: type[Calibrator]) -> None:
        log_ratio = calibrate(lambda x: x, *columns(500), method=make(cls))
        assert str(log_ratio.report).startswith(f"{cls.__name__}: ")
        assert log_ratio.report is not None
        assert all(math.isfinite(value) for value in log_ratio.report.parameters.values())

    def test_a_flipped_critic_is_named(self, cls: type[Calibrator]) -> None:
        """A map that never falls gives a ratio of about 1; a map that may fall turns the sign of the critic."""
        real, generated = columns(2000)
        with pytest.warns(UserWarning, match="flipped"):
            log_ratio = calibrate(lambda x: -x, real, generated, method=make(cls))
        change = log_ratio(torch.linspace(-5, 5, 101).double()[:, None]).diff()
        bulk = log_ratio(torch.cat([real, generated])).abs().mean()
        assert (change >= 0).all() and (bulk < 0.1) == cls.never_falls

    def test_chains_take_it(self, cls: type[Calibrator]) -> None:
        toy = toys.gaussian_shift(0.75)
        real, generated = toy.sample_data(20_000), toy.prior.sample((20_000,))
        log_ratio = calibrate(lambda x: 3 * toy.log_ratio(x), real, generated, method=make(cls))
        gan = LatentPosterior(toy.generator, log_ratio, toy.prior, chunk_size=640)
        gan.validate()
        mcmc = VectorizedMCMC(IndependenceMH(gan), 20, warmup_steps=50, num_chains=640, disable_progbar=True)
        mcmc.run()
        # The truth of this calibrated target, which is not that of the data, by quadrature.
        grid = torch.linspace(-6, 7, 20_001)[:, None]
        with torch.no_grad():
            weight = (log_ratio(grid).double() - grid[:, 0].double().square() / 2).softmax(0)
        draws = mcmc.get_samples(group_by_chain=True)["z"][..., 0]
        assert_chain_mean(draws, float(weight @ grid[:, 0].double()))

    @pytest.mark.parametrize("score", [doubled, cubic, far])
    def test_gradients(self, cls: type[Calibrator], score: Score) -> None:
        """A smooth map has the right gradient; that of any other is zero, and it warns."""
        calibrator = fitted(cls, score)
        knots = getattr(calibrator, "knots", torch.zeros(0, dtype=torch.float64))
        extreme = torch.tensor([-1e4, -1e2, *knots.tolist(), 1e2, 1e4], dtype=torch.float64).requires_grad_()
        if not cls.is_smooth:
            with pytest.warns(UserWarning, match="the prior alone"):
                value = calibrator(extreme)
            assert torch.equal(torch.autograd.grad(value.sum(), extreme)[0], torch.zeros_like(extreme))
            return
        points = score(torch.linspace(-8, 8, 60, dtype=torch.float64))
        points = points[((points[:, None] - knots).abs() > 1e-3).all(1)].requires_grad_()
        assert torch.autograd.gradcheck(calibrator, points)
        (gradient,) = torch.autograd.grad(calibrator(extreme).sum(), extreme)
        assert gradient.isfinite().all() and (gradient >= 0).all()

    def test_a_gradient_kernel_takes_a_smooth_map_and_is_warned_of_others(self, cls: type[Calibrator]) -> None:
        toy = toys.gaussian_shift(0.75)
        rows = toy.sample_data(5000), toy.prior.sample((5000,))
        gan = LatentPosterior(toy.generator, calibrate(toy.log_ratio, *rows, method=make(cls)), toy.prior)
        mcmc = VectorizedMCMC(MALA(gan), 50, warmup_steps=50, num_chains=32, disable_progbar=True)
        if not cls.is_smooth:
            with pytest.warns(UserWarning, match="the prior alone"):
                mcmc.run()
            return
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mcmc.run()
        assert mcmc.sample_stats["accept_prob"].mean() > 0.3
