"""Every calibration map: what it recovers, one contract for all, and what is each one's own."""

from __future__ import annotations

import copy
import io
import math
import pickle
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from pyro_gan import LatentPosterior, VectorizedMCMC, calibrate, toys
from pyro_gan._networks import frozen_twin
from pyro_gan.mcmc import MALA, IndependenceMH
from pyro_gan.ratio._logistic import fit_monotone
from pyro_gan.ratio.calibrators import Beta, CalibratedLogRatio, Isotonic, MonotoneSpline, Platt, Temperature
from pyro_gan.ratio.maps import METHODS, Calibrator
from pyro_gan.ratio.maps.spline import _integrals
from tests.statistics import FALSE_ALARM, assert_chain_mean

SMOOTH = sorted(METHODS.keys() - {"isotonic"})
RISING = sorted(METHODS.keys() - {"platt"})

Score = Callable[[Tensor], Tensor]


def exact(number: int, *, auc: float = 0.85) -> tuple[Tensor, Tensor]:
    """Real and generated rows that are their own exact log ratio, `(number,)` in double precision."""
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    return toy.log_ratio(toy.sample_data(number)), toy.log_ratio(toy.prior.sample((number,)))


def fitted(method: str, score: Score, number: int = 2000, *, auc: float = 0.85) -> Calibrator:
    calibrator = METHODS[method]()
    calibrator.fit(*(score(part) for part in exact(number, auc=auc)))
    return calibrator


def excess(calibrator: Calibrator, score: Score) -> float:
    """Expected log loss beyond the exact ratio's, in nats a row: a mean KL divergence, of which no label is drawn."""
    truth = torch.cat(exact(100_000))
    claim = calibrator(score(truth))
    share = torch.sigmoid(truth)
    cross, own = (
        share * softplus(-value) + torch.sigmoid(-truth) * softplus(value) for value in (claim, truth)
    )
    return float((cross - own).mean())


def bent(log_ratio: Tensor) -> Tensor:
    """The score of which `log_ratio` is the beta map with a = .4, c = 2, b = .3."""
    low, high = torch.full_like(log_ratio, -100), torch.full_like(log_ratio, 100)
    for _ in range(100):
        middle = (low + high) / 2
        below = 0.4 * logsigmoid(middle) - 2 * logsigmoid(-middle) + 0.3 < log_ratio
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def cubic(log_ratio: Tensor) -> Tensor:
    """A Wasserstein-like critic: the cube of the logit, off centre."""
    return 5 * (log_ratio + 0.2 * log_ratio**3) + 3


def doubled(log_ratio: Tensor) -> Tensor:
    return 2 * log_ratio


def far(log_ratio: Tensor) -> Tensor:
    return 10 * log_ratio + 200


def far_bent(log_ratio: Tensor) -> Tensor:
    return 10 * bent(log_ratio) + 200


class TestRecovers:
    """With n rows and p numbers, 2 n KL of the likeliest map of the right kind follows chi-squared, p degrees."""

    @pytest.mark.parametrize(
        ("method", "score", "degrees"),
        [
            ("temperature", doubled, 1),
            ("platt", doubled, 2),
            ("platt", far, 2),
            ("beta", doubled, 3),
            ("beta", bent, 3),
            ("beta", far, 3),
            ("spline", doubled, 9),
            ("spline", bent, 9),
            ("spline", cubic, 9),
            ("spline", far, 9),
        ],
    )
    def test_what_it_can_express(self, method: str, score: Score, degrees: int) -> None:
        number = 5000
        found = 2 * 2 * number * excess(fitted(method, score, number), score)
        assert found < stats.chi2.isf(FALSE_ALARM, degrees)

    @pytest.mark.parametrize(
        ("better", "worse", "score"),
        [
            ("platt", "temperature", far),
            ("beta", "platt", bent),
            ("beta", "platt", far_bent),
            ("spline", "beta", cubic),
            ("isotonic", "platt", cubic),
            ("isotonic", "platt", bent),
        ],
    )
    def test_what_a_stiffer_map_cannot(self, better: str, worse: str, score: Score) -> None:
        parts = [score(part) for part in exact(20_000)]
        maps = {name: METHODS[name]() for name in (better, worse)}
        for calibrator in maps.values():
            calibrator.fit(*parts)
        assert excess(maps[worse], score) > 4 * excess(maps[better], score)

    def test_isotonic_closes_in(self) -> None:
        small, large = (excess(fitted("isotonic", cubic, number), cubic) for number in (500, 50_000))
        assert 0 < large < small / 4

    def test_beta_keeps_the_papers_scale_where_it_is_right(self) -> None:
        parameters = fitted("beta", bent, 20_000).parameters_by_name()
        assert parameters["scale"] == 1 and parameters["shift"] == 0
        assert parameters["a"] < 1 < parameters["c"]


