"""Chains that start at scores of real data: the distributions of their draws, what is counted, and bad input."""

from __future__ import annotations

import math
import pickle
import warnings

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from scipy import stats
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, to_arviz, toys
from pyro_gan.mcmc import IndependenceMH, State
from pyro_gan.mcmc.data_start import DataStart, settle
from tests.mcmc.shift_laws import ShiftLaws
from tests.statistics import FALSE_ALARM, assert_close_in_se, assert_follows

AUC, WARMUP, NUM_CHAINS = 0.98, 100, 20_000


def run(
    policy: str = "continue",
    *,
    auc: float = AUC,
    warmup_steps: int = WARMUP,
    num_chains: int = NUM_CHAINS,
    num_samples: int = 1,
    budget: int | None = None,
    **kwargs,
) -> VectorizedMCMC:
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=NUM_CHAINS)
    scores = toy.log_ratio(toy.posterior.sample((num_chains,)))
    kernel = IndependenceMH(gan, initial_log_ratio=scores, policy=policy, budget=budget)
    mcmc = VectorizedMCMC(kernel, num_samples, warmup_steps, num_chains=num_chains, disable_progbar=True, **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mcmc.run()
    mcmc.said = [str(warning.message) for warning in caught]
    return mcmc


@pytest.fixture(scope="module")
def laws() -> ShiftLaws:
    return ShiftLaws(math.sqrt(2) * float(torch.special.ndtri(torch.tensor(AUC, dtype=torch.float64))), WARMUP)


@pytest.mark.parametrize("policy", ["continue", "drop", "restart"])
def test_every_policy_gives_the_distribution_it_states_and_not_the_datas(policy, laws) -> None:
    mcmc = run(policy, budget=3 * WARMUP)
    z = mcmc.get_samples()["z"]
    stated = {"continue": laws.proceed(3 * WARMUP), "drop": laws.drop(), "restart": laws.restart()}[policy]
    assert_follows(z, stated, policy)
    # The negative control: with so many waiting chains no policy gives the distribution of the data.
    p_value = stats.kstest(z.flatten().numpy(), laws.truth(), method="asymp").pvalue
    assert p_value < FALSE_ALARM


def test_the_chains_that_wait_are_counted(laws) -> None:
    report = run("drop").kernel.data_start
    assert report.num_chains == NUM_CHAINS and report.extra_steps == 0
    assert report.num_waiting == report.num_dropped
    share, exact = report.num_waiting / NUM_CHAINS, laws.waiting
    assert_close_in_se(share, exact, math.sqrt(exact * (1 - exact) / NUM_CHAINS), "waiting")


def test_if_all_chains_move_their_distribution_is_the_datas() -> None:
    mcmc = run(auc=0.75, num_samples=3)
    law = stats.norm(loc=math.sqrt(2) * stats.norm.ppf(0.75))
    assert mcmc.kernel.data_start.num_dropped == 0 and mcmc.num_chains == NUM_CHAINS
    for draw in mcmc.get_samples(group_by_chain=True)["z"].unbind(1):
        assert_follows(draw, law.cdf, "stationary from the start")


@pytest.mark.parametrize("policy", ["continue", "drop"])
def test_dropped_chains_leave_no_trace_of_an_invented_latent(policy) -> None:
    mcmc = run(policy, num_chains=500, num_samples=6, budget=5)
    report = mcmc.kernel.data_start
    left = 500 - report.num_dropped
    assert 0 < report.num_dropped <= report.num_waiting < 500
    assert report.extra_steps == (5 if policy == "continue" else 0)
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert z.shape == (left, 6, 1) and torch.isfinite(z).all() and mcmc.num_chains == left
    for name, value in mcmc.sample_stats.items():
        assert value.shape == (left, 6) and torch.isfinite(value.double()).all(), name
    assert mcmc.sample_stats["moved"].all() and mcmc.never_moved == 0
    assert mcmc.moments["z"].mean.shape == (left, 1) and torch.isfinite(mcmc.moments["z"].mean).all()
    assert len(mcmc.diagnostics()["acceptance rate"]) == left
    assert to_arviz(mcmc).posterior["z"].shape == (left, 6, 1)
    assert any("were dropped" in said for said in mcmc.said)
    toy = toys.gaussian_shift(AUC, dtype=torch.float64)
    torch.testing.assert_close(mcmc.sample_stats["log_ratio"], toy.log_ratio(z))


def test_continue_goes_on_until_all_have_moved() -> None:
    mcmc = run(auc=0.95, warmup_steps=20, num_chains=500, budget=10**6)
    report = mcmc.kernel.data_start
    assert report.num_waiting > 0 and report.extra_steps > 0 and report.num_dropped == 0
    assert mcmc.num_chains == 500 and not mcmc.said


def test_a_waiting_chain_keeps_the_first_proposal_that_it_accepts() -> None:
    """Each proposal but those of weight zero is accepted; a chain that went on would end at the last one."""
    zero = -torch.inf
    log_weights = torch.tensor([[50.0, zero, zero], [100.0, 50.0, zero], [150.0, 100.0, zero]])
    proposals = [
        State(torch.full((3, 1), float(step)), torch.zeros(3), None, log_weight)
        for step, log_weight in enumerate(log_weights, start=1)
    ]
    nothing = torch.full((3, 1), torch.nan)
    settled = settle(
        State(nothing, nothing[:, 0], None, torch.zeros(3)),
        torch.zeros(3, dtype=torch.bool),
        lambda num_chains: proposals,
        fresh=lambda num_chains: pytest.fail("continue must not start again"),
        policy="continue",
        restart_steps=1,
        budget=3,
    )
    assert settled.placed.tolist() == settled.moved.tolist() == [True, True, False]
    assert settled.state.z[:2, 0].tolist() == [1.0, 2.0] and settled.state.z[2].isnan().all()
    assert settled.state.log_weight.tolist() == [50.0, 50.0, 0.0]
    assert settled.report == DataStart(num_chains=3, num_waiting=3, extra_steps=3, num_dropped=1)


def test_restarted_chains_are_kept() -> None:
    mcmc = run("restart", num_chains=500)
    report = mcmc.kernel.data_start
    assert report.extra_steps == WARMUP - 1 and report.num_dropped == 0 and mcmc.num_chains == 500
    assert torch.isfinite(mcmc.get_samples()["z"]).all()


def test_runs_again_whole_and_pickles() -> None:
    mcmc = run("drop", num_chains=300)
    first = mcmc.num_chains
    again = pickle.loads(pickle.dumps(mcmc))
    again._disable_progbar = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.run()
    assert first < 300 and again.kernel.data_start.num_chains == 300


def test_each_chain_takes_a_score_of_its_own_if_there_are_enough() -> None:
    seen: list[Tensor] = []
    toy = toys.gaussian_shift(0.98)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    for num_scores in (40, 7):
        kernel = IndependenceMH(gan, initial_log_ratio=torch.arange(float(num_scores)))
        kernel.bind(40)
        kernel.setup(1)
        seen.append(kernel.state.log_weight)
    assert torch.equal(seen[0].sort().values, torch.arange(40.0))
    assert set(seen[1].tolist()) <= set(range(7)) and len(seen[1]) == 40


def test_a_hook_that_writes_costs_no_chain_its_score() -> None:
    left = []
    for hook in (None, lambda kernel, params, stage, i: params["z"].clamp_(-8, 8)):
        mcmc = run("drop", auc=0.9, warmup_steps=100, num_chains=2000, hook_fn=hook)
        left.append(mcmc.kernel.data_start.num_waiting)
    exact = ShiftLaws(math.sqrt(2) * stats.norm.ppf(0.9), 100).waiting
    for waiting in left:
        assert_close_in_se(waiting / 2000, exact, math.sqrt(exact * (1 - exact) / 2000), "waiting")


def test_the_models_temperature_is_the_scores_too() -> None:
    toy = toys.gaussian_shift(0.98)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, temperature=2.0)
    kernel = IndependenceMH(gan, initial_log_ratio=torch.tensor([3.0]))
    kernel.bind(2)
    kernel.setup(1)
    assert kernel.state.log_weight.tolist() == [1.5, 1.5]


