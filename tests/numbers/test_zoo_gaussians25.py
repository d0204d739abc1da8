"""The zoo's WGAN-GP on 25 Gaussians: a critic that is no log ratio, calibrated, and a fresh one."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, calibrate, fit_log_ratio, toys
from pyro_gan.evaluate import ModeReport, mode_report, residual_auc
from pyro_gan.mcmc import MALA, BatchHMC, IndependenceMH
from tests import zoo
from tests.numbers.judge import (
    NUM_OUTPUTS,
    Run,
    agrees,
    assert_agrees,
    chains,
    estimate,
    resample,
    shares,
    short,
    truth,
    worst_r_hat,
)
from tests.statistics import NUM_SE

pytestmark = pytest.mark.numbers
SEEDS = [0, 1, 2]


class Scale(torch.nn.Module):
    """Spreads the data's fine structure over a range in which a network learns it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@functools.cache
def own_ratio(seed: int) -> LatentPosterior:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.gaussians25_generator(), zoo.gaussians25_prior()
    with torch.no_grad():
        generated = generator(prior.sample((50_000,)))
    return LatentPosterior(
        generator, calibrate(zoo.gaussians25_critic(), zoo.gaussians25_data(50_000), generated), prior
    )


@functools.cache
def fresh_ratio(seed: int) -> LatentPosterior:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.gaussians25_generator(), zoo.gaussians25_prior()
    ratio = fit_log_ratio(
        generator,
        prior,
        zoo.gaussians25_data(100_000),
        torch.nn.Sequential(Scale(zoo.SCALE), toys.MLP([2, 256, 256, 256, 1])),
        min_ess_fraction=0.02,
        num_steps=2500,
        batch_size=1024,
        eval_every=100,
        optimizer=lambda p: torch.optim.Adam(p, lr=3e-3),
        num_validation_draws=50_000,
        progress=False,
    )
    return LatentPosterior(generator, ratio, prior)


POSTERIORS = {"own critic, Platt": own_ratio, "fresh MLP": fresh_ratio}


def modes(x: Tensor) -> ModeReport:
    return mode_report(x, zoo.gaussians25_means(), sd=zoo.GAUSSIANS25_SD)


def statistics(x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    report = modes(x)
    return {
        "high quality": (torch.tensor(report.high_quality), torch.tensor(report.standard_error)),
        "mode shares": shares(report.counts),
    }


def judged(x: Tensor) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    report = modes(x)
    residual = residual_auc(
        x[:5000], zoo.gaussians25_data(5000), classifier=HistGradientBoostingClassifier(random_state=0)
    )
    return {
        "high_quality": report.high_quality,
        "num_modes": report.num_modes,
        "jsd": report.jsd,
        "mode_sd": report.mode_sd,
        "residual_auc": residual.value,
        "residual_auc_se": residual.standard_error,
    }


@functools.cache
def before(seed: int) -> dict[str, Any]:
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        return judged(zoo.gaussians25_generator()(zoo.gaussians25_prior().sample((NUM_OUTPUTS,))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ratio", POSTERIORS)
def test_quality(ratio: str, seed: int, figure) -> None:
    """Its own critic helps a little, a fresh one nearly closes the gap."""
    gan = POSTERIORS[ratio](seed)
    run, tail = resample(gan, 500_000)
    after, alone = judged(run.x), before(seed)
    figure("gaussians25", outputs="G alone", seed=seed, **alone)
    figure(
        "gaussians25",
        outputs=f"ImportanceResampler, {ratio}",
        seed=seed,
        draws=500_000,
        ess_fraction=tail.ess_fraction,
        pareto_k=tail.pareto_k,
        **after,
    )
    assert 0.36 < alone["high_quality"] < 0.41
    assert after["num_modes"] == 25
    fall = alone["residual_auc"] - after["residual_auc"]
    assert fall > NUM_SE * (alone["residual_auc_se"] ** 2 + after["residual_auc_se"] ** 2) ** 0.5
    if ratio == "fresh MLP":
        assert after["high_quality"] >= 0.93
    else:
        assert after["high_quality"] == pytest.approx(0.573, abs=0.02)


@pytest.mark.parametrize("ratio", POSTERIORS)
def test_samplers_against_the_truth(ratio: str, figure) -> None:
    """What is exact agrees with the truth; what is local is either close or flagged by its own diagnostics."""
    gan = POSTERIORS[ratio](0)
    pyro.set_rng_seed(100)
    true = truth(gan, statistics)
    figure("gaussians25 truth", ratio=ratio, ess_fraction=true.tail.ess_fraction, **short(true.values))

    def record(sampler: str, run: Run, **values: Any) -> dict[str, float]:
        ours = estimate(run, statistics)
        gaps = agrees(ours, true)
        figure("gaussians25 sampler", ratio=ratio, sampler=sampler, **values, **short(ours), gaps_in_se=gaps)
        return gaps

    run, _ = resample(gan, 1_000_000)
    assert_agrees(record("ImportanceResampler", run, draws=1_000_000), "ImportanceResampler")
    run, mcmc = chains(IndependenceMH(gan), gan, num_chains=2000, warmup_steps=300, thin=100)
    gaps = record("IndependenceMH", run, acceptance=float(mcmc.sample_stats["accept_prob"].mean()))
    assert mcmc.never_moved == 0
    assert_agrees(gaps, "IndependenceMH")
    for name, kernel in {"MALA": MALA(gan), "BatchHMC": BatchHMC(gan)}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run, mcmc = chains(
                kernel, gan, num_chains=1000, warmup_steps=200, thin=10 if name == "MALA" else 2
            )
        acceptance, r_hat = float(mcmc.sample_stats["accept_prob"].mean()), worst_r_hat(mcmc)
        gaps = record(name, run, acceptance=acceptance, r_hat=r_hat, never_moved=mcmc.never_moved)
        assert max(gaps.values()) <= NUM_SE or r_hat > 1.01, f"{name} is off and its R-hat is {r_hat:.3f}"
