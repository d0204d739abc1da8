"""The zoo's MNIST GAN: its own discriminator calibrated, and a fresh critic."""

from __future__ import annotations

import pytest

from pyro_gan.mcmc import MALA, BatchHMC
from tests.numbers.judge import Schedule, compare_with_truth, resample
from tests.numbers.mnist import EXACT, POSTERIORS, before, judged, statistics, true_values
from tests.numbers.size import FULL, SEEDS
from tests.statistics import NUM_SE

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ratio", POSTERIORS)
def test_quality(ratio: str, seed: int, figure) -> None:
    """Resampled digits are better than G's by every judge, and the fresh critic's reach the stated score."""
    gan = POSTERIORS[ratio](seed)
    run, tail = resample(gan, 200_000)
    after, alone = judged(run.x, seed), before(seed)
    figure("mnist", outputs="G alone", seed=seed, **alone)
    figure(
        "mnist",
        outputs=f"ImportanceResampler, {ratio}",
        seed=seed,
        draws=200_000,
        ess_fraction=tail.ess_fraction,
        pareto_k=tail.pareto_k,
        **after,
    )
    report = gan.log_ratio.report
    held_out = getattr(report, "after", report)
    figure("mnist ratio", ratio=ratio, seed=seed, auc=held_out.auc, slope=held_out.slope, log_loss=held_out.log_loss)
    assert after["frechet"] < alone["frechet"]
    assert after["class_tv"] < alone["class_tv"]
    fall = alone["residual_auc"] - after["residual_auc"]
    assert fall > NUM_SE * (alone["residual_auc_se"] ** 2 + after["residual_auc_se"] ** 2) ** 0.5
    if ratio == "fresh conv critic":
        assert after["score"] >= 9.3
        assert tail.ess_fraction >= 0.2
    elif ratio == "own D, Platt":
        assert after["score"] >= 8.9
    gain = after["score"] - alone["score"]
    assert gain > NUM_SE * (alone["score_se"] ** 2 + after["score_se"] ** 2) ** 0.5


@pytest.mark.parametrize("ratio", EXACT if FULL else EXACT[:1])
def test_samplers_against_the_truth(ratio: str, figure) -> None:
    """What is exact agrees with the truth; what is local is either close or flagged by its own diagnostics."""
    gan = POSTERIORS[ratio](0)
    compare_with_truth(
        "mnist",
        ratio,
        gan,
        true_values(ratio),
        statistics,
        figure,
        draws=200_000,
        independence=Schedule(2000, 250, 50),
        local={
            "MALA": (MALA(gan), Schedule(1000, 100, 20)),
            "BatchHMC": (BatchHMC(gan, num_steps=5), Schedule(1000, 20, 4)),
        },
    )
