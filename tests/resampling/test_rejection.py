"""The rejection sampler: exact if it says so, with counted exceedances, on budget, and strict about bad input."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal, localcontext
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, calibrate, toys
from pyro_gan.importance import weight_tail
from pyro_gan.ratio import CalibratedLogRatio, TailGuard
from pyro_gan.resampling import RejectionSampler, draws, rejection
from pyro_gan.resampling._acceptance import budget_cut, drs_log_odds, drs_shift
from tests.exact_targets import affine_toy, quadrature, uniform_latents
from tests.statistics import assert_close_in_se, assert_different, assert_follows, assert_mean, assert_same_distribution

NUM_OUTPUTS = 4000
ONE = torch.ones(1, dtype=torch.float64)


class Script:
    """A model whose prior counts 0, 1, 2, ... and whose log weights are given; the last one repeats."""

    chunk_size = None

    def __init__(self, log_weights: Tensor) -> None:
        self.log_weights = log_weights
        self.transforms: dict[str, Any] = {}
        self.blocks: list[int] = []
        self.count = 0

    def __call__(self) -> None:
        raise NotImplementedError

    def validate(self) -> None:
        # A run begins. The target takes the first draw, to find the shape.
        self.blocks, self.count = [], -1

    def potential_fn(self, params: dict[str, Tensor]) -> Tensor:
        return -self.log_weight(params)

    def log_prior(self, params: dict[str, Tensor]) -> Tensor:
        return torch.zeros_like(params["z"][:, 0])

    def log_weight(self, params: dict[str, Tensor]) -> Tensor:
        return self.log_weights[params["z"][:, 0].long().clamp(0, len(self.log_weights) - 1)]

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        self.blocks.append(num_draws)
        z = torch.arange(self.count, self.count + num_draws, dtype=torch.float64)
        self.count += num_draws
        return {"z": z[:, None]}


def affine(temperature: float = 1.0) -> tuple[LatentPosterior, toys.Toy, float]:
    """A GAN whose data are narrower than its outputs, and the smallest bound of its log ratio."""
    toy = affine_toy()
    peak = torch.linalg.solve(toy.log_ratio.curvature, toy.log_ratio.linear)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, temperature=temperature)
    return gan, toy, float(toy.log_ratio(peak))


def bounded() -> tuple[LatentPosterior, Any, float]:
    """Uniform latents, and the smallest bound: the ratio has its peak at the centre of the data."""
    gan = uniform_latents()
    return LatentPosterior(gan.generator, gan.log_ratio, gan.prior), gan, gan.log_ratio.constant


def shift(auc: float = 0.8, **options: Any) -> LatentPosterior:
    """A ratio without a bound."""
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior, **options)


# Exact


def test_with_a_bound_outputs_are_draws_of_the_target() -> None:
    gan, toy, bound = affine()
    result = RejectionSampler(gan, log_bound=bound)(NUM_OUTPUTS)
    report, z = result.report, result.samples["z"]
    assert report.exact and report.bound_kind == "given" and report.num_exceedances == 0
    assert report.log_bound == bound and report.c == 1
    assert len(z) == report.num_outputs == NUM_OUTPUTS and len(z.unique(dim=0)) == NUM_OUTPUTS
    assert_same_distribution(z, toy.posterior.sample((NUM_OUTPUTS,)), "rejection against the posterior")
    torch.testing.assert_close(result.log_ratio, gan.log_weight({"z": z}))


def test_a_bound_too_small_gives_other_outputs_and_the_test_sees_it() -> None:
    """Negative control: with a budget, heavy draws are accepted as if they weighed less."""
    gan, toy, bound = affine()
    report, z = ((result := RejectionSampler(gan, log_bound=bound, budget=0.2)(NUM_OUTPUTS)).report, result.samples)
    assert not report.exact and report.c > 1
    assert_different(z["z"], toy.posterior.sample((NUM_OUTPUTS,)), "budget against the posterior")


@pytest.mark.parametrize("slack", [0.0, 1.0])
def test_acceptance_is_one_over_m_for_a_normalised_ratio(slack: float) -> None:
    gan, _, bound = affine()
    report = RejectionSampler(gan, log_bound=bound + slack)(NUM_OUTPUTS).report
    expected = math.exp(-bound - slack)
    se = math.sqrt(expected * (1 - expected) / report.num_draws)
    assert_close_in_se(report.acceptance, expected, se, "acceptance", max_relative_se=0.03)
    assert report.exact and report.num_forwards == report.num_draws


def test_bounded_latents_come_back_constrained() -> None:
    gan, truth, bound = bounded()
    result = RejectionSampler(gan, log_bound=bound)(NUM_OUTPUTS)
    z = result.samples["z"]
    assert result.report.exact and (z.abs() <= 1).all()
    assert_follows(z, truth.law.cdf, "bounded latents")
    torch.testing.assert_close(result.log_ratio, truth.log_ratio(truth.generator(z)))


def test_blocks_do_not_change_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "BLOCK_DRAWS", 77)
    monkeypatch.setattr(rejection, "BLOCK_DRAWS", 77)
    gan, truth, bound = bounded()
    result = RejectionSampler(gan, log_bound=bound)(NUM_OUTPUTS)
    assert_follows(result.samples["z"], truth.law.cdf, "small blocks")
    assert result.report.tail.num_draws == 77


def test_outputs_are_the_first_accepted_in_the_order_drawn() -> None:
    model = Script(torch.zeros(1, dtype=torch.float64))
    result = RejectionSampler(model, log_bound=0.0)(3000)
    assert torch.equal(result.samples["z"][:, 0], torch.arange(3000, dtype=torch.float64))
    assert result.report.acceptance == 1 and result.report.num_draws == 3150


def test_memory_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "BLOCK_DRAWS", 500)
    monkeypatch.setattr(rejection, "BLOCK_DRAWS", 500)
    model = Script(torch.zeros(1, dtype=torch.float64))
    with pytest.warns(UserWarning, match="Only 1700 of 2000"):
        report = RejectionSampler(model, budget=0.5, pilot_draws=1300)(2000, max_draws=1700).report
    assert model.blocks[1:] == [500, 500, 300, 500, 500, 500, 200]
    assert (report.num_draws, report.num_forwards) == (1700, 3000)


def test_every_block_has_random_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws that all weigh M / 2 are accepted with probability 1 / 2, whatever happened in the block before."""
    size = 500
    monkeypatch.setattr(draws, "BLOCK_DRAWS", size)
    monkeypatch.setattr(rejection, "BLOCK_DRAWS", size)
    result = RejectionSampler(Script(torch.zeros(1, dtype=torch.float64)), log_bound=math.log(2.0))(5000)
    accepted = torch.zeros(result.report.num_draws // size, size)
    chosen = result.samples["z"][:, 0].long()
    accepted.view(-1)[chosen[chosen < accepted.numel()]] = 1
    # The last block may hold draws that came after the 5000th output.
    earlier, later = accepted[:-2], accepted[1:-1]
    assert earlier.numel() > 8 * size
    alike = (earlier == later).double().mean()
    assert_close_in_se(alike, 0.5, 0.5 / math.sqrt(earlier.numel()), "share of draws with the same fate")


# The bound


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_tail_guard_is_a_bound(temperature: float) -> None:
    toy = toys.gaussian_shift(0.8, dtype=torch.float64)
    log_ratio = CalibratedLogRatio(toy.log_ratio)
    log_ratio.guard = TailGuard(1.2).double()
    gan = LatentPosterior(toy.generator, log_ratio, toy.prior, temperature=temperature)
    law = quadrature(lambda z: toy.prior.log_prob(z[:, None]) + gan.log_weight({"z": z[:, None]}), -10, 10)
    assert gan.log_weight_bound == log_ratio.upper_bound / temperature
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = RejectionSampler(gan)(NUM_OUTPUTS)
    assert result.report.exact and result.report.bound_kind == "guard"
    assert_follows(result.samples["z"], law.cdf, "guarded")


def test_calibrate_gives_a_bound_unless_told_not_to() -> None:
    real, generated = torch.randn(4000, 1) + 1, torch.randn(4000, 1)
    prior = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
    log_ratio = calibrate(lambda x: 3 * x, real, generated)
    gan = LatentPosterior(nn.Identity(), log_ratio, prior)
    assert gan.log_weight_bound == pytest.approx(log_ratio.report.cap, rel=1e-6)
    assert RejectionSampler(gan)(500).report.exact
    open_ended = calibrate(lambda x: 3 * x, real, generated, max_log_ratio=None)
    assert open_ended.upper_bound is None
    assert LatentPosterior(nn.Identity(), open_ended, prior).log_weight_bound is None
    assert shift().log_weight_bound is None


@pytest.mark.parametrize("cap", [0.1, 0.7, 2.3, 5.9, 13.1])
def test_rounding_is_no_exceedance(cap: float) -> None:
    # Most draws lie on the cap. Divided in single precision the cap may exceed the quotient in double precision.
    log_ratio = CalibratedLogRatio(lambda x: 1e9 * x[:, 0])
    log_ratio.guard = TailGuard(cap)
    prior = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
    for temperature in (1.0, 3.0, 7.0):
        gan = LatentPosterior(nn.Identity(), log_ratio, prior, temperature=temperature)
        assert RejectionSampler(gan)(100).report.exact


def test_the_callers_bound_goes_first() -> None:
    toy = toys.gaussian_shift(0.8, dtype=torch.float64)
    log_ratio = CalibratedLogRatio(toy.log_ratio)
    log_ratio.guard = TailGuard(1.2).double()
    gan = LatentPosterior(toy.generator, log_ratio, toy.prior)
    report = RejectionSampler(gan, log_bound=2.0)(100).report
    assert (report.log_bound, report.bound_kind, report.exact) == (2.0, "given", True)


def test_a_false_bound_is_counted_warned_of_and_raised() -> None:
    gan, toy, bound = affine()
    with pytest.warns(UserWarning, match=r"\d+ of \d+ draws weighed more than the bound given, .* was raised to"):
        result = RejectionSampler(gan, log_bound=bound - 1)(NUM_OUTPUTS)
    report = result.report
    assert not report.exact and report.num_exceedances > 100 and report.bound_kind == "given"
    assert bound - 0.1 < report.log_bound <= bound
    assert_same_distribution(result.samples["z"], toy.posterior.sample((NUM_OUTPUTS,)), "bound raised")


def test_a_raised_bound_thins_what_was_kept() -> None:
    # A first block of 3150 draws with weights 0 and 1 in turn; then weights of 4.
    first = torch.zeros(3150, dtype=torch.float64)
    first[::2] = -math.inf
    log_weights = torch.cat([first, torch.full((1,), math.log(4.0), dtype=torch.float64)])
    with pytest.warns(UserWarning, match="bound given, 0 nats, which was raised to 1.38629"):
        result = RejectionSampler(Script(log_weights), log_bound=0.0)(3000)
    z = result.samples["z"][:, 0]
    early = z[z < 3150]
    assert (early % 2 == 1).all() and (z.diff() > 0).all()
    assert_close_in_se(len(early), 1575 / 4, math.sqrt(1575 * 3 / 16), "kept from the first block")
    # All later draws have the weight of the bound.
    assert torch.equal(z[len(early) :], torch.arange(3150, 3150 + 3000 - len(early), dtype=torch.float64))


def test_an_estimated_bound_is_never_called_exact() -> None:
    # The weights are 1 and 3. Every pilot contains both, so no weight exceeds the bound; but nothing proves that.
    gan = LatentPosterior(
        nn.Identity(), lambda x: math.log(3) * (x[:, 0] > 0).double(), dist.Normal(0 * ONE, ONE).to_event(1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = RejectionSampler(gan)(NUM_OUTPUTS)
    report = result.report
    assert (report.exact, report.num_exceedances, report.bound_kind) == (False, 0, "estimated")
    assert report.log_bound == pytest.approx(math.log(3))
    assert report.num_forwards == report.num_draws + 10_000 == report.tail.num_draws
    upper = (result.samples["z"] > 0).double().mean()
    assert_close_in_se(upper, 0.75, math.sqrt(0.75 * 0.25 / NUM_OUTPUTS), "share of the heavy half")


def test_exceedances_of_an_estimated_bound_are_counted_and_warned_of() -> None:
    with pytest.warns(UserWarning, match="bound estimated from the pilot, .* which was raised to"):
        result = RejectionSampler(shift(), pilot_draws=100)(NUM_OUTPUTS)
    report = result.report
    assert report.num_exceedances > 0 and not report.exact
    assert report.log_bound >= result.log_ratio.max()


# gamma


def test_log_odds_are_right_to_the_last_digits() -> None:
    x = torch.tensor([0.0, -1e-12, -1e-7, -1e-3, -0.5, -0.7, -3.0, -40.0, -800.0], dtype=torch.float64)
    with localcontext() as context:
        context.prec = 500
        exact = [float(v - (1 - (v - Decimal("1e-6")).exp()).ln()) for v in map(Decimal, x.tolist())]
    expected = torch.tensor(exact, dtype=torch.float64)
    torch.testing.assert_close(drs_log_odds(x, 0.0), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(drs_log_odds(x + 2, 2.0), expected, rtol=1e-9, atol=1e-9)
    none, above = drs_log_odds(torch.tensor([-math.inf, 3.0], dtype=torch.float64), 2.0).tolist()
    assert none == -math.inf and above == pytest.approx(exact[0])


def test_a_percentile_is_of_the_draws_of_some_weight() -> None:
    log_weight = torch.randn(1001, dtype=torch.float64)
    bound = float(log_weight.max())
    for gamma in (0.0, 30.0, 100.0):
        expected = float(drs_log_odds(log_weight, bound).quantile(gamma / 100))
        with_none = torch.cat([log_weight, torch.full((500,), -math.inf, dtype=torch.float64)])
        assert drs_shift(with_none, bound, gamma) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 60.0, 95.0])
def test_gamma_gives_the_papers_distribution_and_not_the_target(gamma: float) -> None:
    gan, truth, bound = bounded()
    result = RejectionSampler(gan, gamma=gamma, log_bound=bound, pilot_draws=200_000)(NUM_OUTPUTS)
    z, report = result.samples["z"], result.report
    assert not report.exact and report.num_exceedances == 0 and report.c == 1
    assert report.num_forwards == report.num_draws + 200_000
    odds = drs_log_odds(truth.log_ratio(torch.linspace(-2, 2, 400_001, dtype=torch.float64)[:, None]), bound)
    percentile = odds.quantile(gamma / 100)
    bent = quadrature(
        lambda z: nn.functional.logsigmoid(drs_log_odds(truth.log_ratio(2 * z[:, None]), bound) - percentile), -1, 1
    )
    assert_follows(z, bent.cdf, "gamma's distribution")
    expected = math.exp(bent.log_normaliser) / 2
    assert_close_in_se(report.acceptance, expected, 1.5 * math.sqrt(expected / report.num_draws), "acceptance")
    with pytest.raises(AssertionError, match="does not follow"):
        assert_follows(z, truth.law.cdf, "the target")


# Budget


@pytest.mark.parametrize("budget", [0.15, 0.5, 0.9])
def test_a_budget_is_met(budget: float) -> None:
    gan, _, bound = affine()
    report = RejectionSampler(gan, budget=budget, log_bound=bound)(NUM_OUTPUTS).report
    # The error of the pilot's mean acceptance is at most that of coins with this probability.
    se = math.sqrt(budget * (1 - budget) * (1 / report.num_draws + 1 / 10_000))
    assert_close_in_se(report.acceptance, budget, se, "acceptance")
    assert report.c > 1 and not report.exact


def test_a_budget_of_one_is_the_prior() -> None:
    gan, toy, bound = affine()
    result = RejectionSampler(gan, budget=1, log_bound=bound)(NUM_OUTPUTS)
    # Draws as heavy as the lightest of the pilot are always accepted; about one draw in 10 000 is lighter.
    assert result.report.acceptance > 0.995
    assert_same_distribution(result.samples["z"], toy.prior.sample((NUM_OUTPUTS,)), "the prior itself")


def test_a_budget_gives_the_papers_distribution() -> None:
    gan, truth, bound = bounded()
    result = RejectionSampler(gan, budget=0.8, log_bound=bound, pilot_draws=200_000)(NUM_OUTPUTS)
    cut = bound - math.log(result.report.c)
    law = quadrature(lambda z: truth.log_ratio(2 * z[:, None]).clamp(max=cut), -1, 1)
    assert_follows(result.samples["z"], law.cdf, "budget's distribution")
    with pytest.raises(AssertionError, match="does not follow"):
        assert_follows(result.samples["z"], truth.law.cdf, "the target")


def test_a_budget_that_costs_nothing_leaves_rejection_exact() -> None:
    gan, toy, bound = affine()
    result = RejectionSampler(gan, budget=0.5 * math.exp(-bound), log_bound=bound)(NUM_OUTPUTS)
    assert result.report.exact and result.report.c == 1
    assert result.report.acceptance > 0.9 * math.exp(-bound)
    assert_same_distribution(result.samples["z"], toy.posterior.sample((NUM_OUTPUTS,)), "cheap budget")


def test_the_cut_solves_its_equation() -> None:
    log_weight = torch.randn(5000, dtype=torch.float64)
    bound = float(log_weight.max())
    own = float((log_weight - bound).exp().mean())
    for budget in (own, 1.001 * own, 0.3, 0.999, 1.0):
        cut = budget_cut(log_weight, bound, budget)
        assert float((log_weight - cut).clamp(max=0).exp().mean()) == pytest.approx(budget, rel=1e-9)
    assert budget_cut(log_weight, bound, 0.5 * own) == bound
    half = torch.cat([log_weight, torch.full_like(log_weight, -math.inf)])
    assert budget_cut(half, bound, 0.3) == pytest.approx(budget_cut(log_weight, bound, 0.6), abs=1e-12)


def test_a_budget_is_quiet_about_an_estimate_that_changes_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = RejectionSampler(shift(0.95), budget=0.5, pilot_draws=1000)(NUM_OUTPUTS).report
    assert report.num_exceedances > 0 and not report.exact
    # If the bound were raised after the pilot, the yield would be half.
    se = 0.5 * math.sqrt(1 / report.num_draws + 1 / 1000)
    assert_close_in_se(report.acceptance, 0.5, se, "acceptance")


@pytest.mark.parametrize("rule", [{"gamma": 50.0}, {"budget": 0.3}])
def test_a_false_bound_is_warned_of_under_every_rule(rule: dict[str, float]) -> None:
    gan, _, bound = affine()
    with pytest.warns(UserWarning, match="weighed more than the bound given, .* was raised to"):
        report = RejectionSampler(gan, log_bound=bound - 1, **rule)(500).report
    assert report.num_exceedances > 50 and not report.exact
    assert bound - 0.2 < report.log_bound <= bound


# Results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [{}, {"gamma": 80.0}, {"budget": 0.5}])
def test_results_follow_the_models_dtype(dtype: torch.dtype, rule: dict[str, float]) -> None:
    toy = toys.affine_gaussian(2 * torch.eye(2, dtype=dtype))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    result = RejectionSampler(gan, log_bound=math.log(4) + 1e-6, **rule)(500)
    z = result.samples["z"]
    assert z.shape == (500, 2) and z.dtype == dtype and not z.requires_grad
    assert result.log_ratio.shape == (500,) and result.log_ratio.dtype == dtype
    torch.testing.assert_close(result.log_ratio, gan.log_weight(result.samples))


@pytest.mark.parametrize("rule", [{}, {"gamma": 80.0}, {"budget": 0.5}])
def test_a_seed_makes_it_repeatable(rule: dict[str, float]) -> None:
    gan, _, bound = affine()
    outputs = []
    for seed in (1, 1, 2):
        pyro.set_rng_seed(seed)
        outputs.append(RejectionSampler(gan, log_bound=bound, **rule)(300).samples["z"])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def test_context_reaches_both_networks() -> None:
    class Shifted(nn.Module):
        def forward(self, z: Tensor, *, label: Tensor) -> Tensor:
            return 2 * z + label[:, None]

    class Ratio(nn.Module):
        def forward(self, x: Tensor, *, label: Tensor) -> Tensor:
            # Data N(label, 1) over generated N(label, 4): log 2 is a bound for every label.
            return math.log(2) - 0.375 * (x[:, 0] - label).square()

    prior = dist.Normal(0 * ONE, ONE).to_event(1)
    sampler = RejectionSampler(LatentPosterior(Shifted(), Ratio(), prior), log_bound=math.log(2))
    for label in (0.0, -3.0):
        result = sampler(NUM_OUTPUTS, label=torch.tensor(label, dtype=torch.float64))
        assert result.report.exact
        assert_mean(2 * result.samples["z"], 0.0, f"label {label}")


def test_the_report_has_the_weights_tail() -> None:
    log_weights = torch.randn(3150, dtype=torch.float64)
    with pytest.warns(UserWarning, match="of 3000 outputs"):
        report = RejectionSampler(Script(log_weights), log_bound=10.0)(3000, max_draws=3150).report
    for ours, theirs in zip(report.tail, weight_tail(log_weights), strict=True):
        assert ours is theirs is None or ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("log_bound", [8.0, 60.0])
def test_too_few_outputs_warn_and_are_never_padded(log_bound: float) -> None:
    gan, _, _ = affine()
    with pytest.warns(UserWarning, match=r"Only \d+ of 100 outputs were accepted in max_draws = 20000 draws"):
        result = RejectionSampler(gan, log_bound=log_bound)(100, max_draws=20_000)
    z, report = result.samples["z"], result.report
    assert report.num_draws == 20_000 and report.num_outputs == len(z) == len(result.log_ratio) < 100
    assert z.shape[1:] == (3,) and report.exact and len(z.unique(dim=0)) == len(z)
    assert (log_bound == 60) == (len(z) == 0)
    assert report.acceptance == len(z) / 20_000


@pytest.mark.parametrize("rule", [{}, {"gamma": 10.0}, {"budget": 0.5}])
def test_draws_without_weight_are_never_chosen(rule: dict[str, float]) -> None:
    def log_ratio(x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, 0]).masked_fill(x[:, 0] < 0, -math.inf)

    gan = LatentPosterior(nn.Identity(), log_ratio, dist.Normal(0 * ONE, ONE).to_event(1))
    # About half of the pilot has a positive weight: ask for less than that.
    rule = {"budget": 0.4} if "budget" in rule else rule
    result = RejectionSampler(gan, **rule)(500)
    assert (result.samples["z"] >= 0).all()


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1}, r"gamma in \[0, 100\]; got -1"),
        ({"gamma": 100.5}, r"gamma in \[0, 100\]; got 100.5"),
        ({"gamma": math.nan}, r"gamma in \[0, 100\]; got nan"),
        ({"budget": 0}, r"budget in \(0, 1\]; got 0"),
        ({"budget": -0.5}, r"budget in \(0, 1\]; got -0.5"),
        ({"budget": 1.5}, r"budget in \(0, 1\]; got 1.5"),
        ({"budget": math.nan}, r"budget in \(0, 1\]; got nan"),
        ({"gamma": 50, "budget": 0.5}, "gamma or budget, not both; got gamma=50 and budget=0.5"),
        ({"log_bound": math.nan}, "finite log_bound; got nan. It is in nats"),
        ({"log_bound": math.inf}, "finite log_bound; got inf. It is in nats"),
        ({"pilot_draws": 99}, "pilot_draws of at least 100; got 99"),
        ({"pilot_draws": 1e3}, "pilot_draws to be a whole number of at least 100; got 1000.0"),
        ({"gamma": "50"}, r"gamma in \[0, 100\]; got '50'"),
        ({"budget": [0.5, 0.6]}, r"budget in \(0, 1\]; got \[0.5, 0.6\]"),
        ({"log_bound": "x"}, "finite log_bound; got 'x'"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RejectionSampler(shift(), **options)


@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_are_not_positive_raise(value: int) -> None:
    with pytest.raises(ValueError, match=rf"num_outputs of at least 1; got {value}"):
        RejectionSampler(shift())(value)
    with pytest.raises(ValueError, match=rf"max_draws of at least 1; got {value}"):
        RejectionSampler(shift())(10, max_draws=value)


def test_no_model_raises() -> None:
    with pytest.raises(ValueError, match="posterior to be a function .*; got None. .* such as LatentPosterior"):
        RejectionSampler(None)


def test_a_model_without_latents_raises() -> None:
    with pytest.raises(ValueError, match="latent"):
        RejectionSampler(lambda: None)(10)


def test_any_pyro_model_will_do() -> None:
    def model(y: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 2.0), obs=y)

    y = torch.tensor([1.0, 2.0, 0.5, 3.0])
    means = RejectionSampler(model)(4000, y).samples["mean"]
    # Conjugate: precision 1 + 4 / 4, mean sum(y) / 4 over it; outputs are independent.
    assert abs(float(means.mean()) - 0.8125) < 4.4 * (0.5 / len(means)) ** 0.5 * 1.3
    assert abs(float(means.var()) - 0.5) < 4.4 * 0.5 * (2 / len(means)) ** 0.5 * 1.3


