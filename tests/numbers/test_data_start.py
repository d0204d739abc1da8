"""MH-GAN's start at real data with its settings: which chains wait after 640 steps, and the bias of each policy."""

from __future__ import annotations

import math
import warnings

import pyro
import pytest
import torch
from scipy import stats

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import IndependenceMH
from tests.mcmc.shift_laws import ShiftLaws
from tests.numbers.size import SEEDS
from tests.statistics import assert_close_in_se, assert_follows

pytestmark = pytest.mark.numbers
NUM_CHAINS, NUM_STEPS = 20_000, 640


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", ["continue", "drop", "restart"])
@pytest.mark.parametrize("auc", [0.90, 0.95, 0.98, 0.983])
def test_policies(auc: float, policy: str, seed: int, figure) -> None:
    pyro.set_rng_seed(seed)
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    scores = toy.log_ratio(toy.posterior.sample((NUM_CHAINS,)))
    kernel = IndependenceMH(gan, initial_log_ratio=scores, policy=policy)
    mcmc = VectorizedMCMC(kernel, 1, NUM_STEPS, num_chains=NUM_CHAINS, disable_progbar=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run()
    report, z = kernel.data_start, mcmc.get_samples()["z"]
    delta = math.sqrt(2) * stats.norm.ppf(auc)
    laws = ShiftLaws(delta, NUM_STEPS)
    share, exact = report.num_waiting / NUM_CHAINS, laws.waiting
    truth = stats.kstest(z.flatten().numpy(), laws.truth(), method="asymp")
    figure(
        "data start",
        auc=auc,
        k=NUM_STEPS,
        policy=policy,
        seed=seed,
        chains=NUM_CHAINS,
        waiting=share,
        waiting_exact=exact,
        dropped=report.num_dropped / NUM_CHAINS,
        extra_steps=report.extra_steps,
        mean_error=float(z.mean()) - delta,
        sd=float(z.std()),
        ks=float(truth.statistic),
        p_value=float(truth.pvalue),
    )
    assert_close_in_se(share, exact, math.sqrt(exact * (1 - exact) / NUM_CHAINS), "waiting")
    stated = {"continue": laws.proceed(10 * NUM_STEPS), "drop": laws.drop(), "restart": laws.restart()}[policy]
    assert_follows(z, stated, f"{policy} at AUC {auc}")
    if policy == "restart" and auc > 0.95:
        assert truth.pvalue < 0.001
