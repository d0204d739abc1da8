"""What each calibration map recovers, and what is its own; the solver that fits them."""

from __future__ import annotations

import copy
import math
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, calibrate, toys
from pyro_gan._networks import frozen_twin
from pyro_gan.mcmc import IndependenceMH
from pyro_gan.ratio import Beta, Calibrator, Isotonic, MonotoneSpline, Platt, Temperature
from pyro_gan.ratio.logistic import fit_monotone
from pyro_gan.ratio.maps.spline import _integrals
from tests.ratio.members import MAPS, Score, bent, cubic, doubled, exact, excess, far, far_bent, fitted, make
from tests.statistics import FALSE_ALARM


class TestRecovers:
    """For n rows, 2 n KL of the likeliest map with p numbers follows chi-squared with p degrees of freedom."""

    @pytest.mark.parametrize(
        ("cls", "score", "degrees"),
        [
            (Temperature, doubled, 1),
            (Platt, doubled, 2),
            (Platt, far, 2),
            (Beta, doubled, 3),
            (Beta, bent, 3),
            (Beta, far, 3),
            (MonotoneSpline, doubled, 9),
            (MonotoneSpline, bent, 9),
            (MonotoneSpline, cubic, 9),
            (MonotoneSpline, far, 9),
        ],
    )
    def test_what_it_can_express(self, cls: type[Calibrator], score: Score, degrees: int) -> None:
        number = 5000
        found = 2 * 2 * number * excess(fitted(cls, score, number), score)
        assert found < stats.chi2.isf(FALSE_ALARM, degrees)

    @pytest.mark.parametrize(
        ("better", "worse", "score"),
        [
            (Platt, Temperature, far),
            (Beta, Platt, bent),
            (Beta, Platt, far_bent),
            (MonotoneSpline, Beta, cubic),
            (Isotonic, Platt, cubic),
            (Isotonic, Platt, bent),
        ],
    )
    def test_what_a_stiffer_map_cannot(self, better: type[Calibrator], worse: type[Calibrator], score: Score) -> None:
        parts = [score(part) for part in exact(20_000)]
        maps = {cls: make(cls) for cls in (better, worse)}
        for calibrator in maps.values():
            calibrator.fit(*parts)
        assert excess(maps[worse], score) > 4 * excess(maps[better], score)

    def test_isotonic_closes_in(self) -> None:
        small, large = (excess(fitted(Isotonic, cubic, number), cubic) for number in (500, 50_000))
        assert 0 < large < small / 4

    def test_beta_keeps_the_papers_scale_where_it_is_right(self) -> None:
        parameters = fitted(Beta, bent, 20_000).parameters_by_name()
        assert parameters["scale"] == 1 and parameters["shift"] == 0
        assert parameters["a"] < 1 < parameters["c"]