@pytest.mark.parametrize("method", METHODS)
class TestContract:
    def test_rises_and_is_finite_to_the_end(self, method: str) -> None:
        for score in (doubled, cubic, far):
            calibrator = fitted(method, score)
            grid = torch.cat([-torch.logspace(4, -3, 500), torch.logspace(-3, 4, 500)]).double()
            value = calibrator(grid)
            assert value.isfinite().all()
            assert (value.diff() >= -1e-12 * value.abs().max()).all() and value[-1] > value[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dtype_and_shape_follow(self, method: str, dtype: torch.dtype) -> None:
        real, generated = (part.to(dtype)[:, None] for part in exact(1000))
        log_ratio = calibrate(doubled, real, generated, method=method)
        assert log_ratio(real).dtype == dtype and log_ratio(real).shape == (1000,)
        assert all(buffer.dtype == dtype for buffer in log_ratio.calibrator.buffers())
        other = torch.float32 if dtype == torch.float64 else torch.float64
        converted = log_ratio.to(other)(real.to(other))
        assert converted.dtype == other
        if method != "isotonic":  # a score on an edge may fall to either side of it
            assert torch.allclose(converted.float(), log_ratio.to(dtype)(real).float(), atol=1e-4)

    def test_state_round_trips_into_a_fresh_one(self, method: str) -> None:
        real, generated = (part[:, None] for part in exact(1000))
        log_ratio = calibrate(cubic, real, generated, method=method)
        file = io.BytesIO()
        torch.save(log_ratio.state_dict(), file)
        file.seek(0)
        fresh = CalibratedLogRatio(cubic, method=method)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(fresh(real), log_ratio(real))
        again = calibrate(doubled, real[:300], generated[:300], method=method)  # other shapes
        again.critic = cubic  # type: ignore[assignment]
        again.load_state_dict(log_ratio.state_dict())
        assert torch.equal(again(real), log_ratio(real))

    def test_copies_answer_alike(self, method: str) -> None:
        real, generated = (part[:, None] for part in exact(500))
        log_ratio = calibrate(nn.Identity(), real, generated, method=method)
        for twin in (copy.deepcopy(log_ratio), pickle.loads(pickle.dumps(log_ratio)), frozen_twin(log_ratio)):
            assert torch.equal(twin(real), log_ratio(real))

    def test_nan_is_passed_on(self, method: str) -> None:
        value = fitted(method, doubled)(torch.tensor([math.nan, 0.0], dtype=torch.float64))
        assert value[0].isnan() and value[1].isfinite()

    def test_constant_and_nan_scores_raise(self, method: str) -> None:
        for score in (torch.full((200,), 7.3), torch.full((200,), math.nan)):
            with pytest.raises(ValueError, match="scores that vary"):
                METHODS[method]().fit(score, score)

    def test_separated_scores_stay_finite(self, method: str) -> None:
        real, generated = torch.rand(400, 1) + 1, torch.rand(400, 1) - 2
        with pytest.warns(UserWarning, match="overlap"):
            log_ratio = calibrate(lambda x: x, real, generated, method=method, max_log_ratio=None)
        value = log_ratio(torch.tensor([[-1e4], [-1.5], [0.0], [1.5], [1e4]]))
        assert value.isfinite().all() and value[3] > 2 > -2 > value[1]
        assert log_ratio.report is not None and log_ratio.report.after.auc == 1

    def test_scores_that_repeat(self, method: str) -> None:
        """A critic of two values, and one whose odd rows are few."""
        for num_real, num_generated in ((1000, 500), (4, 1)):
            real, generated = torch.zeros(2, 2000, dtype=torch.float64)
            real[:num_real], generated[:num_generated] = 1, 1
            calibrator = METHODS[method]()
            calibrator.fit(real, generated)
            value = calibrator(torch.tensor([0.0, 1.0], dtype=torch.float64))
            assert value.isfinite().all() and value[1] > value[0]

    def test_the_report_names_its_numbers(self, method: str) -> None:
        log_ratio = calibrate(lambda x: x, *(part[:, None] for part in exact(500)), method=method)
        assert str(log_ratio.report).startswith(f"{method}: ")
        assert log_ratio.report is not None
        assert all(math.isfinite(value) for value in log_ratio.report.parameters.values())

    def test_chains_take_it(self, method: str) -> None:
        toy = toys.gaussian_shift(0.75)
        real, generated = toy.sample_data(20_000), toy.prior.sample((20_000,))
        log_ratio = calibrate(lambda x: 3 * toy.log_ratio(x), real, generated, method=method)
        gan = LatentPosterior(toy.generator, log_ratio, toy.prior)
        gan.validate()
        mcmc = VectorizedMCMC(IndependenceMH(gan), 200, warmup_steps=50, num_chains=64, disable_progbar=True)
        mcmc.run()
        # The truth of this calibrated target, not of the data: by quadrature.
        grid = torch.linspace(-6, 7, 20_001)[:, None]
        with torch.no_grad():
            weight = (log_ratio(grid).double() - grid[:, 0].double().square() / 2).softmax(0)
        assert_chain_mean(
            mcmc.get_samples(group_by_chain=True)["z"][..., 0], float(weight @ grid[:, 0].double())
        )


@pytest.mark.parametrize("method", SMOOTH)
class TestSmooth:
    @pytest.mark.parametrize("score", [doubled, cubic, far])
    def test_gradients(self, method: str, score: Score) -> None:
        calibrator = fitted(method, score)
        knots = getattr(calibrator, "knots", torch.zeros(0, dtype=torch.float64))
        points = score(torch.linspace(-8, 8, 60, dtype=torch.float64))
        points = points[((points[:, None] - knots).abs() > 1e-3).all(1)].requires_grad_()
        assert torch.autograd.gradcheck(calibrator, points)
        extreme = torch.tensor([-1e4, -1e2, *knots.tolist(), 1e2, 1e4], dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(calibrator(extreme).sum(), extreme)
        assert gradient.isfinite().all() and (gradient >= 0).all()

    def test_a_gradient_kernel_takes_it(self, method: str) -> None:
        toy = toys.gaussian_shift(0.75)
        log_ratio = calibrate(toy.log_ratio, toy.sample_data(5000), toy.prior.sample((5000,)), method=method)
        gan = LatentPosterior(toy.generator, log_ratio, toy.prior)
        mcmc = VectorizedMCMC(MALA(gan), 100, warmup_steps=100, num_chains=32, disable_progbar=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mcmc.run()
        assert mcmc.sample_stats["accept_prob"].mean() > 0.3


@pytest.mark.parametrize("method", RISING)
def test_a_flipped_critic_carries_nothing_rather_than_the_wrong_way(method: str) -> None:
    real, generated = (part[:, None] for part in exact(2000))
    with pytest.warns(UserWarning, match="flipped"):
        log_ratio = calibrate(lambda x: -x, real, generated, method=method)
    value = log_ratio(torch.linspace(-5, 5, 101).double()[:, None])
    assert (value.diff() >= 0).all()
    bulk = log_ratio(torch.cat([real, generated]))
    assert bulk.abs().mean() < 0.1


class TestMonotoneSpline:
    def test_continuous_and_so_is_its_slope(self) -> None:
        spline = fitted("spline", cubic)
        assert isinstance(spline, MonotoneSpline) and len(spline.knots) == 8
        around = (spline.knots[:, None] + torch.tensor([-1e-7, 1e-7]).double()).requires_grad_()
        value = spline(around)
        (slope,) = torch.autograd.grad(value.sum(), around)
        assert torch.allclose(value[:, 0], value[:, 1], atol=1e-5)
        assert torch.allclose(slope[:, 0], slope[:, 1], atol=1e-5)
        assert torch.allclose(slope.mean(1), spline.slopes, atol=1e-5)

    def test_linear_beyond_the_data(self) -> None:
        spline = fitted("spline", cubic)
        for side in (-1, 1):
            steps = spline(side * torch.tensor([1e3, 2e3, 3e3]).double()).diff()
            assert torch.allclose(steps[0], steps[1])

    def test_is_fitted_as_it_is_evaluated(self) -> None:
        spline = fitted("spline", cubic)
        assert isinstance(spline, MonotoneSpline)
        score = cubic(torch.linspace(-9, 9, 301, dtype=torch.float64))
        fit = spline.values[0] + _integrals(score, spline.knots) @ spline.slopes
        assert torch.allclose(fit, spline(score), rtol=1e-9, atol=1e-9)

    def test_few_rows_are_drawn_to_platts_line(self) -> None:
        spline, platt = (fitted(method, doubled, 100) for method in ("spline", "platt"))
        assert isinstance(spline, MonotoneSpline) and isinstance(platt, Platt)
        assert (spline.slopes / platt.slope - 1).abs().max() < 3

    @pytest.mark.parametrize(("power", "sign"), [(3, 1), (3, -1), (6, 1)])
    def test_scores_that_span_decades(self, power: float, sign: int) -> None:
        """A critic that gives a power of the ratio itself, not its logarithm."""

        def score(log_ratio: Tensor) -> Tensor:
            return sign * torch.exp(sign * power * log_ratio / 1.5)

        lost = excess(fitted("spline", score, 20_000), score)
        assert lost < 0.004

    def test_identity_until_fitted(self) -> None:
        score = torch.linspace(-9, 9, 50)
        for calibrator in (Platt(), Temperature(), Beta(), MonotoneSpline()):
            assert torch.allclose(calibrator(score), score, atol=1e-6)
        assert torch.equal(Isotonic()(score), torch.zeros(50))


class TestIsotonic:
    def test_is_scikit_learns_on_the_rows_that_fitted_it(self) -> None:
        from sklearn.isotonic import IsotonicRegression

        real, generated = (cubic(part) for part in exact(700))
        isotonic = Isotonic()
        isotonic.fit(real, generated)
        labels = np.repeat([1.0, 0.0], 700)
        pooled = torch.cat([real, generated])
        share = IsotonicRegression().fit_transform(pooled.numpy(), labels)
        smoothed = (1 + 700 * share) / 702  # the labels' line through .5
        assert torch.allclose(isotonic(pooled), torch.logit(torch.as_tensor(smoothed)), atol=1e-10)

    def test_claims_no_more_than_its_rows_support(self) -> None:
        for number in (200, 3000):
            isotonic = fitted("isotonic", doubled, number)
            ends = isotonic(torch.tensor([-1e4, 1e4]).double())
            assert ends.abs().max() <= math.log(number + 1) * (1 + 1e-9)
        apart = Isotonic()
        apart.fit(torch.rand(200) + 1, torch.rand(200) - 2)
        assert apart(torch.tensor([-3.0, 3.0])).tolist() == pytest.approx(
            [-math.log(201), math.log(201)], abs=1e-4
        )

    def test_warns_once_where_a_gradient_is_asked_for(self) -> None:
        isotonic = fitted("isotonic", doubled)
        score = torch.linspace(-3, 3, 50, dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            isotonic(score)
            with torch.no_grad():
                isotonic(score.clone().requires_grad_())
        score.requires_grad_()
        with pytest.warns(UserWarning, match="gradient of an isotonic calibration is zero"):
            value = isotonic(score)
        (gradient,) = torch.autograd.grad(value.sum(), score)
        assert torch.equal(gradient, torch.zeros_like(score))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            isotonic(score)
        with pytest.warns(UserWarning, match="spline"):
            fitted("isotonic", doubled)(score)  # another instance

    def test_who_looks_does_not_take_the_warning_from_a_copy(self) -> None:
        isotonic = fitted("isotonic", doubled)
        score = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
        with pytest.warns(UserWarning, match="the prior alone"):
            isotonic(score)
        for twin in (copy.deepcopy(isotonic), pickle.loads(pickle.dumps(isotonic)), frozen_twin(isotonic)):
            with pytest.warns(UserWarning, match="the prior alone"):
                twin(score)

    def test_a_gradient_kernel_is_told_and_a_gradient_free_one_not(self) -> None:
        toy = toys.gaussian_shift(0.75)
        rows = toy.sample_data(2000), toy.prior.sample((2000,))
        gan = LatentPosterior(toy.generator, calibrate(toy.log_ratio, *rows, method="isotonic"), toy.prior)
        run = {"num_samples": 20, "warmup_steps": 20, "num_chains": 16, "disable_progbar": True}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            VectorizedMCMC(IndependenceMH(gan), **run).run()  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="the prior alone"):
            VectorizedMCMC(MALA(gan), **run).run()  # type: ignore[arg-type]

    def test_scikit_learn_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        isotonic = fitted("isotonic", doubled)
        monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
        with pytest.raises(ImportError) as raised:
            fitted("isotonic", doubled)
        assert raised.value.__notes__ == ['pip install "pyro-gan[sklearn]"']
        fresh = Isotonic()  # what was fitted elsewhere needs none
        fresh.load_state_dict(isotonic.state_dict())
        score = torch.linspace(-3, 3, 50, dtype=torch.float64)
        assert torch.equal(fresh(score), isotonic(score))
        for method in SMOOTH:
            fitted(method, doubled)


class TestFitMonotone:
    @pytest.mark.parametrize("number", [1, 3, 8])
    @pytest.mark.parametrize("weight", [0.0, 2.0])
    def test_finds_the_optimum_that_scipy_finds(self, number: int, weight: float) -> None:
        columns = torch.randn(300, number).double() @ torch.randn(number, number).double()
        target = torch.where(torch.rand(300) < torch.sigmoid(columns[:, 0]), 0.995, 0.005).double()
        penalty = weight * torch.eye(number, dtype=torch.float64)
        fit = fit_monotone(columns, target, intercept=True, penalty=penalty)
        design, label = np.c_[columns.numpy(), np.ones(300)], target.numpy()

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            logit = design @ w
            gradient = -design.T @ (label - 1 / (1 + np.exp(-logit)))
            gradient[:-1] += weight * w[:-1]
            return float(
                (np.logaddexp(0, logit) - label * logit).sum() + weight * w[:-1] @ w[:-1] / 2
            ), gradient

        bounds = [(0, None)] * number + [(None, None)]
        best = minimize(
            loss, np.zeros(number + 1), jac=True, bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9}
        )
        assert (fit.coefficients[:-1] >= 0).all()
        assert fit.loss <= best.fun + 1e-6
        assert fit.loss == pytest.approx(loss(fit.coefficients.numpy())[0], abs=1e-6)

    def test_columns_that_depend_on_one_another(self) -> None:
        column = torch.randn(300, 1).double()
        target = torch.where(torch.rand(300, 1) < torch.sigmoid(column), 0.99, 0.01).double()[:, 0]
        twice = fit_monotone(torch.cat([column, 2 * column, 0 * column], 1), target, intercept=True)
        once = fit_monotone(column, target, intercept=True)
        assert twice.loss == pytest.approx(once.loss, abs=1e-6)
        assert float(twice.coefficients @ torch.tensor([1, 2, 0, 0]).double()) == pytest.approx(
            float(once.coefficients[0]), rel=1e-5
        )
