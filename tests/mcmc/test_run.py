"""The runner: R-hat by hand, the names of chains, thinning, hooks, Pyro's interface."""

from __future__ import annotations

import warnings

import pyro
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, LogRatio, VectorizedMCMC, toys
from pyro_gan.mcmc import MALA, BatchHMC, IndependenceMH
from pyro_gan.objectives import Bernoulli
from tests.statistics import assert_chain_mean


def posterior() -> LatentPosterior:
    toy = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior)


def run(num_chains: int = 12, num_samples: int = 40, **kwargs) -> VectorizedMCMC:
    mcmc = VectorizedMCMC(MALA(posterior()), num_samples, num_chains=num_chains, disable_progbar=True, **kwargs)
    mcmc.run()
    return mcmc


def split_r_hat(chains: Tensor) -> Tensor:
    """Return R-hat of split chains `(chain, draw)`, from its definition."""
    half = chains.shape[1] // 2
    halves = torch.cat([chains[:, :half], chains[:, -half:]])
    between = half * halves.mean(1).var()
    within = halves.var(1).mean()
    return torch.sqrt(((half - 1) / half * within + between / half) / within)


def test_r_hat_is_the_one_computed_by_hand() -> None:
    mcmc = run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    expected = torch.stack([split_r_hat(z[..., i]) for i in range(2)])
    torch.testing.assert_close(mcmc.diagnostics()["z"]["r_hat"], expected)


def test_chain_keys_sort_as_chains() -> None:
    diagnostics = run()
    keys = list(diagnostics.diagnostics()["divergences"])
    assert keys == sorted(keys) and len(keys) == 12
    assert list(diagnostics.diagnostics()["acceptance rate"]) == keys


def test_thinning_keeps_each_fifth_step() -> None:
    steps: list[Tensor] = []
    mcmc = run(num_chains=3, num_samples=4, warmup_steps=2, thin=5, hook_fn=lambda k, p, s, i: steps.append(p["z"]))
    assert len(steps) == 2 + 20
    kept = torch.stack([steps[2 + 5 * (i + 1) - 1] for i in range(4)], dim=1)
    torch.testing.assert_close(mcmc.get_samples(group_by_chain=True)["z"], kept)


def test_a_thinned_draw_reports_the_divergences_of_its_steps() -> None:
    class Holes(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > 0.5, torch.nan, -x.square().sum(-1))

    gan = LatentPosterior(torch.nn.Identity(), Holes(), posterior().prior)
    seen: list[Tensor] = []
    mcmc = VectorizedMCMC(
        IndependenceMH(gan), 6, 0, num_chains=5, thin=3, disable_progbar=True,
        hook_fn=lambda k, p, s, i: seen.append(k.info.diverging),
    )  # fmt: skip
    mcmc.run()
    expected = torch.stack(seen, 1).unflatten(1, (6, 3)).any(-1)
    assert expected.any() and not expected.all()
    torch.testing.assert_close(mcmc.sample_stats["diverging"], expected)


def test_hooks_are_called_after_every_step() -> None:
    heard = []
    run(num_chains=2, num_samples=3, warmup_steps=2, hook_fn=lambda k, p, stage, i: heard.append((stage, i)))
    assert heard == [("Warmup", 0), ("Warmup", 1), ("Sample", 0), ("Sample", 1), ("Sample", 2)]


def test_warmup_is_as_many_steps_as_follow() -> None:
    assert VectorizedMCMC(MALA(posterior()), 20, thin=50, disable_progbar=True).warmup_steps == 1000


def test_a_run_that_fails_leaves_the_results_of_the_one_before() -> None:
    failing = False

    def fail(*args) -> None:
        if failing:
            raise KeyboardInterrupt

    mcmc = run(num_samples=10, hook_fn=fail)
    failing = True
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    assert mcmc.num_samples == 10 and len(mcmc.diagnostics()["divergences"]) == mcmc.num_chains == 12


def test_every_statistic_belongs_to_its_draw() -> None:
    seen: dict[str, list[Tensor]] = {}

    def collect(kernel, params, stage, i) -> None:
        if stage == "Sample":
            row = {
                "z": kernel.state.z,
                "lp": -kernel.state.potential,
                "energy": kernel.info.energy,
                "accept_prob": kernel.info.accept_prob,
                "moved": kernel.moved,
            }
            for name, value in row.items():
                seen.setdefault(name, []).append(value.clone())
        params["z"].add_(0.5)  # the draw is made before the hook changes the positions

    mcmc = VectorizedMCMC(
        BatchHMC(posterior(), step_size=0.9, adapt_step_size=False),
        20,
        0,
        num_chains=30,
        hook_fn=collect,
        disable_progbar=True,
    )
    mcmc.run()
    expected = {name: torch.stack(values, 1) for name, values in seen.items()}
    z = mcmc.get_samples(group_by_chain=True)["z"]
    torch.testing.assert_close(z, expected.pop("z"))
    for name, value in expected.items():
        torch.testing.assert_close(mcmc.sample_stats[name], value)
    lp = -posterior().potential_fn({"z": z})
    torch.testing.assert_close(mcmc.sample_stats["lp"], lp, rtol=1e-4, atol=1e-4)


