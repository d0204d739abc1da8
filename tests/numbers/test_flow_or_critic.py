"""One Real NVP, trained on digits by maximum likelihood and against a Wasserstein critic: how the two differ.

After Comparison of Maximum Likelihood and GAN-based training of Real NVPs, I. Danihelka et al., 2017,
https://arxiv.org/abs/1705.05263.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_gan import toys
from pyro_gan.evaluate import Estimate, critic_distance, wasserstein_bound
from pyro_gan.objectives import GradientPenalty, Wasserstein, fit_gan
from pyro_gan.training import Player, train
from tests.numbers.size import SEEDS

pytestmark = pytest.mark.numbers
NUM_LEVELS, DIM = 17, 64
BIN_WIDTH = 2 / NUM_LEVELS
NUM_TRAINED, NUM_FITTED = 1000, 400
NUM_STEPS, CRITIC_STEPS, BATCH, AVERAGING = 2500, 3, 128, 0.998
RATE = 1e-3
NUM_OUTPUTS = 4000
PRIOR = dist.Normal(torch.zeros(DIM), torch.ones(DIM)).to_event(1)


def dequantise(levels: Tensor) -> Tensor:
    """Spread whole grey levels 0 to 16 over their bins in [-1, 1)."""
    return (levels + torch.rand_like(levels)) * BIN_WIDTH - 1


class Batches:
    """Epochs of digits with fresh noise."""

    def __init__(self, levels: Tensor) -> None:
        self.levels = levels

    def __iter__(self) -> Iterator[Tensor]:
        for rows in torch.randperm(len(self.levels)).split(BATCH):
            if len(rows) == BATCH:
                yield dequantise(self.levels[rows])


def some(levels: Tensor, num_rows: int) -> Tensor:
    return dequantise(levels[torch.randint(len(levels), (num_rows,))])


def by_likelihood(flow: toys.RealNVP, levels: Tensor) -> nn.Module:
    averaged = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    adam = torch.optim.Adam(flow.parameters(), lr=RATE)
    batches: list[Tensor] = []

    def next_batch() -> Tensor:
        if not batches:
            batches.extend(Batches(levels))
        return batches.pop()

    train(
        [Player("flow", flow, adam, lambda x: -flow.log_prob(x).mean())],
        next_batch,
        num_steps=NUM_STEPS,
        callback=lambda step, losses: averaged.update_parameters(flow),
        progress=False,
    )
    return averaged.module.eval()


def by_critic(flow: toys.RealNVP, levels: Tensor) -> nn.Module:
    critic = toys.MLP([DIM, 128, 128, 1])
    return fit_gan(
        flow,
        critic,
        prior=PRIOR,
        data=Batches(levels),
        objective=Wasserstein(),
        penalty=GradientPenalty(1.0),
        generator_optimizer=torch.optim.Adam(flow.parameters(), lr=RATE, betas=(0.5, 0.9)),
        critic_optimizer=torch.optim.Adam(critic.parameters(), lr=RATE, betas=(0.5, 0.9)),
        num_steps=NUM_STEPS,
        critic_steps=CRITIC_STEPS,
        averaging=AVERAGING,
        progress=False,
    ).generator


def independent_distance(outputs: Tensor, fitted: Tensor, judged: Tensor) -> Estimate[float]:
    """Train a fresh critic on held-out digits and half of the outputs; judge it on other digits and the other half."""
    critic = toys.MLP([DIM, 128, 128, 1])
    adam = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    half, penalty = len(outputs) // 2, GradientPenalty()
    for _ in range(400):
        real, generated = some(fitted, BATCH), outputs[torch.randint(half, (BATCH,))]
        loss = Wasserstein().critic_loss(critic(real)[:, 0], critic(generated)[:, 0])
        adam.zero_grad()
        (loss + penalty(critic, real, generated)).backward()
        adam.step()
    # A gradient penalty does not guarantee a slope of at most 1: these figures compare flows, they are no bounds.
    return critic_distance(outputs[half:], dequantise(judged), critic=critic.eval(), lipschitz=1.0)


def bits(flow: nn.Module, levels: Tensor) -> Estimate[float]:
    """Bits per dimension, averaged over four draws of the noise, and their standard error over digits."""
    of_digit = torch.stack(
        [toys.bits_per_dim(flow.log_prob(dequantise(levels)), DIM, bin_width=BIN_WIDTH) for _ in range(4)]
    ).mean(0)
    return Estimate(float(of_digit.mean()), float(of_digit.std()) / len(levels) ** 0.5)


class Verdict(NamedTuple):
    """The figures that compare the two trainings of one seed."""

    test_bits: float
    independent: Estimate[float]
    code_sd: float


def verdict(name: str, flow: nn.Module, levels: tuple[Tensor, ...], seed: int, figure) -> Verdict:
    trained, fitted, judged = levels
    with torch.no_grad():
        outputs = flow(PRIOR.sample((NUM_OUTPUTS,)))
        test_bits, train_bits = bits(flow, judged), bits(flow, trained)
        codes = flow.inverse(dequantise(judged)).double()
    independent = independent_distance(outputs, fitted, judged)
    certified = wasserstein_bound(outputs[:800], dequantise(torch.cat([fitted, judged])), seed=seed)
    p_values = [float(stats.kstest(code.numpy(), "norm").pvalue) for code in codes.T]
    # For standard normal codes it is chi-squared with 64 degrees of freedom.
    radius = codes.square().sum(1)
    found = Verdict(test_bits.value, independent, float(codes.std(0).median()))
    figure(
        "flow or critic",
        trained_by=name,
        seed=seed,
        test_bits=test_bits.value,
        test_bits_se=test_bits.standard_error,
        train_bits=train_bits.value,
        independent=independent.value,
        independent_se=independent.standard_error,
        certified=certified.value,
        certified_se=certified.standard_error,
        code_sd=found.code_sd,
        codes_not_normal=sum(p < 0.01 for p in p_values),
        radius=float(radius.mean()),
        radius_ks=float(stats.kstest(radius.numpy(), stats.chi2(DIM).cdf).statistic),
    )
    return found


def test_likelihood_against_a_critic(figure) -> None:
    torch.set_num_threads(1)
    gains = []
    for seed in SEEDS:
        pyro.set_rng_seed(seed)
        levels = ((toys.digits().images.flatten(1) + 1) * 8).round()
        sizes = [NUM_TRAINED, NUM_FITTED, len(levels) - NUM_TRAINED - NUM_FITTED]
        parts = levels[torch.randperm(len(levels))].split(sizes)
        start = toys.RealNVP(DIM, num_couplings=4, hidden=(128,), output=toys.squashing(-1.0, 1.0))
        trained_by = {"likelihood": by_likelihood, "critic": by_critic}
        found = {
            name: verdict(name, train_it(copy.deepcopy(start), parts[0]), parts, seed, figure)
            for name, train_it in trained_by.items()
        }
        floor = independent_distance(some(parts[0], NUM_OUTPUTS), *parts[1:])
        figure("digits against digits", seed=seed, independent=floor.value, se=floor.standard_error)
        likelihood, critic = found["likelihood"], found["critic"]
        # Bits and codes differ clearly for each seed; a uniform density costs log2(17) = 4.09 bits.
        assert likelihood.test_bits < 2.6 and critic.test_bits > math.log2(NUM_LEVELS)
        assert likelihood.code_sd < 1.5 and critic.code_sd > 3
        gains.append(
            (
                likelihood.independent.value - critic.independent.value,
                math.hypot(likelihood.independent.standard_error, critic.independent.standard_error),
            )
        )
    gain, error = (torch.tensor(column).double() for column in zip(*gains, strict=True))
    mean, standard_error = float(gain.mean()), float(error.square().sum().sqrt()) / len(gain)
    figure("nearer by its critic", mean=mean, se=standard_error, by_seed=gain)
    # As in the paper, an independent critic prefers the flow that was trained against a critic.
    assert mean > 3 * standard_error
