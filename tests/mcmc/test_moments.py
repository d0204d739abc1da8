"""Moments without history, nested R-hat, and runs that keep only the last draw."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, to_arviz, toys
from pyro_gan.mcmc import MALA, IndependenceMH
from pyro_gan.mcmc.moments import Moments, RunningMoments, nested_r_hat
from tests.exact_targets import uniform_latents
from tests.statistics import assert_mean


def posterior() -> LatentPosterior:
    toy = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior)


def run(num_samples: int = 40, warmup_steps: int = 20, num_chains: int = 24, **kwargs) -> VectorizedMCMC:
    mcmc = runner(num_samples, warmup_steps, num_chains, **kwargs)
    mcmc.run()
    return mcmc


def runner(num_samples: int = 40, warmup_steps: int = 20, num_chains: int = 24, **kwargs) -> VectorizedMCMC:
    return VectorizedMCMC(
        MALA(posterior()), num_samples, warmup_steps, num_chains=num_chains, disable_progbar=True, **kwargs
    )


def nested_by_definition(chains: Tensor) -> Tensor:
    """Return nested R-hat of `(superchain, chain, draw)`, from the formulas of the paper."""
    between = chains.mean((1, 2)).var()
    among = chains.mean(2).var(1) if chains.shape[1] > 1 else torch.zeros(len(chains))
    within = chains.var(2).mean(1) if chains.shape[2] > 1 else torch.zeros(len(chains))
    return torch.sqrt(1 + between / (among + within).mean())


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_running_moments_are_those_of_the_whole(offset) -> None:
    values = torch.randn(5, 3, 200) + offset
    running = RunningMoments()
    for value in values.unbind(-1):
        running.update(value)
    mean, variance, num_steps = running.result()
    assert num_steps == 200
    torch.testing.assert_close(mean, values.double().mean(-1).float(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(variance, values.double().var(-1).float(), rtol=2e-2 if offset else 1e-4, atol=0)


def test_running_moments_copy_their_values() -> None:
    value, running = torch.ones(3), RunningMoments()
    running.update(value)
    value.fill_(7.0)
    assert (running.result().mean == 1).all()


@pytest.mark.parametrize(("superchains", "chains", "draws"), [(8, 5, 30), (8, 5, 1), (40, 1, 30), (2, 20, 3)])
def test_nested_r_hat_is_the_papers(superchains, chains, draws) -> None:
    values = torch.randn(superchains, chains, draws) + torch.randn(superchains, 1, 1)
    flat = values.flatten(0, 1)
    variance = flat.var(-1) if draws > 1 else torch.full_like(flat[:, 0], torch.nan)
    moments = Moments(flat.mean(-1), variance, draws)
    index = torch.arange(superchains).repeat_interleave(chains)
    torch.testing.assert_close(nested_r_hat(moments, index), nested_by_definition(values))


def test_nested_r_hat_of_one_superchain_or_of_nothing_that_varies_is_nan() -> None:
    moments = Moments(torch.randn(6, 2), torch.ones(6, 2), 10)
    assert torch.isnan(nested_r_hat(moments, torch.zeros(6))).all()
    still = Moments(torch.zeros(6, 2), torch.zeros(6, 2), 10)
    assert torch.isnan(nested_r_hat(still, torch.arange(6))).all()


def test_a_run_knows_its_moments_and_its_nested_r_hat() -> None:
    mcmc = run(num_superchains=6)
    z = mcmc.get_samples(group_by_chain=True)["z"]
    torch.testing.assert_close(mcmc.moments["z"].mean, z.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mcmc.moments["z"].variance, z.var(1), rtol=1e-3, atol=1e-6)
    expected = torch.stack([nested_by_definition(z[..., i].unflatten(0, (6, 4))) for i in range(2)])
    torch.testing.assert_close(mcmc.diagnostics()["z"]["nested_r_hat"], expected, rtol=1e-3, atol=0)


def test_superchains_start_together_and_part() -> None:
    starts: list[Tensor] = []
    mcmc = VectorizedMCMC(
        MALA(posterior()), 3, 0, num_chains=12, num_superchains=4, disable_progbar=True,
        hook_fn=lambda kernel, params, stage, i: starts.append(params["z"]),
    )  # fmt: skip
    kernel = mcmc.kernel
    setup = kernel.setup
    kernel.setup = lambda *args, **kwargs: (setup(*args, **kwargs), starts.append(kernel.state.z))
    mcmc.run()
    start = starts[0].unflatten(0, (4, 3))
    assert torch.equal(start, start[:, :1].expand_as(start)) and len(starts[0].unique(dim=0)) == 4
    assert len(starts[-1].unique(dim=0)) > 4


def test_nested_r_hat_finds_chains_that_have_not_left_their_start() -> None:
    # One step each: ordinary R-hat is not defined, nested R-hat is.
    stuck = VectorizedMCMC(
        MALA(posterior(), step_size=1e-4, adapt_step_size=False), 1, 0, num_chains=400, num_superchains=10,
        keep="last", disable_progbar=True,
    )  # fmt: skip
    stuck.run()
    assert float(stuck.diagnostics()["z"]["nested_r_hat"].min()) > 5
    mixed = run(num_samples=1, warmup_steps=100, num_chains=4000, num_superchains=10, keep="last")
    # At stationarity it is sqrt(1 + 1 / M), here 1.0012; its square minus 1 is the variance of ten means times M.
    excess = mixed.diagnostics()["z"]["nested_r_hat"].double().square() - 1
    assert float(excess.max()) * 400 < 5.5  # chi-squared with 9 degrees of freedom, divided by 9: exceeded once in 1e6


def test_the_last_draw_is_the_last_of_all() -> None:
    pyro.set_rng_seed(3)
    every = run(thin=2)
    pyro.set_rng_seed(3)
    last = run(thin=2, keep="last")
    assert last.num_samples == 1 and last.get_samples(group_by_chain=True)["z"].shape == (24, 1, 2)
    torch.testing.assert_close(last.get_samples()["z"], every.get_samples(group_by_chain=True)["z"][:, -1])
    for name, value in last.sample_stats.items():
        torch.testing.assert_close(value, every.sample_stats[name][:, -1:])
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(last.moments["z"], name), getattr(every.moments["z"], name))
    assert last.moments["z"].num_steps == 80
    rates = [mcmc.diagnostics()["acceptance rate"] for mcmc in (every, last)]
    assert rates[0] == rates[1]
    assert last.frozen == every.frozen == 0.0


def test_the_last_draw_keeps_no_history() -> None:
    mcmc = VectorizedMCMC(MALA(posterior()), 30, 0, num_chains=4, keep="last", disable_progbar=True)
    mcmc.run()
    kept = mcmc._progress.record
    assert {column.shape[1] for column in (*kept._samples.values(), *kept._stats.values())} == {1}


def test_moments_are_of_constrained_draws() -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior)
    mcmc = VectorizedMCMC(MALA(model), 50, 100, num_chains=4000, keep="last", disable_progbar=True)
    mcmc.run()
    assert_mean(mcmc.moments["z"].mean, gan.law.mean, "mean of the chains' means")
    assert (mcmc.get_samples()["z"].abs() <= 1).all()


def test_sites_that_are_not_kept_have_no_moments() -> None:
    start = {"a": torch.zeros(4, 2), "b": torch.zeros(4)}
    mcmc = VectorizedMCMC(
        MALA(potential_fn=lambda p: p["a"].square().sum(-1) + p["b"].square()), 3, 2, start, num_chains=4,
        save_params=["b"], disable_progbar=True,
    )  # fmt: skip
    mcmc.run()
    assert set(mcmc.moments) == {"b"} and mcmc.moments["b"].mean.shape == (4,)


def test_a_summary_of_last_draws_is_of_moments(capsys) -> None:
    run(keep="last", num_superchains=4).summary()
    printed = capsys.readouterr().out
    assert "nested r_hat" in printed and "z[1]" in printed and "never moved: 0.00%" in printed


def test_last_draws_go_to_arviz() -> None:
    assert to_arviz(run(keep="last")).posterior["z"].shape == (24, 1, 2)


def test_ctrl_c_keeps_the_last_draw() -> None:
    def interrupt(kernel, params, stage, i) -> None:
        if stage == "Sample" and i == 17:
            raise KeyboardInterrupt

    mcmc = runner(keep="last", hook_fn=interrupt)
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    assert mcmc.get_samples()["z"].shape == (24, 2) and mcmc.moments["z"].num_steps == 18


def test_frozen_chains_are_seen_without_history() -> None:
    toy = toys.gaussian_shift(0.98)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(IndependenceMH(gan), 50, 300, num_chains=1000, keep="last", disable_progbar=True)
    with pytest.warns(UserWarning, match="stood still while draws were kept"):
        mcmc.run()
    assert 0.05 < mcmc.frozen < 1
    one = VectorizedMCMC(IndependenceMH(gan), 1, 300, num_chains=10, keep="last", disable_progbar=True)
    one.run()
    assert math.isnan(one.frozen)


@pytest.mark.filterwarnings("ignore:.*after warmup diverged", "ignore:.*accepted nothing")
def test_divergences_of_all_steps_are_counted() -> None:
    class Holes(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > 0.5, torch.nan, -x.square().sum(-1))

    gan = LatentPosterior(torch.nn.Identity(), Holes(), posterior().prior)
    mcmc = VectorizedMCMC(IndependenceMH(gan), 50, 5, num_chains=20, keep="last", disable_progbar=True)
    mcmc.run()
    assert mcmc.num_diverging == mcmc.num_invalid > 100
    assert mcmc.sample_stats["diverging"].all()


def test_one_chain_has_a_table(capsys) -> None:
    run(num_chains=1, keep="last").summary()
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "z[0]" in line)
    assert float(row.split()[2]) > 0.1


def test_a_superchain_of_one_chain_adds_no_variance_of_zero() -> None:
    # 20 superchains of 50 chains and 40 of one chain, all with the same distribution.
    index = torch.cat([torch.arange(20).repeat_interleave(50), torch.arange(20, 60)])
    moments = Moments(torch.randn(len(index)), torch.full((len(index),), torch.nan), 1)
    # The means of single chains vary as single draws do: at most sqrt(1 + 1).
    assert float(nested_r_hat(moments, index)) < 1.6


@pytest.mark.parametrize("site", ["lp", "accept_prob"])
def test_a_site_may_have_the_name_of_a_statistic(site) -> None:
    toy = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, site=site)
    mcmc = VectorizedMCMC(MALA(gan), 10, 10, num_chains=4, disable_progbar=True)
    mcmc.run()
    assert mcmc.moments[site].mean.shape == (4, 2)
    torch.testing.assert_close(mcmc.moments[site].mean, mcmc.get_samples(group_by_chain=True)[site].mean(1))


# Bad input.


def test_bad_options_raise() -> None:
    for options, words in (
        ({"keep": "some"}, "keep to be one of 'all', 'last'"),
        ({"keep": "last", "warmup_steps": None}, "Expected warmup_steps"),
        ({"num_superchains": 1}, "num_superchains of at least 2"),
        ({"num_superchains": 7}, "divides num_chains=24"),
    ):
        with pytest.raises(ValueError, match=words):
            run(**options)


def test_different_starts_within_a_superchain_raise() -> None:
    with pytest.raises(ValueError, match="agree within each of the 4 superchains"):
        run(num_superchains=4, initial_params={"z": torch.randn(24, 2)})
    run(num_superchains=4, initial_params={"z": torch.randn(4, 2).repeat_interleave(6, 0)})
