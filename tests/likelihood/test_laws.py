"""What every estimator promises, on a model with a known likelihood; estimators are found in the package."""

from __future__ import annotations

import math

import pyro
import pytest
import torch

from tests.likelihood.linear_models import POINTS, THREE, gan_of
from tests.likelihood.members import ESTIMATORS
from tests.statistics import FALSE_ALARM, NUM_SE

pytestmark = [pytest.mark.filterwarnings("ignore:.*effective sample size"), pytest.mark.parametrize("name", ESTIMATORS)]


def test_a_bound_is_a_bound(name: str) -> None:
    """A lower bound exceeds the exact value by t nats with probability exp(-t) at most, or by its standard error."""
    estimate = ESTIMATORS[name]()(gan_of(THREE).model(), POINTS)
    excess = estimate.value - THREE.log_prob(POINTS)
    assert [part.shape for part in estimate[:3]] == 3 * [(len(POINTS),)]
    if estimate.is_bound == "lower":
        assert bool((excess < math.log(len(POINTS) / FALSE_ALARM)).all())
        assert float(excess.mean()) < NUM_SE * float(estimate.standard_error.mean()) + 1e-6
    elif estimate.is_bound == "upper":
        assert bool((excess > -math.log(len(POINTS) / FALSE_ALARM)).all())


def test_the_ess_counts_particles(name: str) -> None:
    estimator = ESTIMATORS[name]()
    ess = estimator(gan_of(THREE).model(), POINTS).ess
    assert bool((ess >= 1 - 1e-9).all()) and bool((ess <= estimator.num_particles * (1 + 1e-9)).all())


def test_one_data_point_is_a_batch_of_one_and_a_seed_fixes_the_value(name: str, seed: int) -> None:
    estimator, model = ESTIMATORS[name](), gan_of(THREE).model()
    values = []
    for y in (POINTS[0], POINTS[:1]):
        pyro.set_rng_seed(seed)
        values.append(estimator(model, y).value)
    assert values[0].shape == (1,) and torch.equal(*values)


def test_log_prob_is_differentiable_or_refused(name: str, seed: int) -> None:
    estimator, model = ESTIMATORS[name](), gan_of(THREE).model()
    y = POINTS.clone().requires_grad_()
    if not estimator.is_differentiable:
        with pytest.raises(ValueError, match="not a differentiable function of y"):
            estimator.log_prob(model, y)
        return
    pyro.set_rng_seed(seed)
    together = estimator.log_prob(model, y)
    (gradient,) = torch.autograd.grad(together.sum(), y)
    assert bool(gradient.isfinite().all()) and bool(gradient.any())
    pyro.set_rng_seed(seed)
    assert torch.allclose(estimator.log_prob(model, POINTS[2:]), together[2:], atol=1e-9)


@pytest.mark.parametrize("bad", [None, "x", math.nan, POINTS.numpy(), POINTS.tolist(), POINTS[:, :2], POINTS.long()])
def test_bad_data_and_models_are_refused(name: str, bad: object) -> None:
    estimator = ESTIMATORS[name]()
    calls = [estimator, estimator.log_prob] if estimator.is_differentiable else [estimator]
    for call in calls:
        with pytest.raises(ValueError, match="Expected"):
            call(gan_of(THREE).model(), bad)
        with pytest.raises(ValueError, match="Expected a model"):
            call(bad, POINTS)
