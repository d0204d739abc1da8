"""The error of a ratio of several networks: in the tail of its weights, in the change of moments, and in `check`."""

import math
import warnings

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio
from pyro_gan._typing import ReplicatedRatio
from pyro_gan.importance import jackknife_error, weight_tail
from pyro_gan.objectives import Bernoulli
from pyro_gan.ratio import CalibratedLogRatio, MeanLogRatio, TailGuard, moment_change
from tests.statistics import NUM_SE, assert_close_in_se

PRIOR = dist.Normal(0, 1).expand([2]).to_event(1)
#: Of N((1, 0), I) against N(0, I).
SHIFT = torch.tensor([1.0, 0.0])


class Line(nn.Module):
    """The exact log ratio with an error along a direction, and the error of a constant."""

    def __init__(self, error: float, constant: float = 0.0) -> None:
        super().__init__()
        self.error, self.constant = error, constant

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] - 0.5 + self.error * x[:, 1] + self.constant


def mean_ratio(errors: list[float], constants: list[float] | None = None) -> MeanLogRatio:
    constants = [0.0] * len(errors) if constants is None else constants
    return MeanLogRatio([Line(*each) for each in zip(errors, constants, strict=True)])


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """For the mean of n numbers, left out one by one, the formula is exact: s over the root of n."""
    values = torch.randn(40, dtype=torch.float64)
    left_out = (values.sum() - values) / 39
    assert float(jackknife_error(left_out)) == pytest.approx(float(values.std()) / math.sqrt(40), rel=1e-9)
    with pytest.raises(ValueError, match="number of replicates of at least 2; got 1"):
        jackknife_error(values[:1])


def test_the_error_of_the_largest_weights() -> None:
    """Lines that differ by a slope: the error of log r at x is the error of the slope times x."""
    x = torch.randn(20_000, dtype=torch.float64)
    slopes = torch.tensor([0.8, 1.0, 1.3], dtype=torch.float64)
    constants = torch.tensor([5.0, -100.0, 0.0], dtype=torch.float64)
    tail = weight_tail(x, replicates=slopes[:, None] * x + constants[:, None])
    largest = x.topk(math.ceil(3 * math.sqrt(len(x)))).values
    # A replicate is normalised by its own mean weight, exp(slope^2 / 2).
    expected = jackknife_error(slopes[:, None] * largest - slopes[:, None].square() / 2).square().mean().sqrt()
    # At slope 1.3 the log of a mean of 20 000 weights has an error of .014.
    assert abs(tail.top_error - float(expected)) < 0.1
    constant = weight_tail(x, replicates=x + constants[:, None])
    assert constant.top_error == pytest.approx(0, abs=1e-9) and not constant.uncertainty
    assert weight_tail(x).top_error is None


def test_uncertain_weights_are_complained_of_and_zeros_too() -> None:
    x = torch.randn(5000)
    far = weight_tail(x, replicates=torch.stack([0 * x, x, 2 * x]))
    assert far.complaints == (far.uncertainty,) and "uncertain by" in far.uncertainty
    near = weight_tail(x, replicates=torch.stack([0.9 * x, x, 1.1 * x]))
    assert near.complaints == () and 0 < near.top_error < 0.5
    zero = x.clone()
    zero[x.argmax()] = -torch.inf
    assert "uncertain by nan" in weight_tail(x, replicates=torch.stack([x, zero])).complaints[-1]


def test_the_error_of_a_change_covers_what_other_fits_would_give() -> None:
    """Slopes along x1 of .5 with an error of .1; the change of moments varies over fits by what its ratio_se says.

    The change is half the square of the slope, of which the jackknife sees the tangent: 2 % too much.
    """
    k, error = 5, 0.1
    real, generated = torch.randn(2000, 2) + SHIFT, torch.randn(2000, 2)
    found = []
    for _ in range(100):
        slopes = error * torch.randn(k * 20).reshape(k, 20) * math.sqrt(k * 20)
        left_out = (slopes.sum() - slopes.sum(1)) / (k * 20 - 20)
        ratio = mean_ratio((0.5 + left_out).tolist())
        both = ratio(generated), ratio.each(generated)
        found.append(moment_change(real, generated, both[0], replicates=both[1], num_bootstrap=20))
    changes = torch.tensor([each.change for each in found])
    variances = torch.tensor([each.ratio_se for each in found]).square()
    # The standard deviation of 100 changes has a relative error of .07, the mean of 100 variances one of .035.
    assert_close_in_se(variances.mean().sqrt() / changes.std(), 1.02, 0.08, "error over the spread of changes")
    plain = moment_change(real, generated, both[0], num_bootstrap=20)
    assert plain.ratio_se is None and plain.change == found[-1].change
    assert found[-1].change_se == pytest.approx(math.hypot(plain.change_se, found[-1].ratio_se))


def test_a_verdict_needs_a_change_that_other_fits_would_give_too() -> None:
    real, generated = torch.randn(4000, 2) + SHIFT, torch.randn(8000, 2)
    for spread, verdict in ((0.02, "better"), (1.5, "no difference that these rows can show")):
        ratio = mean_ratio([-spread, 0.0, spread])
        change = moment_change(real, generated, ratio(generated), replicates=ratio.each(generated))
        assert change.verdict == verdict


def test_every_wrapper_passes_the_replicates_on() -> None:
    mean = mean_ratio([0.1, 0.2, 0.6])
    x = torch.randn(50, 2)
    head = LogRatio(mean, Bernoulli(class_prior=0.2))
    assert torch.allclose(torch.stack([each(x) for each in head.replicates]).mean(0), head(x), atol=1e-6)
    calibrated = CalibratedLogRatio(LogRatio(mean, Bernoulli()))
    calibrated.guard = TailGuard(0.5)
    each = torch.stack([each(x) for each in calibrated.replicates])
    assert torch.allclose(each, calibrated.guard(calibrated.calibrator(mean.each(x).flatten())).reshape(3, -1))
    for alone in (LogRatio(Line(0.0), Bernoulli()), CalibratedLogRatio(Line(0.0))):
        assert isinstance(alone, ReplicatedRatio) and not list(alone.replicates)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_check_takes_the_error_from_the_networks(real: bool, temperature: float) -> None:
    rows = torch.randn(2000, 2) + SHIFT if real else None
    found = {}
    for spread in (0.01, 1.3):
        gan = LatentPosterior(
            nn.Identity(), LogRatio(mean_ratio([-spread, 0.0, spread]), Bernoulli()), PRIOR, temperature=temperature
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[spread] = gan.check(rows, num_draws=4000)
    few, many = found[0.01], found[1.3]
    # Top draws lie at any x1, so the root mean square of the error there is nearly that of the slope.
    slope_error = 1.3 * math.sqrt(4 / 3)
    assert_close_in_se(many.tail.top_error * temperature / slope_error, 1.0, 0.1 * temperature, "top error")
    assert few.tail.top_error < 0.02
    says = [problem for problem in many.problems if "is not known well enough where it is large" in problem]
    assert bool(says) == (temperature == 1) and not few.problems
    assert ("+- " in str(few)) and "largest weights, nats" in str(few)
    if real:
        assert many.moments.ratio_se > NUM_SE * few.moments.ratio_se > 0
    alone = LatentPosterior(nn.Identity(), LogRatio(Line(0.0), Bernoulli()), PRIOR).check(rows, num_draws=1000)
    assert alone.tail.top_error is None and "largest weights, nats" not in str(alone)
