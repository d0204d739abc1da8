"""The log density of every observation in ArviZ's container, and `arviz.loo` of it; what `decode` may return."""

from __future__ import annotations

import json

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, to_arviz, toys
from pyro_gan.mcmc import MALA, IndependenceMH

NUM_CHAINS, NUM_DRAWS = 100, 20
X = torch.linspace(-2, 2, 30)
Y = (X + 1.5 * torch.cos(7 * X) > 0).float()


def logistic(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(torch.tensor(0.0), 2.0))
    offset = pyro.sample("offset", dist.Normal(torch.tensor(0.0), 2.0))
    pyro.factor("nothing observed", -0.1 * slope.square())
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=offset + slope * x), obs=y)


def run(model, *args: Tensor, **kwargs) -> VectorizedMCMC:
    mcmc = VectorizedMCMC(MALA(model), NUM_DRAWS, 300, num_chains=NUM_CHAINS, disable_progbar=True, **kwargs)
    mcmc.run(*args)
    return mcmc


def exact_loo() -> float:
    """Return the sum over i of log p(y_i | the others), by quadrature on a grid."""
    axis = torch.linspace(-12, 12, 401).double()
    slope, offset = torch.meshgrid(axis, axis, indexing="ij")
    log_lik = dist.Bernoulli(logits=offset[..., None] + slope[..., None] * X.double()).log_prob(Y.double())
    log_prior = -(slope.square() + offset.square()) / 8 - 0.1 * slope.square()
    without = (log_prior[..., None] + log_lik.sum(-1, keepdim=True) - log_lik).flatten(0, 1)
    return float((torch.logsumexp(without + log_lik.flatten(0, 1), 0) - torch.logsumexp(without, 0)).sum())


def test_loo_of_a_logistic_regression_is_that_of_quadrature() -> None:
    container = to_arviz(run(logistic, X, Y), log_likelihood=True)
    found = container["log_likelihood"]["y"]
    assert set(container["log_likelihood"].data_vars) == {"y"} and found.shape == (NUM_CHAINS, NUM_DRAWS, len(X))
    slope, offset = (container["posterior"][name].values[..., None] for name in ("slope", "offset"))
    by_hand = dist.Bernoulli(logits=torch.as_tensor(offset + slope * X.numpy())).log_prob(Y).numpy()
    np.testing.assert_allclose(found.values, by_hand, rtol=1e-4, atol=1e-5)
    loo = az.loo(container)
    elpd = float(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)
    # 4000 draws of chains with an autocorrelation of some steps: the error of the sum is about 0.05.
    assert elpd == pytest.approx(exact_loo(), abs=0.3)


def test_a_mask_sets_an_observation_to_0_and_a_scale_does_not_apply() -> None:
    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("row", 3), pyro.poutine.mask(mask=torch.tensor([True, False, True])):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.tensor([1.0, 2.0, 3.0]))
        with pyro.poutine.scale(scale=10.0):
            pyro.sample("u", dist.Normal(mean, 1.0), obs=torch.tensor(0.5))

    container = to_arviz(run(model), log_likelihood=True)
    mean = torch.as_tensor(container["posterior"]["mean"].values)
    assert (container["log_likelihood"]["y"].values[..., 1] == 0).all()
    for name, index, value in (("y", (..., 2), 3.0), ("u", (...,), 0.5)):
        expected = dist.Normal(mean, 1.0).log_prob(torch.tensor(value))
        np.testing.assert_allclose(container["log_likelihood"][name].values[index], expected, rtol=1e-4, atol=1e-5)


def test_without_observations_or_without_a_program_the_cure_is_named() -> None:
    toy = toys.gaussian_shift(auc=0.8)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    of_gan = VectorizedMCMC(IndependenceMH(gan), 4, num_chains=2, disable_progbar=True)
    of_pyro = MCMC(NUTS(logistic), 4, 4, disable_progbar=True)
    of_gan.run()
    of_pyro.run(X, Y)
    for mcmc in (of_gan, of_pyro, run(logistic, X, Y, save_params=["slope"])):
        with pytest.raises(ValueError, match=r"log_likelihood=True.*leave log_likelihood out"):
            to_arviz(mcmc, log_likelihood=True)


def test_decode_keeps_chain_and_draw_and_takes_what_get_samples_returns() -> None:
    toy = toys.gaussian_shift(auc=0.8)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(IndependenceMH(gan), 4, num_chains=3, disable_progbar=True)
    mcmc.run()
    samples = mcmc.get_samples()
    assert torch.equal(gan.decode(samples), gan.decode(samples["z"]))
    with pytest.raises(ValueError, match=r"latents under the name 'z'; got \['w'\]"):
        gan.decode({"w": samples["z"]})
    for decode in (lambda z: gan.decode(z).flatten(0, 1), lambda z: gan.decode(z).mean(), lambda z: None):
        with pytest.raises(ValueError, match=r"decode to return data \(chain, draw, \*event\), 4 draws of at most 3"):
            to_arviz(mcmc, decode=decode)
    as_half = to_arviz(mcmc, decode=lambda z: gan.decode(z).bfloat16(), prior={"z": torch.zeros(5).bfloat16()})
    assert as_half["posterior_predictive"]["x"].shape == (3, 4, 1) and as_half["prior"]["z"].shape == (1, 5)
    with pytest.raises(ValueError, match=r"prior\['z'\] of shape \(draw, \*event\); got one number"):
        to_arviz(mcmc, prior={"z": torch.tensor(1.0)})


def test_attributes_say_what_made_the_run_and_survive_a_file(tmp_path) -> None:
    toy = toys.gaussian_shift(auc=0.8)

    def attributes(generator: torch.nn.Module) -> dict[str, str]:
        gan = LatentPosterior(generator, toy.log_ratio, toy.prior)
        mcmc = VectorizedMCMC(MALA(gan, step_size=0.3), 4, 2, num_chains=3, thin=2, disable_progbar=True)
        mcmc.run()
        container = to_arviz(mcmc)
        container.to_netcdf(str(tmp_path / "run.nc"))
        return dict(az.from_netcdf(str(tmp_path / "run.nc"))["posterior"].attrs)

    one, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    found = attributes(one)
    assert (found["inference_library"], found["sampler"]) == ("pyro_gan", "MALA")
    settings = json.loads(found["settings"])
    assert (settings["num_chains"], settings["thin"], settings["step size"]["initial"]) == (3, 2, 0.3)
    assert found["networks_sha256"] == attributes(one)["networks_sha256"] != attributes(other)["networks_sha256"]
    assert found["torch_version"] == torch.__version__


def test_the_summary_shows_the_log_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    toy = toys.gaussian_shift(auc=0.8)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(IndependenceMH(gan), 50, num_chains=40, disable_progbar=True)
    mcmc.run()
    capsys.readouterr()
    mcmc.summary()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Log ratio"))
    mean, halves = float(mcmc.sample_stats["log_ratio"].mean()), mcmc.sample_stats["log_ratio"].reshape(80, 25).double()
    within, between = float(halves.var(1).mean()), float(halves.mean(1).var())
    assert f"mean {mean:.4g}" in line and f"R-hat {(24 / 25 + between / within) ** 0.5:.3f}" in line
