"""Discrete latents beside continuous ones, and observations with holes: exact by draws of the prior."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pyro_gan import VectorizedMCMC
from pyro_gan.annealing import SMC
from pyro_gan.mcmc import ISIR, MALA, PCN, BatchHMC, ChEES, IndependenceMH, LocalGlobal, RandomWalk
from pyro_gan.resampling import ImportanceResampler, RejectionSampler
from pyro_gan.targets import make_target
from tests.statistics import FALSE_ALARM, assert_mean

SHARES = torch.tensor([0.2, 0.5, 0.3])
NOISE, SEEN = 0.5, 2.4
NUM = 5000


def codes() -> None:
    """A code moves the mean: P(k | y) is proportional to SHARES[k] N(y; 2 k, sqrt(1 + NOISE^2))."""
    k = pyro.sample("k", dist.Categorical(SHARES))
    z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("y", dist.Normal(z + 2.0 * k, NOISE), obs=torch.tensor(SEEN))


def exact() -> tuple[Tensor, float]:
    """Return the posterior probabilities of the codes, and the posterior mean of z."""
    value = torch.arange(3.0)
    marginal = dist.Normal(2 * value, math.hypot(1.0, NOISE))
    share = (SHARES.log() + marginal.log_prob(torch.tensor(SEEN))).softmax(0)
    return share, float((share * (SEEN - 2 * value)).sum()) / (1 + NOISE**2)


def chains(kernel: type, steps: int) -> Callable[[], dict[str, Tensor]]:
    def draw() -> dict[str, Tensor]:
        # Independent chains, so that the last draws are independent.
        mcmc = VectorizedMCMC(kernel(codes), 1, warmup_steps=steps, num_chains=NUM, keep="last", disable_progbar=True)
        mcmc.run()
        return mcmc.get_samples()

    return draw


SAMPLERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "ImportanceResampler": lambda: ImportanceResampler(codes)(NUM, 20 * NUM).samples,
    "RejectionSampler": lambda: RejectionSampler(codes)(NUM).samples,
    "IndependenceMH": chains(IndependenceMH, 30),
    "ISIR": chains(ISIR, 10),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_that_draw_from_the_prior_sample_discrete_latents(name: str) -> None:
    samples = SAMPLERS[name]()
    share, mean = exact()
    assert samples["k"].dtype == torch.int64
    counts = torch.bincount(samples["k"].reshape(-1), minlength=3)
    assert chisquare(counts.numpy(), share.double().numpy() / float(share.double().sum()) * NUM).pvalue > FALSE_ALARM
    assert_mean(samples["z"].reshape(-1), mean)
    # The negative control: the prior's shares would be seen.
    assert chisquare(counts.numpy(), SHARES.double().numpy() / float(SHARES.double().sum()) * NUM).pvalue < FALSE_ALARM


@pytest.mark.parametrize("kernel", [MALA, BatchHMC, ChEES, RandomWalk, PCN])
def test_local_moves_refuse_discrete_latents_and_name_the_recipe(kernel: type) -> None:
    mcmc = VectorizedMCMC(kernel(codes), 2, num_chains=4, disable_progbar=True)
    with pytest.raises(
        ValueError, match=rf"{kernel.__name__} .*'k' is discrete.*ISIR.*pyro\.condition.*log_normaliser"
    ):
        mcmc.run()


def test_mixtures_ladders_and_other_proposals_refuse_too() -> None:
    mixed = LocalGlobal(MALA(codes), IndependenceMH(codes))
    other = IndependenceMH(codes, proposal=dist.Normal(torch.zeros(2), 1.0).to_event(1))
    for kernel in (mixed, other):
        with pytest.raises(ValueError, match="'k' is discrete"):
            VectorizedMCMC(kernel, 2, warmup_steps=1, num_chains=4, disable_progbar=True).run()
    with pytest.raises(ValueError, match="'k' is discrete"):
        SMC(codes, 100)()


def test_the_recipe_one_run_a_code_gives_the_shares() -> None:
    logs, errors = [], []
    for k in range(3):
        report = SMC(pyro.condition(codes, {"k": torch.tensor(k)}), 2000)().report
        logs.append(report.log_normaliser)
        errors.append(report.log_normaliser_se)
    share = torch.tensor(logs).softmax(0)
    # An error of e nats in each normaliser moves a share p by at most p times two errors.
    assert (share - exact()[0]).abs().max() < 2 * 4.4 * max(errors)
    assert max(errors) < 0.05


def test_only_discrete_latents() -> None:
    def model() -> None:
        with pyro.plate("coin", 3):
            heads = pyro.sample("heads", dist.Bernoulli(torch.tensor(0.3)))
        pyro.factor("seen", 2.0 * heads.sum())

    drawn = ImportanceResampler(model)(NUM, 20 * NUM).samples["heads"]
    odds = 0.3 / 0.7 * math.exp(2)
    assert drawn.shape == (NUM, 3)
    assert_mean(drawn, odds / (1 + odds))


MASK = torch.tensor([True, False, True, True])


def with_holes(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0), 2.0))
    with pyro.plate("row", 4):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y, obs_mask=MASK)


@pytest.mark.parametrize("kernel", [IndependenceMH, MALA])
def test_missing_observations_change_nothing_and_are_imputed(kernel: type) -> None:
    """The mean has the posterior of the three observations; what is missing is drawn around it."""
    y = torch.tensor([1.0, 99.0, 2.0, 3.0])
    mcmc = VectorizedMCMC(kernel(with_holes), 60, warmup_steps=100, num_chains=1500, keep="last", disable_progbar=True)
    mcmc.run(y)
    samples = mcmc.get_samples()
    precision = 1 / 4 + 3
    assert_mean(samples["mean"].reshape(-1), 6.0 / precision)
    missing = samples["y_unobserved"].reshape(-1, 4)[:, 1]
    assert_mean(missing, 6.0 / precision)
    assert float(missing.std()) == pytest.approx(math.sqrt(1 + 1 / precision), rel=0.06)


def test_a_mask_that_is_none_of_obs_mask_is_still_refused() -> None:
    def model() -> None:
        with pyro.poutine.mask(mask=False):
            pyro.sample("y_unobserved", dist.Normal(torch.tensor(0.0), 1.0))

    with pytest.raises(ValueError, match="masked"):
        make_target(model)
