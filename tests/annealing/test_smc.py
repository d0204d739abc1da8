"""Sequential Monte Carlo: its normaliser, its outputs, its families, and what it refuses."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, toys
from pyro_gan.annealing import AIS, SMC, Schedule, linear, smc
from pyro_gan.mcmc import MALA
from pyro_gan.targets import make_target
from tests.annealing.models import GaussianRows, Table, affine, model_of, stays
from tests.exact_targets import TARGETS, affine_toy, uniform_latents
from tests.mcmc.members import EXACT
from tests.statistics import assert_chain_mean, assert_chain_sd, assert_close_in_se, assert_follows

NUM_RUNS = 150


def sharp() -> LatentPosterior:
    """Return a model with Z = 1 that needs at least two rungs with 64 particles, also from 256 prior draws."""
    toy = toys.affine_gaussian(5 * torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=10_000)


def runs(sampler: SMC, num_runs: int = NUM_RUNS) -> tuple[Tensor, Tensor]:
    """Return log Z of several runs, and the standard error that each one reports."""
    reports = [sampler().report for _ in range(num_runs)]
    log_z = torch.tensor([report.log_normaliser for report in reports], dtype=torch.float64)
    return log_z, torch.tensor([report.log_normaliser_se for report in reports], dtype=torch.float64)


def assert_unbiased(log_z: Tensor, what: str) -> None:
    z = log_z.exp()
    assert_close_in_se(z.mean(), 1.0, z.std() / math.sqrt(len(z)), what, degrees_of_freedom=len(z) - 1)


# The normaliser


@pytest.mark.parametrize(("kernel", "num_draws"), [("MALA", 400), ("PCN", 1600)])
def test_with_a_schedule_the_normaliser_is_unbiased(kernel: str, num_draws: int) -> None:
    model, make = sharp(), EXACT[kernel]
    schedule = SMC(model, 400, kernel=make, num_moves=2, num_draws=num_draws)().report.schedule
    assert len(schedule.betas) >= 3
    log_z, se = runs(SMC(model, 400, kernel=make, num_draws=num_draws, schedule=schedule))
    assert_unbiased(log_z, f"{kernel}, {num_draws} draws")
    # The standard error by families is that of repeated runs.
    assert 0.7 < float(se.square().mean().sqrt() / log_z.std()) < 1.5


def test_a_schedule_may_go_many_rungs_without_resampling() -> None:
    model = sharp()
    result = SMC(model, 64, num_draws=64, schedule=Schedule(linear(8), torch.full((9, 1), 0.05), 1))
    report = result().report
    assert report.resampled[-1] and not all(report.resampled)
    assert [fraction < 0.5 for fraction in report.ess_fraction[:-1]] == list(report.resampled[:-1])
    assert_unbiased(runs(result)[0], "resampled on some rungs")


@pytest.mark.parametrize("flaw", ["weights reset without resampling", "resampled without resetting weights"])
def test_a_flawed_resampling_is_found(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sharp()
    # With 64 particles log Z varies so much that one flaw hides in a third of the seeds.
    schedule = SMC(model, 400, num_draws=400, num_moves=2)().report.schedule
    if flaw == "weights reset without resampling":
        monkeypatch.setattr(smc, "systematic", lambda log_share, num: torch.arange(num))
    else:
        real, zeros, kept = smc.systematic, torch.zeros, {}

        def systematic(log_share: Tensor, num: int) -> Tensor:
            index = real(log_share, num)
            kept["log_share"] = log_share[index]
            return index

        def stale(*size: int, **kwargs) -> Tensor:
            return kept.pop("log_share") if kept else zeros(*size, **kwargs)

        monkeypatch.setattr(smc, "systematic", systematic)
        monkeypatch.setattr(smc.torch, "zeros", stale)
    log_z, _ = runs(SMC(model, 400, num_draws=400, schedule=schedule), 80)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_unbiased(log_z, flaw)


@pytest.mark.parametrize("name", ["affine", "grid"])
def test_an_exact_ratio_has_the_normaliser_0(name: str) -> None:
    toy = toys.grid(dtype=torch.float64) if name == "grid" else affine_toy(3)
    model = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=10_000)
    report = SMC(model, 2000, num_moves=3)().report
    assert 0 < report.log_normaliser_se < 0.1
    assert_close_in_se(report.log_normaliser, 0.0, report.log_normaliser_se, name)


# The outputs


@pytest.mark.parametrize(
    ("kernel", "target"),
    [
        ("MALA", "gaussian 2"),
        ("PCN", "affine posterior"),
        ("BatchHMC", "banana"),
        ("ISIR", "affine posterior"),
        ("LocalGlobal, MALA and ISIR", "gaussian 2"),
    ],
)
def test_outputs_have_the_targets_moments(kernel: str, target: str) -> None:
    law = TARGETS[target]()
    sampler = SMC(model_of(law), 1000, kernel=EXACT[kernel], num_moves=5, num_draws=2000)
    # Runs are independent; the particles of a run are not.
    z = torch.stack([sampler().samples["z"] for _ in range(20)])
    assert_chain_mean(z, law.mean, f"{kernel} on {target}")
    assert_chain_sd(z, law.sd, law.mean, f"{kernel} on {target}", max_relative_se=0.05)


def test_log_ratios_are_those_of_the_outputs() -> None:
    model = sharp()
    result = SMC(model, 100)()
    torch.testing.assert_close(result.log_ratio, model.log_weight(result.samples))
    assert result.samples["z"].shape == (100, 2) and result.samples["z"].dtype == torch.float64


def test_bounded_latents_follow_their_law() -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior, chunk_size=10_000)
    # Enough moves that the descendants of a draw have forgotten it.
    z = SMC(model, 2000, num_moves=60)().samples["z"]
    assert (z.abs() <= 1).all()
    assert_follows(z, gan.law.cdf, "bounded latents")


def test_context_reaches_the_networks() -> None:
    prior = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
    model = LatentPosterior(
        lambda z, *, label: z + label[:, None], lambda x, *, label: label * x[:, 0] - 1.5 * label.square(), prior
    )
    z = SMC(model, 2000, num_moves=20)(label=torch.tensor(-0.8)).samples["z"]
    assert float(z.mean()) == pytest.approx(-0.8, abs=0.25)


# The report


def test_families_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smc, "MIN_FAMILIES", 1)
    log9 = math.log(9)
    model = Table([log9, 0.0, -math.inf, math.nan])
    report = SMC(model, 4, num_draws=4, kernel=stays, schedule=Schedule((0.0, 0.5, 1.0), None, 1))().report
    # At power 1/2 the weights are 3, 1, 0, 0: three copies of the first draw and one of the second.
    assert report.resampled == (True, True) and report.num_zero == 2
    assert report.ess_fraction == pytest.approx((1.6 / 4, 100 / 28 / 4))
    # Then they are 3, 3, 3, 1: a mean of 1 times a mean of 2.5; the first family has nine tenths of the weight.
    assert report.log_normaliser == pytest.approx(math.log(2.5))
    assert report.log_normaliser_se == pytest.approx(math.sqrt(0.81 + 0.01 - 0.25))
    # The next copies are 3.6 of the first family and 0.4 of the second, rounded up or down.
    assert report.ancestors == report.distinct and report.ancestors in (1, 2)
    expected = {1: 1.0, 2: 1 / (9 / 16 + 1 / 16)}
    assert report.effective_families == pytest.approx(expected[report.ancestors])
    assert report.schedule.step_sizes is None


def test_the_ladder_keeps_the_threshold_and_the_cost_is_counted() -> None:
    report = SMC(sharp(), 500, num_draws=500, ess_threshold=0.6, num_moves=3)().report
    assert len(report.betas) >= 4 and report.betas[0] == 0 and report.betas[-1] == 1
    assert report.ess_fraction[:-1] == pytest.approx([0.6] * (len(report.betas) - 2), rel=1e-6)
    assert report.ess_fraction[-1] >= 0.6
    rungs = len(report.betas) - 1
    assert len(report.acceptance) == len(report.ess_fraction) == len(report.resampled) == rungs
    assert (report.num_forwards, report.num_gradients) == (500, 500 + 500 * 3 * rungs)
    assert report.effective_families <= report.ancestors <= report.distinct <= 500


def test_more_draws_mean_more_families_and_fewer_rungs() -> None:
    few, many = (SMC(sharp(), 200, num_draws=draws)().report for draws in (200, 20_000))
    assert many.num_draws == 20_000 and many.num_forwards == 20_000
    assert len(many.betas) < len(few.betas) and many.effective_families > few.effective_families


# Scores that are not finite


@pytest.mark.parametrize("kernel", ["MALA", "PCN"])
@pytest.mark.parametrize("outside", [math.nan, -math.inf])
def test_half_of_the_prior_without_a_weight(outside: float, kernel: str) -> None:
    prior = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)

    def log_ratio(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, math.log(2) + 0 * x[:, 0], outside)

    model = LatentPosterior(torch.nn.Identity(), log_ratio, prior)
    result = SMC(model, 1000, num_draws=1000, kernel=EXACT[kernel], num_moves=20)()
    assert (result.samples["z"] > 0).all() and result.log_ratio.isfinite().all()
    assert 350 < result.report.num_zero < 650
    if outside != outside:
        assert result.report.num_invalid > 0
    assert_close_in_se(result.report.log_normaliser, 0.0, result.report.log_normaliser_se, "log normaliser")
    assert float(result.samples["z"].mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.15)


# Any model


def test_the_evidence_of_any_pyro_model() -> None:
    def model(y: Tensor, *, sd: float) -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, sd), obs=y)

    y, sd = torch.tensor([0.5, 1.5, -0.2, 1.0], dtype=torch.float64), 0.6
    covariance = sd**2 * torch.eye(4, dtype=torch.float64) + 1
    exact = dist.MultivariateNormal(torch.zeros(4).double(), covariance_matrix=covariance).log_prob(y)
    report = SMC(model, 1000)(y, sd=sd).report
    assert_close_in_se(report.log_normaliser, exact, report.log_normaliser_se, "SMC", max_relative_se=0.02)
    estimate = AIS(model, linear(10), num_particles=1000)(y, sd=sd).report.log_normaliser
    assert_close_in_se(estimate.value, exact, estimate.standard_error, "AIS", max_relative_se=0.02)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_particles": 1}, "num_particles of at least 2; got 1"),
        ({"ess_threshold": 0.0}, r"ess_threshold in \(0, 1\); got 0.0"),
        ({"ess_threshold": 1.0}, r"ess_threshold in \(0, 1\); got 1.0"),
        ({"ess_threshold": math.nan}, r"ess_threshold in \(0, 1\); got nan"),
        ({"num_moves": 0}, "num_moves of at least 1; got 0"),
        ({"num_draws": 10}, "num_draws of at least 1000; got 10. There must be a draw for each of num_particles"),
        ({"schedule": Schedule((0.0, 0.5), None, 1)}, "rises from 0"),
        ({"kernel": MALA(affine())}, r"lambda target: MALA\(target, \.\.\.\), not MALA\(model\)"),
        ({"kernel": "MALA"}, "got 'MALA'. Pass MALA, or lambda"),
    ],
)
def test_bad_input_raises(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMC(affine(), **arguments)


def test_a_target_without_a_split_raises() -> None:
    bare = make_target(None, lambda p: p["z"].square().sum(-1), prototype={"z": torch.zeros(2)})
    with pytest.raises(ValueError, match="does not say which part of it is the prior: pass a model"):
        SMC(bare)()


def test_no_weight_at_all_raises() -> None:
    with pytest.raises(ValueError, match="all 4 weights are zero, and so were those of 4 of 4 prior draws"):
        SMC(Table([-math.inf] * 4), 4, num_draws=4, kernel=stays)()


def test_a_ladder_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smc, "MAX_RUNGS", 1)
    with pytest.raises(ValueError, match=r"1 rungs have only reached a power of 0\.\d+ of the weight"):
        SMC(sharp(), 100, num_draws=100)()


def test_a_target_will_do_in_place_of_a_model() -> None:
    target = GaussianRows(torch.tensor([1.0]).double(), torch.tensor([0.5]).double(), 300)
    report = SMC(target, 300, num_draws=300)().report
    assert_close_in_se(report.log_normaliser, target.log_z[0], report.log_normaliser_se, "log normaliser")
