"""What a sampler does not know it does not report: errors of log Z from few families, weights that are NaN."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, toys
from pyro_gan.annealing import AIS, SMC, linear
from pyro_gan.importance import systematic
from pyro_gan.mcmc import PCN
from pyro_gan.resampling import RejectionSampler

PRIOR = dist.Normal(torch.zeros(4), 1.0).to_event(1)


def distant() -> LatentPosterior:
    """Return a target so far from the prior that one particle in a thousand, or none, is worth anything."""
    return LatentPosterior(nn.Identity(), lambda x: -500 * (x - 4).square().sum(-1), PRIOR)


def near() -> LatentPosterior:
    toy = toys.gaussian_shift(auc=0.8)
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior)


def test_smc_names_its_few_families() -> None:
    with pytest.warns(UserWarning, match=r"rests on \d\.\d effective families. With fewer than 10"):
        report = SMC(distant(), 100, num_draws=100, num_moves=1, kernel=PCN)().report
    assert math.isnan(report.log_normaliser_se) and math.isfinite(report.log_normaliser)


def test_ais_names_its_few_particles() -> None:
    with pytest.warns(UserWarning, match=r"rests on \d+\.\d effective particles. With fewer than 50"):
        estimate = AIS(distant(), linear(3), num_particles=200)().report.log_normaliser
    assert estimate.standard_error.isnan() and estimate.bias.isnan() and estimate.value.isfinite()


@pytest.mark.parametrize(
    ("sampler", "error"),
    [
        (lambda gan: SMC(gan, 500), lambda report: report.log_normaliser_se),
        (lambda gan: AIS(gan, linear(4), num_particles=500), lambda report: report.log_normaliser.standard_error),
    ],
    ids=["SMC", "AIS"],
)
def test_a_good_run_has_an_error_and_no_warning(sampler: Callable, error: Callable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 < float(error(sampler(near())().report)) < 0.2


# Weights that are NaN or plus infinity

SAMPLERS: dict[str, Callable[[LatentPosterior], Tensor]] = {
    "ImportanceResampler": lambda gan: ImportanceResampler(gan)(500, 4000).samples["z"],
    "RejectionSampler": lambda gan: RejectionSampler(gan)(500).samples["z"],
    "RejectionSampler, bound": lambda gan: RejectionSampler(gan, log_bound=1.0)(500).samples["z"],
    "SMC": lambda gan: SMC(gan, 500, num_draws=500, num_moves=2)().samples["z"],
    "AIS": lambda gan: AIS(gan, linear(3), num_particles=500)().samples["z"],
}


@pytest.mark.parametrize("score", [math.nan, math.inf])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_weight_that_is_unknown_counts_as_zero_and_is_warned_of(name: str, score: float) -> None:
    def log_ratio(x: Tensor) -> Tensor:
        return (0 * x[:, 0]).masked_fill(x[:, 0] > 0.5, score)

    with pytest.warns(UserWarning, match=r"log weights of \d+ of \d+ draws are NaN or \+inf. They count as zero"):
        z = SAMPLERS[name](LatentPosterior(nn.Identity(), log_ratio, PRIOR))
    # Particles of AIS keep their places, with a weight of zero.
    assert name == "AIS" or bool((z[:, 0] <= 0.5).all())


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_systematic_refuses_weights_that_are_unknown(score: float) -> None:
    with pytest.raises(ValueError, match="finite or -inf"):
        systematic(torch.tensor([score, 0.0]), 4)
