"""Whole runs against formulas: an affine generator of Gaussian data, bounded latents, and exact acceptance rates."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from pyro.infer import HMC, MCMC, NUTS
from torch import Tensor

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import MALA, ULA, IndependenceMH
from tests.exact_targets import affine_toy, never_moved_probability, uniform_latents
from tests.mcmc.members import EXACT
from tests.statistics import assert_chain_mean, assert_chain_sd, assert_close_in_se, assert_mean, assert_sd, chain_mean

# Enough independent chains and steps that the standard deviation is known to 0.6 %, and with `make numbers` to 0.3 %.
# A step of these small networks costs little more for many chains than for few: many chains take few steps.
NUM_CHAINS, WARMUP, MAX_RELATIVE_SE = 2000, 100, 0.006
LONG = {"num_chains": 8000, "max_relative_se": 0.003}
# Rows of one pass: all chains, and their particles.
CHUNK_SIZE = 8000
# Draws of each chain: more for kernels whose draws are more correlated, and for those whose chains may stay long.
NUM_SAMPLES = {name: 125 for name in EXACT} | {
    "IndependenceMH": 200,
    "ISIR": 80,
    "LocalGlobal, MALA and ISIR": 40,
    "LocalGlobal, PCN and IndependenceMH": 40,
    "MALA": 40,
    "BatchHMC": 40,
    "ChEES": 40,
}


def affine() -> tuple[LatentPosterior, toys.Toy]:
    toy = affine_toy(3)
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=CHUNK_SIZE), toy


def assert_moments(chains: Tensor, toy: toys.Toy, what: str, max_relative_se: float | None = MAX_RELATIVE_SE) -> None:
    mean = toy.posterior.mean
    assert_chain_mean(chains, mean, f"{what} mean")
    assert_chain_sd(chains, toy.posterior.variance.sqrt(), mean, f"{what} sd", max_relative_se=max_relative_se)


def check_affine(kernel: str, *, num_chains: int = NUM_CHAINS, max_relative_se: float = MAX_RELATIVE_SE) -> None:
    """Our runner on the affine posterior."""
    gan, toy = affine()
    mcmc = VectorizedMCMC(EXACT[kernel](gan), NUM_SAMPLES[kernel], WARMUP, num_chains=num_chains, disable_progbar=True)
    mcmc.run()
    assert mcmc.never_moved == 0
    assert_moments(mcmc.get_samples(group_by_chain=True)["z"], toy, kernel, max_relative_se)


def check_affine_under_pyro(
    kernel: str, *, num_chains: int = NUM_CHAINS, max_relative_se: float = MAX_RELATIVE_SE
) -> None:
    """Pyro's runner on the same, all chains in one process."""
    gan, toy = affine()
    mcmc = MCMC(EXACT[kernel](gan, num_chains=num_chains), NUM_SAMPLES[kernel], WARMUP, disable_progbar=True)
    mcmc.run()
    assert_moments(mcmc.get_samples()["z"].transpose(0, 1), toy, kernel, max_relative_se)


def check_bounded(kernel: str, *, num_chains: int = NUM_CHAINS, max_relative_se: float = MAX_RELATIVE_SE) -> None:
    """Uniform latents, of which quadrature knows the moments."""
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior, chunk_size=CHUNK_SIZE)
    mcmc = VectorizedMCMC(
        EXACT[kernel](model), NUM_SAMPLES[kernel], WARMUP, num_chains=num_chains, disable_progbar=True
    )
    mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert (z.abs() <= 1).all()
    assert_chain_mean(z, gan.law.mean, kernel)
    assert_chain_sd(z, gan.law.sd, gan.law.mean, kernel, max_relative_se=max_relative_se)


@pytest.mark.parametrize("kernel", EXACT)
def test_affine_posterior_under_our_runner(kernel: str) -> None:
    check_affine(kernel)


@pytest.mark.parametrize("kernel", EXACT)
@pytest.mark.filterwarnings("ignore:A kernel with num_chains")
def test_affine_posterior_under_pyros_runner(kernel: str) -> None:
    check_affine_under_pyro(kernel)


@pytest.mark.parametrize("temperature", [2.0, 0.8])
def test_affine_posterior_at_another_temperature(temperature: float) -> None:
    toy = affine_toy(3, temperature=temperature)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, temperature=temperature, chunk_size=CHUNK_SIZE)
    mcmc = VectorizedMCMC(MALA(gan), NUM_SAMPLES["MALA"], WARMUP, num_chains=NUM_CHAINS, disable_progbar=True)
    mcmc.run()
    assert_moments(mcmc.get_samples(group_by_chain=True)["z"], toy, f"temperature {temperature}")


