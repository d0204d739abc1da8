"""Many chains against one of Pyro's NUTS on the same model: effective draws and gradients a second, in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam import LocScaleReparam
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import BatchHMC, ChEES
from tests.benchmarks.conftest import Figure
from tests.benchmarks.paired import Ratio, ratio_of, timed
from tests.benchmarks.pairs import tiny_pair

NUM_CHAINS = 1000
# Enough draws to estimate the effective sample size of NUTS, a usual warmup for it, and enough warmup for ours.
NUTS_DRAWS, NUTS_WARMUP = 300, 200
DRAWS, WARMUP = 100, 100
ROUNDS = 3

EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SE = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools() -> None:
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("school", len(EFFECT)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("effect", dist.Normal(theta, SE), obs=EFFECT)


def regression() -> Callable[[], None]:
    """Return a logistic regression with two hundred rows of four covariates."""
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    y = torch.bernoulli(torch.sigmoid(x @ torch.tensor([1.0, -0.5, 0.3, 0.0]) - 0.4))

    def model() -> None:
        intercept = pyro.sample("intercept", dist.Normal(torch.zeros(()), 2.0))
        slope = pyro.sample("slope", dist.Normal(torch.zeros(4), 2.0).to_event(1))
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=intercept + x @ slope), obs=y)

    return model


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "pair-2": (lambda: tiny_pair(2), ">= 500"),
    "pair-8": (lambda: tiny_pair(8), ">= 500"),
    "schools": (lambda: poutine.reparam(schools, config={"theta": LocScaleReparam(0.0)}), ">= 100"),
    "regression": (regression, ">= 100"),
}


def least_ess(model: Any, samples: dict[str, Tensor]) -> float:
    """Return the least effective sample size over latents and a pair's log ratio, from draws `(chain, draw, ...)`."""
    values = list(samples.values())
    if isinstance(model, LatentPosterior):
        with torch.no_grad():
            values.append(model.log_weight({"z": samples["z"]}))
    return min(float(effective_sample_size(value.double()).min()) for value in values)


@pytest.mark.parametrize("name", MODELS)
def test_effective_draws_a_second(figure: Figure, name: str) -> None:
    """Effective draws for each second, with warmup on both sides."""
    make, target = MODELS[name]
    model = make()

    def rate(mcmc: Any) -> float:
        seconds = timed(mcmc.run)
        return least_ess(model, mcmc.get_samples(group_by_chain=True)) / seconds

    def ours() -> float:
        return rate(VectorizedMCMC(ChEES(model), DRAWS, WARMUP, num_chains=NUM_CHAINS, disable_progbar=True))

    def theirs() -> float:
        return rate(MCMC(NUTS(model), NUTS_DRAWS, NUTS_WARMUP, disable_progbar=True))

    figure(lambda: alternate(ours, theirs), target=target)


class Counted(LatentPosterior):
    """Counts the chains' gradients."""

    gradients = 0

    def potential_fn(self, params: dict[str, Tensor], **context: Tensor) -> Tensor:
        self.gradients += params[self.site].shape[:-1].numel()
        return super().potential_fn(params, **context)


@pytest.mark.parametrize("dim", [2, 8])
def test_gradients_a_second(figure: Figure, dim: int) -> None:
    """Gradients of all chains together for each second, with warmup on both sides."""
    gan = tiny_pair(dim)
    model = Counted(gan.generator, gan.log_ratio, gan.prior)

    def rate(mcmc: Any) -> float:
        model.gradients = 0
        seconds = timed(mcmc.run)
        return model.gradients / seconds

    def ours() -> float:
        return rate(VectorizedMCMC(BatchHMC(model), 50, 50, num_chains=NUM_CHAINS, disable_progbar=True))

    def theirs() -> float:
        # NUTS would evaluate the trace of a model; the potential is faster.
        start = model.sample_prior(1)["z"][0]
        kernel = NUTS(potential_fn=model.potential_fn)
        return rate(MCMC(kernel, 150, 150, initial_params={"z": start}, disable_progbar=True))

    figure(lambda: alternate(ours, theirs), target=">= 30")


def alternate(ours: Callable[[], float], theirs: Callable[[], float]) -> Ratio:
    """Measure two figures in turns."""
    pairs = [(ours(), theirs()) for _ in range(ROUNDS)]
    return ratio_of([a for a, _ in pairs], [b for _, b in pairs])