class TestMonotoneSpline:
    def test_continuous_and_so_is_its_slope(self) -> None:
        spline = fitted(MonotoneSpline, cubic)
        assert isinstance(spline, MonotoneSpline) and len(spline.knots) == 8
        around = (spline.knots[:, None] + torch.tensor([-1e-7, 1e-7]).double()).requires_grad_()
        value = spline(around)
        (slope,) = torch.autograd.grad(value.sum(), around)
        assert torch.allclose(value[:, 0], value[:, 1], atol=1e-5)
        assert torch.allclose(slope[:, 0], slope[:, 1], atol=1e-5)
        assert torch.allclose(slope.mean(1), spline.slopes, atol=1e-5)

    def test_linear_beyond_the_data(self) -> None:
        spline = fitted(MonotoneSpline, cubic)
        for side in (-1, 1):
            steps = spline(side * torch.tensor([1e3, 2e3, 3e3]).double()).diff()
            assert torch.allclose(steps[0], steps[1])

    def test_is_fitted_as_it_is_evaluated(self) -> None:
        spline = fitted(MonotoneSpline, cubic)
        assert isinstance(spline, MonotoneSpline)
        score = cubic(torch.linspace(-9, 9, 301, dtype=torch.float64))
        fit = spline.values[0] + _integrals(score, spline.knots) @ spline.slopes
        assert torch.allclose(fit, spline(score), rtol=1e-9, atol=1e-9)

    def test_few_rows_are_drawn_to_platts_line(self) -> None:
        spline, platt = (fitted(cls, doubled, 100) for cls in (MonotoneSpline, Platt))
        assert isinstance(spline, MonotoneSpline) and isinstance(platt, Platt)
        assert (spline.slopes / platt.slope - 1).abs().max() < 3

    @pytest.mark.parametrize(("power", "sign"), [(3, 1), (3, -1), (6, 1)])
    def test_scores_that_span_decades(self, power: float, sign: int) -> None:
        """A critic whose output is a power of the ratio itself, not its logarithm."""

        def score(log_ratio: Tensor) -> Tensor:
            return sign * torch.exp(sign * power * log_ratio / 1.5)

        lost = excess(fitted(MonotoneSpline, score, 20_000), score)
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
        smoothed = (1 + 700 * share) / 702  # a linear function of the labels that keeps .5
        assert torch.allclose(isotonic(pooled), torch.logit(torch.as_tensor(smoothed)), atol=1e-10)

    def test_claims_no_more_than_its_rows_support(self) -> None:
        for number in (200, 3000):
            isotonic = fitted(Isotonic, doubled, number)
            ends = isotonic(torch.tensor([-1e4, 1e4]).double())
            assert ends.abs().max() <= math.log(number + 1) * (1 + 1e-9)
        apart = Isotonic()
        apart.fit(torch.rand(200) + 1, torch.rand(200) - 2)
        assert apart(torch.tensor([-3.0, 3.0])).tolist() == pytest.approx([-math.log(201), math.log(201)], abs=1e-4)

    def test_warns_once_if_the_score_requires_a_gradient(self) -> None:
        isotonic = fitted(Isotonic, doubled)
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
        with pytest.warns(UserWarning, match="MonotoneSpline"):
            fitted(Isotonic, doubled)(score)  # another instance

    def test_a_warning_of_the_original_does_not_silence_its_copies(self) -> None:
        isotonic = fitted(Isotonic, doubled)
        score = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
        with pytest.warns(UserWarning, match="the prior alone"):
            isotonic(score)
        for twin in (copy.deepcopy(isotonic), pickle.loads(pickle.dumps(isotonic)), frozen_twin(isotonic)):
            with pytest.warns(UserWarning, match="the prior alone"):
                twin(score)

    def test_a_gradient_free_kernel_is_not_warned(self) -> None:
        toy = toys.gaussian_shift(0.75)
        rows = toy.sample_data(2000), toy.prior.sample((2000,))
        gan = LatentPosterior(toy.generator, calibrate(toy.log_ratio, *rows, method=Isotonic()), toy.prior)
        mcmc = VectorizedMCMC(IndependenceMH(gan), 20, warmup_steps=20, num_chains=16, disable_progbar=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mcmc.run()

    def test_scikit_learn_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        isotonic = fitted(Isotonic, doubled)
        monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
        with pytest.raises(ImportError) as raised:
            fitted(Isotonic, doubled)
        assert raised.value.__notes__ == ["pip install pyro-gan[sklearn]"]
        fresh = Isotonic()  # a map that was fitted elsewhere does not need scikit-learn
        fresh.load_state_dict(isotonic.state_dict())
        score = torch.linspace(-3, 3, 50, dtype=torch.float64)
        assert torch.equal(fresh(score), isotonic(score))
        for cls in set(MAPS.values()) - {Isotonic}:
            fitted(cls, doubled)


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
            return float((np.logaddexp(0, logit) - label * logit).sum() + weight * w[:-1] @ w[:-1] / 2), gradient

        bounds = [(0, None)] * number + [(None, None)]
        best = minimize(loss, np.zeros(number + 1), jac=True, bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
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
