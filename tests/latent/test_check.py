"""The check before sampling: what it calls wrong, what it must not call wrong, and what it refuses."""

from __future__ import annotations

import math
import warnings

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio, calibrate, toys
from pyro_gan.latent import PosteriorReport
from pyro_gan.objectives import Bernoulli

NORMAL = dist.Normal(torch.zeros(1), 1.0).to_event(1)


def shifted(shift: float, constant: float = 0.0):
    """The exact log ratio of N(shift, 1) to N(0, 1), plus a constant."""
    return lambda x: shift * x[:, 0] - shift**2 / 2 + constant


def quiet(gan: LatentPosterior, *args, **kwargs) -> PosteriorReport:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gan.check(*args, **kwargs)


def silent(gan: LatentPosterior, *args, **kwargs) -> PosteriorReport:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return gan.check(*args, **kwargs)


# The tail.


def test_a_heavy_tail_is_named_and_a_light_one_passes() -> None:
    toy = toys.gaussian_shift(auc=0.7)
    report = silent(LatentPosterior(toy.generator, toy.log_ratio, toy.prior))
    # The exact ESS fraction of a unit-variance shift is exp(-delta^2).
    assert report.tail.ess_fraction == pytest.approx(math.exp(-(float(toy.posterior.mean) ** 2)), rel=0.2)
    assert not report.problems and report.moments is None and "pass real rows" in str(report)
    with pytest.warns(UserWarning, match="heavy tail") as caught:
        LatentPosterior(toy.generator, lambda x: 20 * toy.log_ratio(x), toy.prior).check()
    assert len(caught) == 1 and caught[0].filename == __file__


def test_the_guard_takes_away_what_the_check_complains_of() -> None:
    toy = toys.gaussian_shift(auc=0.7)
    real, generated = toy.sample_data(20_000), toy.prior.sample((20_000,))

    def critic(x: Tensor) -> Tensor:
        # Right where the data are, wild beyond: no held-out row contradicts it.
        return toy.log_ratio(x) + 10 * torch.relu(x[:, 0] - 3.5)

    free, guarded = (calibrate(critic, real, generated, max_log_ratio=cap) for cap in (None, "auto"))
    with pytest.warns(UserWarning, match="heavy tail"):
        wild = LatentPosterior(toy.generator, free, toy.prior).check().tail
    tame = silent(LatentPosterior(toy.generator, guarded, toy.prior)).tail
    assert tame.ess_fraction > 10 * wild.ess_fraction


# E_G[r] = 1.


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_an_exact_ratio_is_not_called_wrong(temperature: float) -> None:
    """The rate of false alarms is measured in tests/ratio/test_mean_ratio.py; here, that a posterior asks rightly."""
    for shift, constant in ((1.0, 0.0), (2.0, 2.0), (5.0, 2.0)):
        ratio = LogRatio(shifted(shift, constant), Bernoulli())
        gan = LatentPosterior(nn.Identity(), ratio, NORMAL, temperature=temperature)
        report = quiet(gan, torch.randn(500, 1) + shift, features=lambda x: x, num_draws=10_000)
        expected = "near 1" if shift < 3 else "not determined"
        assert report.mean_ratio.verdict == expected and report.mean_ratio.constant is not None
        assert (report.mean_ratio_verdict == expected) == (temperature == 1)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_critic_that_tells_all_outputs_from_data_is_wrong(real: bool, temperature: float) -> None:
    """Negative control, and the fault that an effective sample size does not show: the mean ratio is .001."""

    def critic(x: Tensor) -> Tensor:
        return torch.where(x[:, 0].abs() < 5, x[:, 0] - 7.5, torch.tensor(8.0))

    gan = LatentPosterior(nn.Identity(), LogRatio(critic, Bernoulli()), NORMAL, temperature=temperature)
    rows = torch.randn(500, 1) + 8 if real else None
    report = quiet(gan, rows, features=lambda x: x, num_draws=10_000)
    assert report.tail.ess_fraction > 0.3 and report.mean_ratio.value < 0.03
    assert ("log ratio is wrong" in str(report)) == (temperature == 1)


def test_a_constant_is_removed_with_real_rows_and_else_a_fault_of_a_log_ratio_alone() -> None:
    exact, off = shifted(1.0), shifted(1.0, 2.0)
    gan = LatentPosterior(nn.Identity(), LogRatio(off, Bernoulli()), NORMAL)
    with pytest.warns(UserWarning, match="mean ratio over generated data"):
        assert gan.check(num_draws=10_000).mean_ratio.verdict == "wrong"
    found = silent(gan, torch.randn(3000, 1) + 1, num_draws=10_000).mean_ratio
    assert found.constant == pytest.approx(-2, abs=0.3) and found.verdict == "near 1"
    assert found.value == pytest.approx(1, abs=4.4 * found.standard_error)
    for bare, verdict in ((off, "not normalised"), (exact, "near 1")):
        assert silent(LatentPosterior(nn.Identity(), bare, NORMAL)).mean_ratio.verdict == verdict


def test_without_enough_draws_nothing_is_determined() -> None:
    gan = LatentPosterior(nn.Identity(), LogRatio(shifted(5.0), Bernoulli()), NORMAL)
    report = quiet(gan, torch.randn(500, 1) + 5, num_draws=10_000)
    assert report.mean_ratio.verdict == "not determined"
    assert report.moments is not None and report.moments.verdict == "too few effective draws"
    assert any("Whether the weights help cannot be said" in text for text in report.problems)


