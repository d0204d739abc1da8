"""Local moves and jumps: their mixture against formulas, what is computed again and what is not, and bad input."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import ISIR, MALA, PCN, BatchHMC, BatchKernel, ChEES, IndependenceMH, LocalGlobal, RandomWalk
from tests.statistics import assert_chain_mean, assert_chain_sd, assert_close_in_se

PRIOR = dist.Normal(torch.zeros(2), 1.0).to_event(1)
LOCAL: dict[str, Callable[..., BatchKernel]] = {
    "MALA": MALA,
    "BatchHMC": BatchHMC,
    "ChEES": ChEES,
    "PCN": PCN,
    "RandomWalk": RandomWalk,
}
GLOBAL = {"IndependenceMH": IndependenceMH, "ISIR": ISIR}


class Counting:
    """Two modes, five standard deviations apart; counts its evaluations."""

    def __init__(self) -> None:
        self.values = self.gradients = 0

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.gradients += len(x)
        else:
            self.values += len(x)
        near = -12.5 * (x[:, 0].abs() - 1).square()
        return near + x.square().sum(-1) / 2 - x[:, 1].square() / 2


def two_modes() -> tuple[LatentPosterior, Counting]:
    counting = Counting()
    return LatentPosterior(torch.nn.Identity(), counting, PRIOR, chunk_size=10_000), counting


def quiet(kernel: BatchKernel, *args, **kwargs) -> VectorizedMCMC:
    mcmc = VectorizedMCMC(kernel, *args, disable_progbar=True, **kwargs)
    mcmc.run()
    return mcmc


def test_data_have_their_mean_and_sd_to_half_a_percent() -> None:
    # x = 1.5 z + 1 with N(0, 1) data: jumps without a new gradient give an sd of 1.05 to 1.07.
    one = torch.ones(1, dtype=torch.float64)
    toy = toys.affine_gaussian(1.5 * one.diag(), one)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=10_000)
    kernel = LocalGlobal(MALA(gan), ISIR(gan, num_particles=10), num_local=2)
    mcmc = quiet(kernel, 150, 50, num_chains=4000)
    x = gan.decode(mcmc.get_samples(group_by_chain=True)["z"])
    assert_chain_mean(x, 0.0)
    assert_chain_sd(x, 1.0, 0.0, max_relative_se=0.00125)
    assert abs(float(x.mean())) < 0.01 and 0.995 < float(x.std()) < 1.005


@pytest.mark.parametrize("jump", GLOBAL)
@pytest.mark.parametrize("local", LOCAL)
def test_any_local_kernel_with_any_that_jumps(local, jump) -> None:
    gan, _ = two_modes()
    kernel = LocalGlobal(LOCAL[local](gan), GLOBAL[jump](gan), num_local=2)
    mcmc = quiet(kernel, 8, 60, num_chains=100)
    z = mcmc.get_samples()["z"]
    assert torch.isfinite(z).all() and mcmc.never_moved == 0
    assert (mcmc.sample_stats["step_size"] == mcmc.sample_stats["step_size"][0, 0]).all()
    torch.testing.assert_close(mcmc.sample_stats["lp"].flatten(), -gan.potential_fn({"z": z}), rtol=1e-4, atol=1e-4)


def test_all_chains_start_in_one_mode_and_end_in_both() -> None:
    gan, _ = two_modes()
    start = torch.tensor([1.0, 0.0]).repeat(4000, 1)
    options = {"initial_params": {"z": start}, "num_chains": 4000}
    alone = quiet(MALA(gan), 1, 30, **options).get_samples()["z"]
    assert float((alone[:, 0] < 0).double().mean()) < 0.05
    both = quiet(LocalGlobal(MALA(gan), ISIR(gan), num_local=1), 1, 30, **options).get_samples()["z"]
    assert_close_in_se(float((both[:, 0] < 0).double().mean()), 0.5, 0.5 / 4000**0.5, "share of the other mode")


@pytest.mark.parametrize("local", ["MALA", "BatchHMC", "PCN", "RandomWalk"])
def test_after_a_step_the_state_belongs_to_its_position(local) -> None:
    gan, _ = two_modes()
    kernel = LocalGlobal(LOCAL[local](gan), ISIR(gan), num_local=1)
    kernel.bind(300)
    kernel.setup(0)
    params = kernel.initial_params
    for _ in range(5):
        params = kernel.sample(params)
    afresh = kernel.local_kernel.evaluate(params["z"])
    for known, right in zip(kernel.state, afresh, strict=True):
        assert (known is None) == (right is None)
        if known is not None:
            torch.testing.assert_close(known, right, rtol=1e-4, atol=1e-4)


def test_a_chain_that_jumps_costs_a_gradient_and_one_that_stays_does_not() -> None:
    gan, counting = two_modes()
    kernel = LocalGlobal(MALA(gan), ISIR(gan, num_particles=6), num_local=3)
    kernel.bind(250)
    kernel.setup(0)
    jumps: list[int] = []
    arrive = kernel._arrive
    kernel._arrive = lambda state, z, jumped: jumps.append(int(jumped.sum())) or arrive(state, z, jumped)
    counting.values = counting.gradients = 0
    params = kernel.initial_params
    for _ in range(10):
        params = kernel.sample(params)
    assert 0 < sum(jumps) < 10 * 250
    assert counting.values == 10 * 250 * 5
    assert counting.gradients == 10 * 250 * 3 + sum(jumps)


def test_without_jumps_no_gradient_is_computed_again_and_that_is_reported() -> None:
    far = dist.Normal(torch.full((2,), 60.0), 0.1).to_event(1)
    calls: list[int] = []

    def potential(params: dict[str, Tensor]) -> Tensor:
        if params["z"].requires_grad:
            calls.append(len(params["z"]))
        return params["z"].square().sum(-1) / 2

    kernel = LocalGlobal(
        MALA(potential_fn=potential), IndependenceMH(potential_fn=potential, proposal=far), num_local=2
    )
    mcmc = quiet(kernel, 10, 5, {"z": torch.zeros(20, 2)}, num_chains=20)
    # The other calls are the trial of the gradient at setup.
    assert [number for number in calls if number == 20] == [20] * (1 + 2 * 15)
    # Local moves change the position of every chain.
    assert mcmc.never_moved == 0
    assert kernel.diagnostics()["never jumped"] == 1 and kernel.diagnostics()["global acceptance rate"] == 0


def test_the_two_acceptance_rates_are_reported_separately() -> None:
    auc = 0.81
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=10_000)
    kernel = LocalGlobal(MALA(gan), IndependenceMH(gan), num_local=1)
    rates: list[Tensor] = []
    mcmc = quiet(
        kernel, 60, 60, {"z": toy.posterior.sample((3000,))}, num_chains=3000,
        hook_fn=lambda kernel, params, stage, i: rates.append(kernel._jump_prob) if stage == "Sample" else None,
    )  # fmt: skip
    said = kernel.diagnostics()
    assert said["local acceptance rate"] == pytest.approx(0.574, abs=0.05)
    assert said["local acceptance rate"] == pytest.approx(float(mcmc.sample_stats["accept_prob"].mean()))
    assert said["global acceptance rate"] == pytest.approx(float(torch.stack(rates).mean()))
    # With an exact ratio the acceptance of jumps is 2 (1 - AUC), whatever moves are between them. The sd of a rate over
    # chains is at most that of a coin, and the rate of a step is a mean over 3000 chains.
    assert_close_in_se(said["global acceptance rate"], 2 * (1 - auc), 0.5 / 3000**0.5, "jumps")
    assert said["never jumped"] == 0


def test_chees_learns_within_and_stops() -> None:
    gan, _ = two_modes()
    local = ChEES(gan)
    lengths: list[float] = []
    quiet(
        LocalGlobal(local, ISIR(gan), num_local=2), 10, 60, num_chains=200,
        hook_fn=lambda *_: lengths.append(float(local.trajectory_length)),
    )  # fmt: skip
    assert len(set(lengths[:60])) > 30 and len(set(lengths[60:])) == 1


def test_a_run_again_forgets_the_first() -> None:
    gan, _ = two_modes()
    kernel = LocalGlobal(MALA(gan), ISIR(gan))
    first = quiet(kernel, 10, 10, num_chains=50)
    said = kernel.diagnostics()
    pyro.set_rng_seed(3)
    quiet(kernel, 10, 10, num_chains=70)
    pyro.set_rng_seed(3)
    afresh = LocalGlobal(MALA(gan), ISIR(gan))
    again = quiet(afresh, 10, 10, num_chains=70)
    assert kernel.diagnostics() == afresh.diagnostics() != said
    assert first.get_samples(group_by_chain=True)["z"].shape == (50, 10, 2)
    assert again.get_samples(group_by_chain=True)["z"].shape == (70, 10, 2)


# Bad input.


def test_kernels_that_do_not_go_together_raise() -> None:
    gan, _ = two_modes()
    other, _ = two_modes()
    scores = torch.zeros(3)
    for make, words in (
        (
            lambda: LocalGlobal(MALA(gan), MALA(gan)),
            "global_kernel of type IndependenceKernel; got.*MALA.*pass IndependenceMH",
        ),
        (lambda: LocalGlobal(gan, ISIR(gan)), "local_kernel of type BatchKernel; got.*LatentPosterior.*MALA"),
        (lambda: LocalGlobal(MALA(gan), ISIR(other)), "of the same model or potential_fn"),
        (lambda: LocalGlobal(MALA(gan, num_chains=4), ISIR(gan)), "MALA has 4"),
        (lambda: LocalGlobal(MALA(gan), ISIR(gan, num_chains=4)), "ISIR has 4"),
        (lambda: LocalGlobal(MALA(gan), IndependenceMH(gan, initial_log_ratio=scores)), "initial_log_ratio"),
        (lambda: LocalGlobal(MALA(gan), ISIR(gan), num_local=0), "num_local of at least 1"),
        (lambda: LocalGlobal(MALA(gan), ISIR(gan), num_global=0), "num_global of at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
