"""The latent prior: a Pyro model of generated data, its density, and what it refuses."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.latent import LatentPrior
from pyro_gan.likelihood import EntropicModel
from pyro_gan.mcmc import MALA
from tests.statistics import assert_chain_mean, assert_mean

NORMAL = dist.Normal(torch.zeros(2), 1.0).to_event(1)
UNIFORM = dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)
SIMPLEX = dist.Dirichlet(torch.tensor([2.0, 3.0]))


def test_calling_it_samples_the_latent_and_returns_the_generated_data() -> None:
    latents = LatentPrior(nn.Linear(2, 3), NORMAL)
    with pyro.plate("outer", 4, dim=-2), pyro.plate("data", 5, dim=-1):
        trace = pyro.poutine.trace(latents).get_trace()
    z, x = trace.nodes["z"]["value"], trace.nodes["_RETURN"]["value"]
    assert z.shape == (4, 5, 2) and torch.equal(x, latents.decode(z)) and x.shape == (4, 5, 3)
    assert Predictive(latents, num_samples=6)()["z"].shape[-1] == 2


@pytest.mark.parametrize("prior", [NORMAL, UNIFORM, SIMPLEX], ids=["normal", "uniform", "simplex"])
def test_the_density_is_that_of_its_unconstrained_draws(prior: dist.TorchDistribution) -> None:
    latents = LatentPrior(nn.Identity(), prior, site="w")
    params = latents.sample_prior(7)
    z = latents.constrained(params)
    assert torch.allclose(latents.transforms["w"](z), params["w"], atol=1e-4)
    exact = dist.TransformedDistribution(prior, [latents.transforms["w"]]).log_prob(params["w"])
    assert torch.allclose(latents.log_prior(params), exact, atol=1e-4)


@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_a_function_of_the_data_is_evaluated_in_chunks(chunk_size: int | None) -> None:
    sizes = []

    def total(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.sum(-1)

    latents = LatentPrior(nn.Linear(2, 3), NORMAL, chunk_size=chunk_size)
    z = torch.randn(2, 4, 2, requires_grad=True)
    value = latents.evaluate(z, total)
    assert torch.allclose(value, latents.decode(z).sum(-1), atol=1e-5) and max(sizes) == (chunk_size or 8)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert gradient.abs().min() > 0 and not latents.decode(z).requires_grad


@pytest.mark.parametrize("make", [lambda g: LatentPosterior(g, lambda x: x.sum(-1), NORMAL),
                                  lambda g: EntropicModel(g, NORMAL, regularization=0.5)])  # fmt: skip
def test_both_models_hold_one(make) -> None:
    generator = nn.Linear(2, 3)
    model = make(generator)
    for held in (model.latents, copy.deepcopy(model).latents):
        assert isinstance(held, LatentPrior) and held.generator is not generator
        assert torch.equal(held.generator.weight, generator.weight) and not held.generator.weight.requires_grad
    double = make(nn.Linear(2, 3)).double()
    assert double.latents.generator.weight.dtype == torch.float64


def test_the_state_of_a_posterior_names_the_generator_once() -> None:
    gan = LatentPosterior(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), NORMAL)
    assert set(gan.state_dict()) == {"generator.weight", "generator.bias", "log_ratio.0.weight", "log_ratio.0.bias"}
    assert gan.latents.generator is gan.generator


def test_inside_a_model_it_is_a_prior_over_data() -> None:
    """A linear generator observed with normal noise: the posterior of the latent is normal."""
    weight, noise, y = torch.tensor([[1.0, 0.0], [0.5, 1.0]]), 0.5, torch.tensor([1.0, -1.0])
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = weight
    latents = LatentPrior(layer, NORMAL)

    def model() -> None:
        pyro.sample("y", dist.Normal(latents(), noise).to_event(1), obs=y)

    mcmc = VectorizedMCMC(MALA(model), 200, 200, num_chains=64, disable_progbar=True)
    mcmc.run()
    precision = torch.eye(2) + weight.T @ weight / noise**2
    exact = torch.linalg.solve(precision, weight.T @ y / noise**2)
    assert_chain_mean(mcmc.get_samples(group_by_chain=True)["z"], exact)


def test_chains_sample_it_alone() -> None:
    mcmc = VectorizedMCMC(MALA(LatentPrior(nn.Linear(2, 3), UNIFORM)), 50, 100, num_chains=64, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert z.abs().max() < 1
    assert_mean(z.reshape(64, 50, 2)[:, -1], 0.0, "mean of the prior")


def test_a_conditional_generator_waits_for_its_context() -> None:
    class Shift(nn.Module):
        def forward(self, z: Tensor, /, label: Tensor) -> Tensor:
            return z + label.unsqueeze(-1)

    latents = LatentPrior(Shift(), NORMAL)
    label = torch.tensor(2.0)
    assert torch.allclose(latents.decode(torch.zeros(3, 2), label=label), torch.full((3, 2), 2.0))
    latents.validate(label=label)
    with pytest.raises(ValueError, match="keywords"):
        latents.validate()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"generator": None}, "generator to be a function or a network"),
        ({"generator": nn.Linear}, "generator to be a function or a network"),
        ({"generator": lambda z: None}, "return 8 rows"),
        ({"generator": lambda z: z[:1]}, "return 8 rows"),
        ({"generator": lambda z: z * torch.nan}, "generated data is NaN for all"),
        ({"generator": lambda z: z - z.mean(0)}, "other rows of its batch"),
        ({"generator": nn.Dropout(0.5)}, "training mode"),
        ({"prior": "normal"}, "distribution of pyro.distributions"),
        ({"site": 3}, "name of the latent site"),
        ({"chunk_size": 2.5}, "chunk_size to be a whole number"),
    ],
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LatentPrior(**{"generator": nn.Identity(), "prior": NORMAL} | options)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (None, "dict with one site, 'z'; got None"),
        ({"w": torch.zeros(3, 2)}, r"got \['w'\]"),
        ({"z": [0.0, 0.0]}, "torch.Tensor"),
        ({"z": torch.zeros(3, 4)}, r"\(\*batch, 2\); got \(3, 4\)"),
    ],
)
def test_bad_latents(params, words: str) -> None:
    latents = LatentPrior(nn.Identity(), NORMAL)
    for call in (latents.constrained, latents.log_prior):
        with pytest.raises(ValueError, match=words):
            call(params)
