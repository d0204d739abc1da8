"""What the report on a posterior says in words, and at which temperature its figures are."""

from __future__ import annotations

import math
import warnings

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio
from pyro_gan.latent import PosteriorReport
from pyro_gan.objectives import Bernoulli

NORMAL = dist.Normal(torch.zeros(1), 1.0).to_event(1)


def check(slope: float, real: Tensor | None, *, constant: float = 0.0, temperature: float = 1.0) -> PosteriorReport:
    ratio = LogRatio(lambda x: slope * x[:, 0] - slope**2 / 2 + constant, Bernoulli())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = LatentPosterior(nn.Identity(), ratio, NORMAL, temperature=temperature)
        return posterior.check(real, features=lambda x: x, num_draws=10_000)


def test_the_tail_is_that_of_the_temperature_with_real_rows_and_without() -> None:
    """The ESS fraction of exp(s x / T) over N(0, 1) is exp(-(s / T)^2)."""
    for real in (None, torch.randn(200, 1) + 2):
        assert check(2.0, real, temperature=4.0).tail.ess_fraction == pytest.approx(math.exp(-0.25), rel=0.05)


def test_a_heavy_tail_that_helps_is_not_called_harmful() -> None:
    helps, harms = check(2.2, torch.randn(500, 1) + 2.2), check(-2.2, torch.randn(500, 1) + 2.2)
    for report, said in ((helps, "yet the weights move the moments towards"), (harms, "a longer chain gives worse")):
        assert [said in text for text in report.problems if "heavy tail" in text] == [True]


def test_a_wrong_mean_says_what_real_rows_have_shown() -> None:
    with_real = [text for text in check(0.0, torch.randn(500, 1)).problems if "log ratio is wrong" in text]
    assert not with_real
    without = [text for text in check(1.0, None, constant=2.0).problems if "log ratio is wrong" in text]
    assert len(without) == 1 and "check(real) tells" in without[0] and "after removing" not in without[0]


def test_the_constant_is_named_where_it_was_removed() -> None:
    def tells_apart(x: Tensor) -> Tensor:
        return torch.where(x[:, 0].abs() < 5, x[:, 0] - 7.5, torch.tensor(8.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = LatentPosterior(nn.Identity(), LogRatio(tells_apart, Bernoulli()), NORMAL)
        report = posterior.check(torch.randn(300, 1) + 8, features=lambda x: x, num_draws=5000)
    wrong = [text for text in report.problems if "log ratio is wrong" in text]
    assert len(wrong) == 1 and "after removing the constant" in wrong[0] and "check(real) tells" not in wrong[0]
