"""Jumps with local moves on the zoo's 25 Gaussians, at 300 forwards for each output, compared with jumps alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC
from pyro_gan.evaluate import mode_jsd
from pyro_gan.mcmc import ISIR, MALA, BatchKernel, IndependenceMH, LocalGlobal, fit_proposal
from tests.numbers.gaussians25 import POSTERIORS, modes, statistics, true_values
from tests.numbers.judge import Estimates, Run, agrees, estimate, worst_r_hat
from tests.numbers.size import FULL
from tests.numbers.test_equal_cost import Counter
from tests.statistics import NUM_SE

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore")]

#: Largest cost of an output, warmup and the fit of a proposal included. A forward pass of generator and critic counts
#: 1, a value with its gradient 3, as in `test_equal_cost`.
COST = 300
NUM_CHAINS, DRAWS = 1000 if FULL else 250, 10
NUM_OUTPUTS = NUM_CHAINS * DRAWS
PARTICLES, LOCAL = 10, 1

#: A flow is fitted to this number of outputs of importance resampling; their draws cost a tenth of the whole.
FITTED_TO, FITTING_COST = 5000, COST // 10


def flexible(gan: LatentPosterior) -> BatchKernel:
    draws = ImportanceResampler(gan, min_ess=1)(FITTED_TO, FITTING_COST * NUM_OUTPUTS).samples
    proposal = fit_proposal(gan, draws, num_steps=1500, progress=False)
    return LocalGlobal(MALA(gan), ISIR(gan, num_particles=PARTICLES, proposal=proposal), num_local=LOCAL)


# Kernels, and the largest cost of a step: particles, local moves, and a new gradient for chains that jumped.
KERNELS: dict[str, tuple[Callable[[LatentPosterior], BatchKernel], int]] = {
    "IndependenceMH": (IndependenceMH, 1),
    "ISIR": (lambda gan: ISIR(gan, num_particles=PARTICLES), PARTICLES - 1),
    "MALA": (MALA, 3),
    "LocalGlobal": (
        lambda gan: LocalGlobal(MALA(gan), ISIR(gan, num_particles=PARTICLES), num_local=LOCAL),
        PARTICLES - 1 + 3 * LOCAL + 3,
    ),
    "LocalGlobal, fitted flow (FlEx2MCMC)": (flexible, PARTICLES - 1 + 3 * LOCAL + 3),
}
EXACT = [name for name in KERNELS if name != "MALA"]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("ratio", POSTERIORS if FULL else ["fresh MLP"])
def test_modes_at_300_forwards(ratio: str, name: str, figure) -> None:
    """Kernels that jump reach the divergence of the truth; kernels that do not jump miss it."""
    posterior, true = POSTERIORS[ratio](0), true_values(ratio)
    pyro.set_rng_seed(7)
    counter = Counter(posterior.log_ratio)
    gan = LatentPosterior(posterior.generator, counter, posterior.prior)
    counter.cost = 0
    make, cost_of_a_step = KERNELS[name]
    kernel = make(gan)
    # The cost includes the fit, the start, and the few rows of the probe in setup.
    steps = (COST * DRAWS - -(-counter.cost // NUM_CHAINS) - 4) // cost_of_a_step
    thin = max(1, round(0.7 * steps / DRAWS))
    mcmc = VectorizedMCMC(kernel, DRAWS, steps - thin * DRAWS, num_chains=NUM_CHAINS, thin=thin, disable_progbar=True)
    mcmc.run()
    cost = counter.cost / NUM_OUTPUTS
    log_ratio = mcmc.sample_stats["log_ratio"].double()
    effect = max(1.0, float(DRAWS * log_ratio.mean(1).var() / log_ratio.var()))
    x = gan.decode(mcmc.get_samples()["z"])
    gaps = agrees(estimate(Run(x, log_ratio.flatten(), effect), statistics), true)
    expected, spread = spread_of_divergence(true, effect)
    report = modes(x)
    said: dict[str, Any] = kernel.diagnostics()
    figure(
        "local and global",
        ratio=ratio,
        sampler=name,
        outputs=len(x),
        cost=round(cost, 1),
        jsd=report.jsd,
        true_jsd=expected,
        spread=spread,
        high_quality=report.high_quality,
        mode_sd=report.mode_sd,
        mean_log_ratio=float(log_ratio.mean()),
        true_mean_log_ratio=float(true.values["mean log r"][0]),
        gaps_in_se=gaps,
        design_effect=effect,
        r_hat=worst_r_hat(mcmc),
        acceptance=said["acceptance rate"],
        jumps=said.get("global acceptance rate"),
        never_jumped=said.get("never jumped"),
        ess_fraction=true.tail.ess_fraction,
    )
    assert cost <= COST
    if name in EXACT:
        assert abs(report.jsd - expected) <= NUM_SE * spread
        assert max(gaps.values()) <= NUM_SE
    else:
        # The negative control: local moves alone do not cross between modes, whatever their acceptance.
        assert abs(report.jsd - expected) > NUM_SE * spread or worst_r_hat(mcmc) > 1.01


def spread_of_divergence(true: Estimates, design_effect: float, num_repeats: int = 400) -> tuple[float, float]:
    """Return mean and sd of the divergence of the same number of outputs, drawn with the mode shares of the truth.

    The divergence of finitely many outputs is too large, more so if few of them are independent; the simulated one has
    the same bias. The spread includes the error of the truth.
    """
    shares, se = true.values["mode shares"]
    independent = round(NUM_OUTPUTS / design_effect)
    with torch.random.fork_rng():
        uncertain = (shares + se * torch.randn(num_repeats, len(shares), dtype=shares.dtype)).clamp(min=0)
        counts = torch.distributions.Multinomial(independent, probs=uncertain, validate_args=False).sample()
    divergences = torch.tensor([mode_jsd(row) for row in counts])
    return float(divergences.mean()), float(divergences.std())
