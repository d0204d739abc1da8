"""The latent posterior: one potential by three routes, under plates, particles and bounded priors; what it refuses."""

from __future__ import annotations

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.mcmc.util import initialize_model
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio, toys
from pyro_gan.objectives import Bernoulli

DIM, EVENT = 3, 5


def networks(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(nn.Linear(DIM, 8), nn.Tanh(), nn.Linear(8, EVENT)).to(dtype)
    critic = nn.Sequential(nn.Linear(EVENT, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    return generator, critic


def normal(dim: int = DIM, dtype: torch.dtype = torch.float64) -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(dim, dtype=dtype), 1.0).to_event(1)


def uniform(dim: int = DIM, dtype: torch.dtype = torch.float64) -> dist.TorchDistribution:
    return dist.Uniform(-torch.ones(dim, dtype=dtype), torch.ones(dim, dtype=dtype)).to_event(1)


def build(prior: dist.TorchDistribution | None = None, **kwargs) -> LatentPosterior:
    generator, critic = networks()
    return LatentPosterior(generator, LogRatio(critic, Bernoulli()), prior or normal(), **kwargs)


def formula(gan: LatentPosterior, z: Tensor) -> Tensor:
    """-log p0(z) + log(1/D(G(z)) - 1), as the papers write it."""
    probability = torch.sigmoid(gan.log_ratio(gan.generator(z)))
    return -gan.prior.log_prob(z) + torch.log(1 / probability - 1)


# One potential.


def test_potential_is_the_formula_for_one_latent_and_for_batches() -> None:
    gan = build()
    for batch in ((), (1,), (7,), (2, 3)):
        z = gan.prior.sample(batch)
        expected = formula(gan, z.reshape(-1, DIM)).reshape(batch)
        torch.testing.assert_close(gan.potential_fn({"z": z}), expected, rtol=0, atol=1e-6)


def test_pyros_potential_agrees_for_one_latent() -> None:
    gan = build()
    _, potential_fn, transforms, _ = initialize_model(gan)
    z = gan.prior.sample()
    torch.testing.assert_close(potential_fn({"z": z}), gan.potential_fn({"z": z}), rtol=0, atol=1e-6)
    torch.testing.assert_close(transforms["z"].inv(z), z)


@pytest.mark.parametrize("prior", [normal(), uniform()])
def test_pyros_potential_agrees_inside_a_plate(prior: dist.TorchDistribution) -> None:
    gan = build(prior)

    def model() -> Tensor:
        with pyro.plate("data", 4):
            return gan()

    params, potential_fn, _, _ = initialize_model(model)
    assert params["z"].shape == (4, DIM)
    unconstrained = torch.randn(4, DIM, dtype=torch.float64)
    expected = gan.potential_fn({"z": unconstrained}).sum()
    torch.testing.assert_close(potential_fn({"z": unconstrained}), expected, rtol=0, atol=1e-6)
    assert model().shape == (4, EVENT)


def test_bounded_prior_goes_through_pyros_transform() -> None:
    gan = build(uniform())
    _, potential_fn, transforms, _ = initialize_model(gan)
    for _ in range(5):
        u = 3 * torch.randn(DIM, dtype=torch.float64)
        z = transforms["z"].inv(u)
        jacobian = torch.log(2 * torch.sigmoid(u) * torch.sigmoid(-u)).sum()
        by_hand = formula(gan, z.unsqueeze(0))[0] - jacobian
        torch.testing.assert_close(potential_fn({"z": u}), by_hand, rtol=0, atol=1e-6)
        torch.testing.assert_close(gan.potential_fn({"z": u}), by_hand, rtol=0, atol=1e-6)


def test_vectorised_particles_see_the_same_log_density() -> None:
    gan = build()

    def model() -> None:
        with pyro.plate("data", 4):
            gan()

    def traced(shape: tuple[int, ...]) -> Tensor:
        with pyro.plate("particles", shape[0], dim=-2):
            trace = pyro.poutine.trace(model).get_trace()
        trace.compute_log_prob()
        z = trace.nodes["z"]["value"]
        assert z.shape == (*shape, DIM)
        log_density = trace.nodes["z"]["log_prob"] + trace.nodes["log_ratio"]["log_prob"]
        torch.testing.assert_close(-gan.potential_fn({"z": z}), log_density, rtol=0, atol=1e-6)
        return z

    traced((6, 4))
    elbo = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    assert torch.isfinite(torch.tensor(elbo.loss(model, AutoNormal(model))))


def test_temperature_divides_the_log_ratio() -> None:
    generator, critic = networks()
    z = normal().sample((4,))
    warm = LatentPosterior(generator, LogRatio(critic, Bernoulli()), normal(), temperature=2.0)
    expected = -normal().log_prob(z) - critic(generator(z)).squeeze(-1) / 2
    torch.testing.assert_close(warm.potential_fn({"z": z}), expected.detach(), rtol=0, atol=1e-6)
    _, potential_fn, _, _ = initialize_model(warm)
    torch.testing.assert_close(potential_fn({"z": z[0]}), expected[0].detach(), rtol=0, atol=1e-6)


def test_chunks_change_nothing() -> None:
    whole = build()
    chunked = LatentPosterior(whole.generator, whole.log_ratio, whole.prior, chunk_size=3)
    z = whole.prior.sample((10,))
    torch.testing.assert_close(chunked.potential_fn({"z": z}), whole.potential_fn({"z": z}))
    torch.testing.assert_close(chunked.decode(z), whole.decode(z))
    assert whole.decode(z.reshape(2, 5, DIM)).shape == (2, 5, EVENT)


def test_two_gans_live_in_one_model() -> None:
    first, second = build(), build(site="w")

    def model() -> Tensor:
        return first() + second()

    params, potential_fn, _, _ = initialize_model(model)
    assert set(params) == {"z", "w"}
    expected = first.potential_fn({"z": params["z"]}) + second.potential_fn({"w": params["w"]})
    torch.testing.assert_close(potential_fn(params), expected, rtol=0, atol=1e-6)


def test_predictive_without_samples_is_the_generator_alone() -> None:
    toy = toys.gaussian_shift(auc=0.9)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    z = Predictive(gan, num_samples=2000)()["z"]
    assert abs(float(z.mean())) < 4.4 / 2000**0.5


class Conditional(nn.Module):
    def forward(self, z: Tensor, /, label: Tensor) -> Tensor:
        return z + label.unsqueeze(-1)


def test_a_conditional_generator_takes_its_context_by_keyword() -> None:
    gan = LatentPosterior(Conditional(), lambda x, label: (x * label.unsqueeze(-1)).sum(-1), normal())
    z, label = normal().sample((4,)), torch.tensor(2.0, dtype=torch.float64)
    torch.testing.assert_close(gan.decode(z, label=label), z + 2)
    expected = -normal().log_prob(z) - 2 * (z + 2).sum(-1)
    torch.testing.assert_close(gan.potential_fn({"z": z}, label=label), expected)
    gan.validate(label=label)
    with pytest.raises(ValueError, match="label"):
        gan.validate()


# Frozen in use.


def test_svi_never_trains_the_networks_even_inside_a_pyro_module() -> None:
    generator, critic = networks(torch.float32)

    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.gan = LatentPosterior(generator, LogRatio(critic, Bernoulli()), normal(dtype=torch.float32))

        def forward(self) -> None:
            pyro.sample("x", dist.Normal(self.gan(), 1.0).to_event(1), obs=torch.ones(EVENT))

    model = Model()
    before = [parameter.clone() for parameter in (*generator.parameters(), *critic.parameters())]
    guide = AutoNormal(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        for _ in range(3):
            svi.step()
    after = [*generator.parameters(), *critic.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in after)
    assert not any("gan" in name for name in pyro.get_param_store().keys())


def test_the_twin_follows_the_original_but_not_its_mode() -> None:
    generator = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Linear(8, EVENT)).double().eval()
    gan = LatentPosterior(generator, lambda x: x.sum(-1), normal())
    z = normal().sample((6,))
    before = gan.decode(z)
    generator.train()
    gan.train()
    torch.testing.assert_close(gan.decode(z), before)
    with torch.no_grad():
        generator[2].bias += 1
    torch.testing.assert_close(gan.decode(z), before + 1)


def test_reparametrised_layers_can_be_held() -> None:
    critic = nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(EVENT, 1))).double()
    generator = networks()[0]
    critic(torch.randn(2, EVENT, dtype=torch.float64))  # leaves a non-leaf weight behind
    gan = LatentPosterior(generator, LogRatio(critic.eval(), Bernoulli()), normal())
    assert gan.potential_fn({"z": normal().sample((2,))}).shape == (2,)