# Bad input.


def posterior() -> LatentPosterior:
    toy = toys.gaussian_shift(0.8)
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"initial_log_ratio": torch.zeros(3, 1)}, r"shape \(row,\)"),
        ({"initial_log_ratio": torch.zeros(0)}, r"shape \(row,\) with at least 1"),
        ({"initial_log_ratio": torch.tensor([0.0, torch.nan])}, "NaN or infinity in 1 of 2 rows"),
        ({"initial_log_ratio": torch.tensor([torch.inf])}, "cap the log ratio"),
        ({"initial_log_ratio": torch.zeros(3), "policy": "keep"}, "policy to be one of"),
        ({"initial_log_ratio": torch.zeros(3), "budget": -1}, "budget of at least 0; got -1"),
        ({"initial_log_ratio": torch.zeros(3), "budget": 2.5}, "budget to be a whole number of at least 0"),
        ({"initial_log_ratio": [0.0, 1.0]}, "initial_log_ratio to be a torch.Tensor"),
        ({"policy": "restart"}, "initial_log_ratio with policy='restart'.*got None"),
        ({"budget": 3}, "initial_log_ratio with policy='continue' and budget=3.*got None"),
        (
            {"initial_log_ratio": torch.zeros(3), "proposal": dist.Normal(torch.zeros(1), 1.0).to_event(1)},
            "got both. Leave one out",
        ),
    ],
)
def test_bad_options_raise(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        IndependenceMH(posterior(), **options)


def test_no_warmup_no_latent() -> None:
    kernel = IndependenceMH(posterior(), initial_log_ratio=torch.zeros(3))
    with pytest.raises(ValueError, match="warmup_steps of at least 1"):
        VectorizedMCMC(kernel, 3, 0, num_chains=3, disable_progbar=True).run()


def test_scores_that_overflow_in_single_precision_raise() -> None:
    kernel = IndependenceMH(posterior(), initial_log_ratio=torch.tensor([1e39], dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN or infinity in 3 of 3 rows"):
        VectorizedMCMC(kernel, 3, 1, num_chains=3, disable_progbar=True).run()


def test_superchains_cannot_share_a_score() -> None:
    kernel = IndependenceMH(posterior(), initial_log_ratio=torch.zeros(3))
    mcmc = VectorizedMCMC(kernel, 3, 1, num_chains=4, num_superchains=2, disable_progbar=True)
    with pytest.raises(ValueError, match="num_superchains"):
        mcmc.run()


def test_two_starts_raise() -> None:
    kernel = IndependenceMH(posterior(), initial_log_ratio=torch.zeros(3))
    start = {"z": torch.zeros(3, 1)}
    with pytest.raises(ValueError, match="got both. Leave one out"):
        VectorizedMCMC(kernel, 3, 1, start, num_chains=3, disable_progbar=True).run()


def test_another_runner_raises() -> None:
    kernel = IndependenceMH(posterior(), initial_log_ratio=torch.zeros(3))
    with pytest.raises(ValueError, match="only VectorizedMCMC"):
        MCMC(kernel, 3, disable_progbar=True).run()


def test_nothing_left_raises() -> None:
    kernel = IndependenceMH(posterior(), initial_log_ratio=torch.full((3,), 80.0), budget=50)
    with pytest.raises(ValueError, match="None of the 3 chains"):
        VectorizedMCMC(kernel, 3, 10, num_chains=3, disable_progbar=True).run()
