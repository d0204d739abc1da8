"""The exact 5 x 5 grid: with a perfect ratio the samplers must give data-like samples of a flawed generator."""

from __future__ import annotations

import pyro
import pytest
import torch

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC, toys
from pyro_gan.evaluate import mode_report
from pyro_gan.mcmc import IndependenceMH
from tests.exact_targets import never_moved_probability
from tests.numbers.size import SEEDS
from tests.statistics import assert_close_in_se

pytestmark = pytest.mark.numbers
NUM_OUTPUTS, NUM_STEPS = 40_000, 640


def outputs(sampler: str, gan: LatentPosterior, toy: toys.Toy) -> torch.Tensor:
    if sampler == "IndependenceMH":
        mcmc = VectorizedMCMC(IndependenceMH(gan), 1, NUM_STEPS - 1, num_chains=NUM_OUTPUTS, disable_progbar=True)
        mcmc.run()
        assert mcmc.never_moved == 0
        return gan.decode(mcmc.get_samples()["z"])
    if sampler == "ImportanceResampler":
        return gan.decode(ImportanceResampler(gan)(NUM_OUTPUTS, 4_000_000).samples["z"])
    return toy.sample_data(NUM_OUTPUTS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sampler", ["IndependenceMH", "ImportanceResampler", "data themselves"])
def test_exact_grid(sampler: str, seed: int, figure) -> None:
    pyro.set_rng_seed(seed)
    toy = toys.grid()
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    report = mode_report(outputs(sampler, gan, toy), toy.posterior.means, sd=toy.posterior.scale)
    figure("exact grid", sampler=sampler, seed=seed, outputs=NUM_OUTPUTS, k=NUM_STEPS, **report._asdict())
    assert report.high_quality >= 0.9992
    assert report.jsd <= 0.0004
    assert 0.0493 <= report.mode_sd <= 0.0505


@pytest.mark.parametrize("seed", SEEDS)
def test_never_moved_share_at_auc_98(seed: int, figure) -> None:
    pyro.set_rng_seed(seed)
    num_chains = 5000
    toy = toys.gaussian_shift(0.983, dtype=torch.float64)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    start = {"z": toy.posterior.sample((num_chains,))}
    mcmc = VectorizedMCMC(
        IndependenceMH(gan), 1, NUM_STEPS - 1, initial_params=start, num_chains=num_chains, disable_progbar=True
    )
    with pytest.warns(UserWarning, match="accepted nothing"):
        mcmc.run()
    exact = never_moved_probability(0.983, NUM_STEPS)
    figure("never moved", auc=0.983, k=NUM_STEPS, seed=seed, share=mcmc.never_moved, exact=exact)
    assert_close_in_se(mcmc.never_moved, exact, (exact * (1 - exact) / num_chains) ** 0.5, "never moved")