@pytest.mark.parametrize("options", [{}, {"log_bound": 1.0}, {"gamma": 50}, {"budget": 0.5}])
@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_weights_that_are_not_numbers_count_as_zero(score: float, options: dict[str, float]) -> None:
    gan = LatentPosterior(
        nn.Identity(),
        lambda x: torch.zeros_like(x[:, 0]).masked_fill(x[:, 0] > 0.5, score),
        dist.Normal(0 * ONE, ONE).to_event(1),
    )
    with pytest.warns(UserWarning, match=r"\d+ of \d+ draws are NaN or \+inf. They count as zero"):
        assert bool((RejectionSampler(gan, **options)(1000).samples["z"] <= 0.5).all())


def test_a_target_without_weight_raises() -> None:
    nowhere = Script(torch.full((1,), -math.inf, dtype=torch.float64))
    with pytest.raises(ValueError, match="10000 pilot draws whose log weights are all -inf. Raise pilot_draws"):
        RejectionSampler(nowhere)(10)
    with (
        pytest.warns(UserWarning, match="Only 0 of 10"),
        pytest.raises(ValueError, match="weight above zero; got 1000"),
    ):
        RejectionSampler(nowhere, log_bound=0.0)(10, max_draws=1000)


def test_a_budget_beyond_the_draws_of_some_weight_raises() -> None:
    half = torch.zeros(10_000, dtype=torch.float64)
    half[::2] = -math.inf
    with pytest.raises(ValueError, match="budget of at most 0.5, the share .* got 0.6"):
        RejectionSampler(Script(half), budget=0.6)(10)
