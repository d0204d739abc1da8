"""Telescoping where the two sides hardly overlap: Gaussians in 20 dimensions at 14 nats, and what the loss chooses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import fit_log_ratio, toys
from tests.numbers.size import SEEDS
from tests.statistics import NUM_SE

pytestmark = [pytest.mark.numbers, pytest.mark.full]

DIM, KL, NUM_BRIDGES, NUM_ROWS, NUM_STEPS = 20, 14.0, 4, 20_000, 1500
#: Correlation of ten pairs, and shift of twenty numbers, at which the divergence from N(0, I) is 14 nats.
RHO, SHIFT = math.sqrt(1 - math.exp(-4 * KL / DIM)), math.sqrt(2 * KL / DIM)


def correlated(num: int) -> Tensor:
    first = torch.randn(num, DIM // 2)
    return torch.stack([first, RHO * first + math.sqrt(1 - RHO**2) * torch.randn_like(first)], 2).flatten(1)


def ratio_of_correlated(x: Tensor) -> Tensor:
    a, b = x[:, ::2], x[:, 1::2]
    inside = (a.square() + b.square() - 2 * RHO * a * b) / (1 - RHO**2) - a.square() - b.square()
    return -(inside.sum(1) + DIM / 2 * math.log(1 - RHO**2)) / 2


PAIRS: dict[str, tuple[Callable[[int], Tensor], Callable[[Tensor], Tensor]]] = {
    "correlated": (correlated, ratio_of_correlated),
    "shifted": (lambda num: torch.randn(num, DIM) + SHIFT, lambda x: SHIFT * x.sum(1) - KL),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pair", PAIRS)
def test_ratios_of_gaussians_at_14_nats(pair: str, seed: int, figure) -> None:
    """Equal steps for both; the errors are root mean squares in nats over other rows of the data."""
    draw, exact = PAIRS[pair]
    prior = torch.distributions.Normal(0.0, 1.0).expand([DIM])
    errors = {}
    for num_bridges in (0, NUM_BRIDGES):
        pyro.set_rng_seed(seed)
        data = draw(NUM_ROWS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the two sides do not overlap is the point
            ratio = fit_log_ratio(
                nn.Identity(),
                prior,
                data,
                lambda: toys.MLP([DIM, 128, 128, 1]),
                num_bridges=num_bridges,
                min_ess_fraction=0.0,
                num_steps=NUM_STEPS,
                eval_every=100,
                max_seconds=3600.0,
                progress=False,
            )
        x = draw(5000)
        z = torch.randn(5000, DIM)
        with torch.no_grad():
            errors[num_bridges] = float((ratio(x) - exact(x)).square().mean().sqrt())
            of_generated = float((ratio(z) - exact(z)).square().mean().sqrt())
        telescoping = ratio.telescoping
        figure(
            "telescoping at 14 nats",
            pair=pair,
            seed=seed,
            num_bridges=num_bridges,
            rmse=errors[num_bridges],
            rmse_of_generated=of_generated,
            kl=float(exact(x).mean()),
            ended=ratio.ended,
            advantage=math.nan if telescoping is None else telescoping.advantage,
            advantage_se=math.nan if telescoping is None else telescoping.advantage_se,
        )
    assert telescoping is not None
    # The loss between ends that hardly overlap rests on few rows, and may choose wrongly within its error.
    assert telescoping.advantage > -NUM_SE * telescoping.advantage_se
    if telescoping.won:
        assert errors[NUM_BRIDGES] < 2.0 and errors[NUM_BRIDGES] < errors[0] / 1.5