def test_hmc_reports_the_total_energy() -> None:
    mcmc = VectorizedMCMC(BatchHMC(posterior()), 50, 50, num_chains=500, disable_progbar=True)
    mcmc.run()
    kinetic = mcmc.sample_stats["energy"] + mcmc.sample_stats["lp"]
    assert (kinetic > 0).all()
    # At stationarity accepted momenta are standard normal: two of them, with a mean energy of 1/2 each.
    assert_chain_mean(kinetic, 1.0, "kinetic energy")


def test_frozen_chains_are_seen_after_a_long_warmup() -> None:
    toy = toys.gaussian_shift(0.98)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(IndependenceMH(gan), 50, 300, num_chains=1000, disable_progbar=True)
    with pytest.warns(UserWarning, match="stood still while draws were kept"):
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert mcmc.never_moved < 0.01
    assert mcmc.frozen == pytest.approx(float((z == z[:, :1]).all(1).double().mean())) and mcmc.frozen > 0.05


def test_the_users_transforms_are_used() -> None:
    start = {"a": torch.zeros(4)}
    mcmc = VectorizedMCMC(
        MALA(potential_fn=lambda p: p["a"].square() / 2),
        3,
        num_chains=4,
        initial_params=start,
        transforms={"a": torch.distributions.transforms.ExpTransform().inv},
        disable_progbar=True,
    )
    mcmc.run()
    torch.testing.assert_close(mcmc.get_samples()["a"].log().square() / 2, -mcmc.sample_stats["lp"].flatten())


def test_a_run_inside_a_trace_leaves_nothing_in_it() -> None:
    trace = pyro.poutine.trace(run).get_trace(num_chains=2, num_samples=2)
    assert not [name for name in trace.nodes if name not in ("_INPUT", "_RETURN")]


def test_networks_switched_to_training_are_found_at_setup() -> None:
    critic = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).eval()
    gan = LatentPosterior(torch.nn.Identity(), lambda x: critic(x).squeeze(-1), posterior().prior)
    held = LatentPosterior(torch.nn.Identity(), LogRatio(critic, Bernoulli()), posterior().prior)
    held.log_ratio.train()
    critic.train()
    for model in (gan, held):
        with pytest.raises(ValueError, match="training mode|other rows|noise"):
            VectorizedMCMC(MALA(model), 3, num_chains=4, disable_progbar=True).run()


def test_unknown_sites_to_keep_raise() -> None:
    with pytest.raises(ValueError, match="save_params"):
        run(save_params=["w"])


def test_few_draws_have_no_r_hat_but_no_error() -> None:
    mcmc = run(num_samples=2)
    assert torch.isnan(mcmc.diagnostics()["z"]["r_hat"]).all()
    mcmc.summary()


def test_summary_says_what_went_wrong(capsys) -> None:
    run().summary()
    printed = capsys.readouterr().out
    assert "r_hat" in printed and "z[0]" in printed
    assert "divergences" in printed and "never moved: 0.00%" in printed


def test_chains_that_never_moved_are_warned_of() -> None:
    kernel = MALA(posterior(), step_size=1e4, adapt_step_size=False)
    mcmc = VectorizedMCMC(kernel, 5, 0, num_chains=4, disable_progbar=True)
    with pytest.warns(UserWarning, match="100.00% of the chains accepted nothing"):
        mcmc.run()
    assert mcmc.never_moved == 1.0


def test_a_run_leaves_the_kernel_as_it_was() -> None:
    kernel = MALA(posterior())
    start = {"z": torch.zeros(3, 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        VectorizedMCMC(kernel, 2, 0, initial_params=start, num_chains=3, disable_progbar=True).run()
    VectorizedMCMC(kernel, 2, 2, num_chains=5, disable_progbar=True).run()
    assert kernel.num_chains is None and kernel._given_params is None


def test_resampling_returns_what_pyros_does() -> None:
    mcmc = run()
    assert mcmc.get_samples(7)["z"].shape == (7, 2)
    assert mcmc.get_samples(7, group_by_chain=True)["z"].shape == (12, 7, 2)


def test_sites_to_keep() -> None:
    mcmc = VectorizedMCMC(
        MALA(potential_fn=lambda p: p["a"].square().sum(-1) + p["b"].square()),
        3,
        num_chains=4,
        initial_params={"a": torch.zeros(4, 2), "b": torch.zeros(4)},
        save_params=["b"],
        disable_progbar=True,
    )
    mcmc.run()
    assert set(mcmc.get_samples()) == {"b"}
