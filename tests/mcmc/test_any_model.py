"""Any Pyro model under the kernels: posteriors in closed form or by quadrature, a GAN as a prior, both runners."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, to_arviz
from pyro_gan.mcmc import BatchHMC
from tests.exact_targets import affine_toy
from tests.mcmc.members import KERNELS
from tests.statistics import assert_chain_mean, assert_chain_sd, assert_close_in_se, chain_mean

# Enough chains that each sd is known to 2 %.
NUM_CHAINS, MAX_RELATIVE_SE = 1000, 0.02
# One kernel of each kind in whole runs, which take time: a kernel sees a target, and not the model.
NUM_SAMPLES = {"MALA": 40, "BatchHMC": 20, "IndependenceMH": 40, "RandomWalk": 80, "PCN": 80}
WARMUP = {name: 80 for name in NUM_SAMPLES} | {"BatchHMC": 50, "RandomWalk": 200, "PCN": 200}
Model = Callable[..., Any]


def run(
    name: str, model: Model, *args: Any, num_chains: int = NUM_CHAINS, thin: int = 1, **kwargs: Any
) -> VectorizedMCMC:
    mcmc = VectorizedMCMC(
        KERNELS[name](model),
        num_samples=NUM_SAMPLES[name],
        warmup_steps=WARMUP[name],
        num_chains=num_chains,
        thin=thin,
        disable_progbar=True,
    )
    mcmc.run(*args, **kwargs)
    return mcmc


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_moments(
    chains: Tensor, mean: Tensor, sd: Tensor, what: str, max_relative_se: float = MAX_RELATIVE_SE
) -> None:
    assert_chain_mean(chains, mean, f"mean of {what}")
    assert_chain_sd(chains, sd, mean, f"sd of {what}", max_relative_se=max_relative_se)


# A linear regression: two sites, and a Gaussian posterior.

X = torch.tensor([[1.0, 0.5], [0.3, -1.0], [-0.7, 0.8], [0.2, 0.1], [1.4, -0.6]], dtype=torch.float64)
Y = numbers(0.9, -0.2, 0.4, 0.6, 1.1)
NOISE = 0.8


def line(x: Tensor, *, y: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(numbers(0.5)[0], 1.5))
    slope = pyro.sample("slope", dist.Normal(numbers(0, 0), 1.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(intercept + x @ slope, NOISE), obs=y)


def line_posterior() -> tuple[Tensor, Tensor]:
    design = torch.cat([torch.ones(len(X), 1, dtype=torch.float64), X], 1)
    precision = torch.diag(numbers(1 / 1.5**2, 1, 1)) + design.T @ design / NOISE**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (numbers(0.5 / 1.5**2, 0, 0) + design.T @ Y / NOISE**2)
    return mean, covariance


@pytest.mark.parametrize("name", NUM_SAMPLES)
def test_kernels_of_each_kind_sample_a_regression(name):
    mean, covariance = line_posterior()
    mcmc = run(name, line, X, y=Y)
    samples = mcmc.get_samples(group_by_chain=True)
    assert samples["intercept"].shape == (NUM_CHAINS, NUM_SAMPLES[name])
    rows = torch.cat([samples["intercept"].unsqueeze(-1), samples["slope"]], -1)
    assert_moments(rows, mean, covariance.diagonal().sqrt(), name, 0.04)
    centred = rows - mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert_chain_mean(products.flatten(2), covariance.flatten(), f"covariance of {name}")


# A Dirichlet prior and counts: the draws are on the simplex.

ALPHA, SEEN = numbers(1.5, 2.0, 3.0), torch.tensor([0, 0, 1, 2, 2, 2, 0, 1])


def shares(seen: Tensor) -> None:
    p = pyro.sample("p", dist.Dirichlet(ALPHA))
    with pyro.plate("row", len(seen)):
        pyro.sample("x", dist.Categorical(p), obs=seen)


@pytest.mark.parametrize("name", ["MALA", "IndependenceMH"])
def test_a_simplex(name):
    posterior = dist.Dirichlet(ALPHA + torch.bincount(SEEN).double())
    p = run(name, shares, SEEN).get_samples(group_by_chain=True)["p"]
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]))
    assert_moments(p, posterior.mean, posterior.variance.sqrt(), name)


# Eight schools: all but tau can be integrated in closed form, and tau by quadrature.

EFFECT, SE = numbers(28, 8, -3, 7, -1, 1, 18, 12), numbers(15, 10, 16, 11, 9, 11, 10, 18)


def schools(y: Tensor, sd: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(numbers(0)[0], 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(numbers(5)[0]))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sd), obs=y)


NON_CENTRED = poutine.reparam(schools, config={"theta": LocScaleReparam(0.0)})


def schools_posterior() -> dict[str, tuple[Tensor, Tensor]]:
    """Means and sds of mu, tau and theta."""
    tau = ((torch.arange(20_000, dtype=torch.float64) + 0.5) * 2e-3).unsqueeze(-1)
    variance = tau.square() + SE.square()
    mu_variance = 1 / (1 / 25 + (1 / variance).sum(-1, keepdim=True))
    mu_mean = mu_variance * (EFFECT / variance).sum(-1, keepdim=True)
    # p(tau | y) = p(tau) p(mu) p(y | mu, tau) / p(mu | tau, y) for any mu, so for mu = 0.
    log_density = (
        dist.HalfNormal(5.0).log_prob(tau)
        + dist.Normal(0.0, variance.sqrt()).log_prob(EFFECT).sum(-1, keepdim=True)
        - dist.Normal(mu_mean, mu_variance.sqrt()).log_prob(torch.zeros_like(mu_mean))
    )
    weight = log_density.softmax(0)

    def total(mean: Tensor, conditional_variance: Tensor) -> tuple[Tensor, Tensor]:
        expected = (weight * mean).sum(0)
        return expected, (weight * (conditional_variance + (mean - expected).square())).sum(0).sqrt()

    shrink = tau.square() / variance
    theta_mean = shrink * EFFECT + (1 - shrink) * mu_mean
    theta_variance = shrink * SE.square() + (1 - shrink).square() * mu_variance
    return {
        "mu": total(mu_mean, mu_variance),
        "tau": total(tau, torch.zeros_like(tau)),
        "theta": total(theta_mean, theta_variance),
    }


def test_eight_schools():
    kernel = BatchHMC(NON_CENTRED, num_steps=6)
    mcmc = VectorizedMCMC(kernel, num_samples=50, warmup_steps=80, num_chains=1000, disable_progbar=True)
    mcmc.run(EFFECT, SE)
    samples = mcmc.get_samples(group_by_chain=True)
    mu, tau = (samples[name].unsqueeze(-1) for name in ("mu", "tau"))
    draws = {"mu": mu, "tau": tau, "theta": mu + tau * samples["theta_decentered"]}
    for name, (mean, sd) in schools_posterior().items():
        assert_moments(draws[name], mean, sd, name, 0.03)


# A logistic regression of two coefficients: quadrature on a grid.


def logistic(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(numbers(0, 0), 2.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ slope), obs=y)


def test_a_logistic_regression():
    x = torch.linspace(-3, 3, 80, dtype=torch.float64).reshape(40, 2).sin()
    y = (torch.arange(40) % 3 > 0).double()
    axis = torch.linspace(-6, 6, 400, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    logits = grid @ x.T
    log_density = (y * logits - torch.nn.functional.softplus(logits)).sum(-1) - grid.square().sum(-1) / 8
    weight = log_density.softmax(0).unsqueeze(-1)
    mean = (weight * grid).sum(0)
    sd = (weight * (grid - mean).square()).sum(0).sqrt()
    slope = run("MALA", logistic, x, y).get_samples(group_by_chain=True)["slope"]
    assert_moments(slope, mean, sd, "slope", 0.03)


# A GAN as the prior of an inverse problem: an affine generator, two of three pixels observed, Gaussian noise.

SEEN_PIXELS, PIXEL_NOISE = torch.tensor([0, 2]), 0.5
PICTURE = numbers(0.8, -0.4)


def inverse_problem(*, with_ratio: bool) -> tuple[Model, Tensor, Tensor]:
    """Return the model, and the posterior mean and covariance of its latents."""
    toy = affine_toy(3)
    ratio = toy.log_ratio if with_ratio else lambda x: torch.zeros_like(x[:, 0])
    gan = LatentPosterior(toy.generator, ratio, toy.prior)

    def model(y: Tensor) -> Tensor:
        x = gan()
        pyro.sample("y", dist.Normal(x[..., SEEN_PIXELS], PIXEL_NOISE).to_event(1), obs=y)
        return x

    bias = toy.generator(torch.zeros(1, 3, dtype=torch.float64))[0].detach()
    matrix = (toy.generator(torch.eye(3, dtype=torch.float64)).detach() - bias).T
    before = toy.posterior if with_ratio else dist.MultivariateNormal(bias * 0, torch.eye(3).double())
    seen = matrix[SEEN_PIXELS]
    precision = torch.linalg.inv(before.covariance_matrix) + seen.T @ seen / PIXEL_NOISE**2
    covariance = torch.linalg.inv(precision)
    pull = torch.linalg.solve(before.covariance_matrix, before.mean)
    mean = covariance @ (pull + seen.T @ (PICTURE - bias[SEEN_PIXELS]) / PIXEL_NOISE**2)
    return model, mean, covariance


@pytest.mark.parametrize("with_ratio", [True, False])
@pytest.mark.parametrize("name", ["MALA", "BatchHMC", "PCN"])
def test_a_gan_is_a_prior(name, with_ratio):
    model, mean, covariance = inverse_problem(with_ratio=with_ratio)
    z = run(name, model, PICTURE).get_samples(group_by_chain=True)["z"]
    assert_moments(z, mean, covariance.diagonal().sqrt(), name, 0.04)
    centred = z - mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert_chain_mean(products.flatten(2), covariance.flatten(), f"covariance of {name}")


def test_a_gan_is_a_prior_for_nuts():
    model, mean, covariance = inverse_problem(with_ratio=True)
    mcmc = MCMC(NUTS(model), num_samples=300, warmup_steps=80, disable_progbar=True)
    mcmc.run(PICTURE)
    # One chain in twenty pieces, each much longer than the autocorrelation time of the chain.
    z = mcmc.get_samples()["z"].reshape(20, 15, 3)
    estimate = chain_mean(z)
    assert_close_in_se(estimate.value, mean, estimate.standard_error, "mean", degrees_of_freedom=19)
    assert_chain_sd(z, covariance.diagonal().sqrt(), mean, "sd")


# Runners and what they return.


@pytest.mark.parametrize("name", KERNELS)
def test_pyros_runner_takes_positional_arguments(name):
    mcmc = MCMC(KERNELS[name](line), num_samples=6, warmup_steps=4, disable_progbar=True)
    mcmc.run(X, y=Y)
    assert {site: value.shape for site, value in mcmc.get_samples().items()} == {"intercept": (6,), "slope": (6, 2)}


def test_arviz_has_all_sites_constrained():
    mcmc = run("MALA", NON_CENTRED, EFFECT, SE, num_chains=16)
    idata = to_arviz(mcmc)
    draws = NUM_SAMPLES["MALA"]
    assert {name: value.shape for name, value in idata.posterior.items()} == {
        "mu": (16, draws),
        "tau": (16, draws),
        "theta_decentered": (16, draws, 8),
    }
    assert (idata.posterior["tau"] > 0).all()
    # The log weight is the likelihood's log density.
    samples = {name: value.unsqueeze(-1) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    theta = samples["mu"] + samples["tau"] * samples["theta_decentered"].squeeze(-1)
    expected = dist.Normal(theta, SE).log_prob(EFFECT).sum(-1)
    torch.testing.assert_close(torch.as_tensor(idata.sample_stats["log_ratio"].values), expected)


def test_a_kernel_runs_again_with_other_data():
    mcmc = run("MALA", line, X, y=Y, num_chains=16)
    first = mcmc.get_samples()["intercept"].mean()
    mcmc.run(X, y=Y + 10)
    assert mcmc.get_samples()["intercept"].mean() > first + 3


def bounded(y: Tensor) -> None:
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3).double()))
    sd = pyro.sample("sd", dist.HalfNormal(numbers(1)[0]))
    pyro.sample("y", dist.Normal(share, sd).to_event(1), obs=y)


@pytest.mark.parametrize("name", [name for name in KERNELS if "PCN" not in name])
def test_a_finished_run_pickles(name):
    mcmc = VectorizedMCMC(KERNELS[name](bounded), 5, num_chains=3, disable_progbar=True)
    mcmc.run(numbers(0.1, 0.2, 0.7))
    again = pickle.loads(pickle.dumps(mcmc))
    assert again.get_samples()["share"].equal(mcmc.get_samples()["share"])
    again.run(numbers(0.1, 0.2, 0.7))


def test_a_model_that_cannot_be_batched_says_so_under_the_runner():
    def model() -> None:
        z = pyro.sample("z", dist.Normal(numbers(0)[0], 1.0))
        pyro.factor("f", z if z > 0 else -z)

    with pytest.raises(ValueError, match=r"branches in Python on a latent.*torch\.where"):
        run("MALA", model, num_chains=2)
