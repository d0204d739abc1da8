"""Two decades of step sizes on known densities: MALA's samples stay right, ULA's drift.

Chains start at exact draws of the target, so any error of their last states comes from the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.evaluate import mode_report
from pyro_gan.mcmc import MALA, ULA
from tests.numbers.size import SEEDS
from tests.statistics import FALSE_ALARM, two_sample_p_value

pytestmark = pytest.mark.numbers
STEP_SIZES = [10 ** (-3.5 + exponent / 3) for exponent in range(7)]
NUM_CHAINS, NUM_STEPS = 2000, 60
# At a step size that is much too long ULA flings its chains so far that squares overflow.
FAR = 1e6
# Across the roll and about a mean of the grid the variance of the data is 0.05^2 = 0.0025. ULA has a
# variance larger by 1 / (1 - step_size / 0.01), and diverges from 0.01 on. 2000 chains clearly show a factor of two.
ULA_IS_WRONG_FROM = 0.005


class Flaws(NamedTuple):
    """Figures of samples of a toy that a step size may spoil."""

    # Samples that are off the roll, or outside all modes, by more than 4 standard deviations.
    num_off: int
    # Standard deviation of the others across the roll or in a mode, divided by that of the data: 1 is right.
    relative_sd: float | None
    # Divergence of the shares of the modes from equal shares, in nats; about 0.0016 for 2000 exact draws.
    jsd: float | None


class Case(NamedTuple):
    """A toy and what its samples are judged by."""

    build: Callable[[], toys.Toy]
    flaws: Callable[[Tensor, toys.Toy], Flaws]
    # Exact value of the share that num_off counts.
    share_off: float


def roll_flaws(x: Tensor, toy: toys.Toy) -> Flaws:
    distance = toys.roll_distance(x).double()
    on = distance[distance <= 4]
    return Flaws(int((distance > 4).sum()), float(on.square().mean().sqrt()) if len(on) else None, None)


def grid_flaws(x: Tensor, toy: toys.Toy) -> Flaws:
    report = mode_report(x, toy.posterior.means, sd=toy.posterior.scale)
    relative_sd = None if math.isnan(report.mode_sd) else report.mode_sd / toy.posterior.scale
    return Flaws(int(report.counts[-1]), relative_sd, report.jsd)


CASES = {
    "roll": Case(toys.swiss_roll, roll_flaws, 2 * float(stats.norm.sf(4))),
    "grid": Case(toys.grid, grid_flaws, math.exp(-(4**2) / 2)),
}


def seen_by_the_test(x: Tensor, toy: toys.Toy) -> Tensor:
    """Return coordinates and log density, which shows a wrong spread about the curve or a mean."""
    return torch.cat([x, toy.posterior.log_prob(x)[:, None]], -1)


@pytest.mark.filterwarnings("ignore:.* of the chains", "ignore:Precision loss")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_step_size(name: str, seed: int, figure) -> None:
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    case = CASES[name]
    toy = case.build()
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    for kernel in (MALA, ULA):
        for step_size in STEP_SIZES:
            mcmc = VectorizedMCMC(
                kernel(gan, step_size=step_size, adapt_step_size=False),
                NUM_STEPS,
                warmup_steps=0,
                initial_params={"z": toy.posterior.sample((NUM_CHAINS,))},
                num_chains=NUM_CHAINS,
                keep="last",
                disable_progbar=True,
            )
            mcmc.run()
            x = gan.decode(mcmc.get_samples()["z"]).clamp(-FAR, FAR)
            flaws = case.flaws(x, toy)
            exact = toy.sample_data(NUM_CHAINS)
            p_value, _ = two_sample_p_value(seen_by_the_test(x, toy), seen_by_the_test(exact, toy))
            figure(
                "step size",
                toy=name,
                kernel=kernel.__name__,
                step_size=step_size,
                seed=seed,
                acceptance=sum(mcmc.diagnostics()["acceptance rate"].values()) / NUM_CHAINS,
                never_moved=mcmc.never_moved,
                **flaws._asdict(),
                p_value=p_value,
            )
            if kernel is MALA:
                assert p_value >= FALSE_ALARM, f"MALA at step size {step_size}"
                assert stats.binom.sf(flaws.num_off - 1, NUM_CHAINS, case.share_off) >= FALSE_ALARM
            elif step_size > ULA_IS_WRONG_FROM:
                assert p_value < FALSE_ALARM, f"ULA at step size {step_size}"