# What it refuses.


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(EVENT), nn.Dropout(0.5)])
def test_training_mode_raises_where_it_matters(layer: nn.Module) -> None:
    generator, critic = networks()
    bad = nn.Sequential(generator, layer).double()
    with pytest.raises(ValueError, match=r"generator\.eval\(\)"):
        LatentPosterior(bad, LogRatio(critic, Bernoulli()), normal())
    LatentPosterior(bad.eval(), LogRatio(critic, Bernoulli()), normal())
    gan = LatentPosterior(generator, LogRatio(nn.Sequential(layer.eval(), critic).double(), Bernoulli()), normal())
    gan.log_ratio.train()
    with pytest.raises(ValueError, match="training mode"):
        gan.validate()


def test_wrong_latent_size_names_both() -> None:
    generator, critic = networks()
    with pytest.raises(ValueError, match=r"latents of shape \(8, 4\)"):
        LatentPosterior(generator, LogRatio(critic, Bernoulli()), normal(4))


def test_noise_raises() -> None:
    class Noisy(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z + 1e-6 * torch.randn_like(z)

    with pytest.raises(ValueError, match="noise of their own"):
        LatentPosterior(Noisy(), lambda x: x.sum(-1), normal())


def test_batch_statistics_raise() -> None:
    with pytest.raises(ValueError, match="other rows"):
        LatentPosterior(nn.Identity(), lambda x: (x - x.mean(0)).sum(-1), normal())


def test_wrong_log_ratio_shape_raises() -> None:
    with pytest.raises(ValueError, match=r"got \(8, 3\)"):
        LatentPosterior(nn.Identity(), lambda x: x, normal())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), -float("inf")])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        build(temperature=temperature)