def test_importance_resampler_on_the_affine_posterior() -> None:
    gan, toy = affine()
    result = ImportanceResampler(gan)(num_outputs=100_000, num_draws=1_000_000)
    z, report = result.samples["z"], result.report
    assert report.num_draws == 1_000_000 and len(z) == report.num_outputs == 100_000
    # Copies are not independent: the errors are those of the different draws.
    independent = z.unique(dim=0)
    assert report.distinct == len(independent)
    scale = math.sqrt(len(z) / min(report.distinct, report.tail.ess))
    mean, sd = toy.posterior.mean, toy.posterior.variance.sqrt()
    assert_close_in_se(z.mean(0), mean, scale * sd / math.sqrt(len(z)), "resampled mean")
    se_sd = scale * sd / math.sqrt(2 * len(z))
    assert_close_in_se(z.std(0), sd, se_sd, "resampled sd", max_relative_se=MAX_RELATIVE_SE)
    # The ratio is exact, so the weights have mean 1.
    assert_close_in_se(report.tail.log_mean_weight, 0.0, report.tail.log_mean_weight_se, "log normaliser")
    torch.testing.assert_close(result.log_ratio, gan.log_weight({"z": z}))


@pytest.mark.parametrize("kernel", [NUTS, HMC])
def test_pyros_own_kernels_sample_the_model_unchanged(kernel: Any) -> None:
    gan, toy = affine()
    kwargs = {"num_steps": 5} if kernel is HMC else {}
    mcmc = MCMC(kernel(gan, **kwargs), num_samples=400, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    # One chain: batches of 20 draws count as independent chains.
    assert_moments(mcmc.get_samples()["z"].reshape(20, 20, 3), toy, kernel.__name__, max_relative_se=None)


# Unconstrained, a uniform prior is logistic: not the Gaussian that pCN walks in, and with a tail that the Gaussian
# proposal of the tests leaves only slowly.
BOUNDED = [name for name in EXACT if "PCN" not in name and name != "MetropolisHastings"]


@pytest.mark.parametrize("kernel", BOUNDED)
def test_bounded_latents_agree_with_quadrature(kernel: str) -> None:
    check_bounded(kernel)


def test_bounded_latents_resampled_agree_with_quadrature() -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior, chunk_size=CHUNK_SIZE)
    z = ImportanceResampler(model)(num_outputs=100_000, num_draws=1_000_000).samples["z"]
    assert (z.abs() <= 1).all()
    assert_mean(z, gan.law.mean)
    assert_sd(z, gan.law.sd, max_relative_se=MAX_RELATIVE_SE)


@pytest.mark.parametrize("step_size", [0.2, 0.6, 1.8])
def test_ula_follows_its_own_distribution(step_size: float) -> None:
    # On a normal distribution of precision l, ULA is an autoregression of variance 1 / (l (1 - step l / 4)).
    precision = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    sd = (precision * (1 - step_size * precision / 4)).rsqrt()
    mcmc = VectorizedMCMC(
        ULA(potential_fn=lambda p: (precision * p["z"].square()).sum(-1) / 2, step_size=step_size,
            adapt_step_size=False),
        250,
        0,
        num_chains=4000,
        initial_params={"z": sd * torch.randn(4000, 3, dtype=torch.float64)},
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert_chain_mean(z, 0.0, "ULA mean")
    assert_chain_sd(z, sd, 0.0, "ULA sd", max_relative_se=0.005)
    # The negative control: it is not the distribution of the target.
    with pytest.raises(AssertionError, match="standard errors"):
        assert_chain_sd(z, precision.rsqrt(), 0.0, "target's sd")


@pytest.mark.parametrize("auc", [0.64, 0.81, 0.95])
def test_independence_acceptance_is_twice_one_minus_auc(auc: float) -> None:
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=CHUNK_SIZE)
    # Chains that start at draws of the target are stationary from their first step.
    start = {"z": toy.posterior.sample((4000,))}
    mcmc = VectorizedMCMC(IndependenceMH(gan), 100, 0, num_chains=4000, initial_params=start, disable_progbar=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run()
    estimate = chain_mean(mcmc.sample_stats["accept_prob"])
    assert_close_in_se(estimate.value, 2 * (1 - auc), estimate.standard_error, f"acceptance at AUC {auc}")


def test_never_moved_share_is_reported_and_exact() -> None:
    auc, num_steps, num_chains = 0.98, 100, 20_000
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=CHUNK_SIZE)
    start = {"z": toy.posterior.sample((num_chains,))}
    mcmc = VectorizedMCMC(
        IndependenceMH(gan), num_steps, 0, num_chains=num_chains, initial_params=start, disable_progbar=True
    )
    with pytest.warns(UserWarning, match="accepted nothing"):
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    stayed = (z[:, -1] == start["z"]).all(-1)
    assert mcmc.never_moved == pytest.approx(float(stayed.double().mean()))
    torch.testing.assert_close(mcmc.sample_stats["moved"][:, -1], ~stayed)
    exact = never_moved_probability(auc, num_steps)
    assert_close_in_se(mcmc.never_moved, exact, math.sqrt(exact * (1 - exact) / num_chains), "never moved")