# Moments.


def test_the_report_says_better_and_worse() -> None:
    real = torch.randn(2000, 1) + 1
    better = silent(LatentPosterior(nn.Identity(), shifted(1.0), NORMAL), real, num_draws=10_000)
    assert better.moments is not None and better.moments.verdict == "better"
    assert "negative: better" in str(better) and "!" not in str(better)
    with pytest.warns(UserWarning, match="make the generated data worse") as caught:
        worse = LatentPosterior(nn.Identity(), shifted(-1.0), NORMAL).check(real, num_draws=10_000)
    assert worse.moments is not None and worse.moments.verdict == "worse" and len(caught) == 1


def test_the_temperature_flattens_the_weights_of_the_moments() -> None:
    real = torch.randn(2000, 1) + 0.25
    cold, warm = (LatentPosterior(nn.Identity(), shifted(1.0), NORMAL, temperature=t) for t in (1.0, 4.0))
    assert "worse" in str(quiet(cold, real, num_draws=10_000)) and "better" in str(silent(warm, real, num_draws=10_000))


def test_own_features_are_the_users() -> None:
    gan = LatentPosterior(nn.Identity(), shifted(1.0), NORMAL, chunk_size=300)
    real = torch.randn(1000, 1) + 1
    report = silent(gan, real, features=lambda x: torch.cat([x, x.square(), 0 * x], 1), num_draws=2000)
    assert report.moments is not None and (report.moments.num_columns, report.moments.num_generated) == (2, 2000)


def test_it_leaves_the_generator_alone_and_repeats() -> None:
    gan = LatentPosterior(nn.Identity(), shifted(0.5), NORMAL)
    real, state = torch.randn(300, 1), torch.get_rng_state()
    first, again = (quiet(gan, real, num_draws=1000) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state()) and str(first) == str(again)
    assert str(first) != str(quiet(gan, real, num_draws=1000, seed=1))


def test_a_conditional_pair_takes_its_context() -> None:
    def generator(z: Tensor, label: Tensor) -> Tensor:
        return z + label.unsqueeze(-1)

    def critic(x: Tensor, label: Tensor) -> Tensor:
        return shifted(1.0)(x - label.unsqueeze(-1))

    label = torch.tensor(3.0)
    report = silent(LatentPosterior(generator, critic, NORMAL), torch.randn(500, 1) + 4, num_draws=5000, label=label)
    assert report.moments is not None and report.moments.verdict == "better"


# Probabilities.


class Discriminator(nn.Module):
    """Ends in a sigmoid, as many published ones do."""

    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid(), nn.Flatten(0))
        self.layers[0].weight.data.fill_(slope)
        self.layers[0].bias.data.fill_(-3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_a_discriminator_with_a_sigmoid_is_seen_at_every_door() -> None:
    discriminator = Discriminator()
    for critic in (discriminator, discriminator.layers):
        with pytest.warns(UserWarning, match=r"LogRatio\.from_probability") as caught:
            log_ratio = LogRatio(critic, Bernoulli())
        assert len(caught) == 1 and caught[0].filename == __file__
    for taken in (log_ratio, lambda x: discriminator(x)):
        with pytest.warns(UserWarning, match=r"LogRatio\.from_probability") as caught:
            gan = LatentPosterior(nn.Identity(), taken, NORMAL)
        assert len(caught) == 1 and caught[0].filename == __file__
        with pytest.warns(UserWarning, match=r"LogRatio\.from_probability"):
            assert gan.check(num_draws=1000).is_probability
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for right in (discriminator, discriminator.layers, lambda x: discriminator(x)):
            LatentPosterior(nn.Identity(), LogRatio.from_probability(right), NORMAL)


def test_an_honest_log_ratio_is_no_probability() -> None:
    """Of a generator with 2 % of junk the exact log ratio is .02 nearly everywhere: all of a dozen lie in [0, 1]."""

    def honest(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 2.0537, torch.tensor(-8.0), -math.log(0.98) + torch.zeros(len(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            LatentPosterior(nn.Identity(), LogRatio(honest, Bernoulli()), NORMAL)
        LatentPosterior(nn.Identity(), lambda x: 0 * x[:, 0], NORMAL).check(num_draws=1000)


# What it refuses.


@pytest.mark.parametrize(
    ("real", "options", "message"),
    [
        (torch.zeros(99, 1), {}, "at least 100 rows"),
        (torch.zeros(200, 2), {}, "real data of shape"),
        (torch.randn(200, 1).double(), {}, "float32"),
        (torch.full((200, 1), math.nan), {}, "finite real data"),
        (torch.randn(200, 1), {"features": lambda x: x[:, 0]}, "features of shape"),
        (torch.randn(200, 1), {"features": lambda x: x / 0}, "finite features"),
        (torch.randn(200, 1), {"features": lambda x: 0 * x}, "varies over the real rows"),
        (torch.randn(200, 1), {"features": 3}, "features to be a function"),
        (None, {"num_draws": 99}, "num_draws of at least 100"),
        (None, {"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(real: Tensor | None, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentPosterior(nn.Identity(), shifted(1.0), NORMAL).check(real, **({"num_draws": 200} | options))


def test_a_ratio_that_is_nan_somewhere_raises() -> None:
    gan = LatentPosterior(nn.Identity(), lambda x: torch.where(x[:, 0] > 3, torch.nan, x[:, 0]), NORMAL)
    with pytest.raises(ValueError, match="NaN"):
        gan.check(num_draws=10_000)