def test_priors_must_be_one_event() -> None:
    with pytest.raises(ValueError, match="to_event"):
        build(dist.Normal(torch.zeros(DIM), 1.0))


def test_mixed_dtypes_raise() -> None:
    with pytest.raises(ValueError, match="float64"):
        build(normal(dtype=torch.float32))
    with pytest.raises(ValueError, match="dtype"):
        LatentPosterior(nn.Identity(), lambda x: x.sum(-1).float(), normal())


def test_all_nan_scores_raise() -> None:
    with pytest.raises(ValueError, match="NaN"):
        LatentPosterior(nn.Identity(), lambda x: x.sum(-1) * torch.nan, normal())


def test_wrong_latents_raise() -> None:
    gan = build()
    with pytest.raises(ValueError, match=r"\(\*batch, 3\)"):
        gan.decode(torch.zeros(2, DIM + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="'z'"):
        gan.potential_fn({"w": torch.zeros(2, DIM)})


def test_a_mixture_of_one_family_is_a_prior() -> None:
    components = dist.Normal(torch.randn(3, 2), 1.0).to_event(1)
    prior = dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), components)
    gan = LatentPosterior(torch.nn.Identity(), lambda x: x.sum(-1), prior)
    z = torch.randn(5, 2)
    torch.testing.assert_close(gan.potential_fn({"z": z}), -prior.log_prob(z) - z.sum(-1))


@pytest.mark.parametrize("base", [dist.Normal(0.0, 1.0), dist.Uniform(-1.0, 1.0)])
@pytest.mark.parametrize("far", [math.nan, math.inf])
def test_a_latent_that_overflowed_is_no_error(base, far: float) -> None:
    prior = base.expand([2]).to_event(1)
    gan = LatentPosterior(nn.Identity(), lambda x: -x.square().sum(-1), prior)
    potential = gan.potential_fn({"z": torch.tensor([[far, 0.0], [0.1, 0.2]])})
    # At plus infinity a chain of a bounded prior is at its edge, where the Jacobian is 0.
    assert not potential[0].isfinite() and potential[1].isfinite()
