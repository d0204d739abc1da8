"""The zoo's WGAN-GP on 25 Gaussians: a critic that is no log ratio, calibrated, and a fresh one."""

from __future__ import annotations

import pytest

from pyro_gan.mcmc import MALA, BatchHMC
from tests.numbers.gaussians25 import POSTERIORS, before, judged, statistics, true_values
from tests.numbers.judge import Schedule, compare_with_truth, resample
from tests.numbers.size import SEEDS
from tests.statistics import NUM_SE

pytestmark = pytest.mark.numbers


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
    compare_with_truth(
        "gaussians25",
        ratio,
        gan,
        true_values(ratio),
        statistics,
        figure,
        draws=1_000_000,
        independence=Schedule(2000, 300, 100),
        local={"MALA": (MALA(gan), Schedule(1000, 200, 10)), "BatchHMC": (BatchHMC(gan), Schedule(1000, 200, 2))},
    )
