"""EntropicGAN: constants, a distribution's contract, a fixed log_prob with gradient, use in Pyro, bad input."""

from __future__ import annotations

import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from torch import Tensor, nn

from pyro_gan import VectorizedMCMC
from pyro_gan.distributions import EntropicGAN
from pyro_gan.likelihood import Coupling, EntropicModel, ImportanceWeighted, Laplace, Surrogate
from pyro_gan.mcmc import MALA
from tests.likelihood.linear_models import POINTS, THREE, gan_of, standard_normal
from tests.statistics import assert_chain_mean, assert_mean, assert_same_distribution

PRIOR = dist.Normal(torch.zeros(2), 1.0).to_event(1)
LOSSES = ["squared_l2", "half_squared_l2", "l1", "l2"]


def constant(loss: str, dim: int, regularization: float, reduction: str = "sum") -> float:
    prior = standard_normal(1)
    generator = nn.Linear(1, dim, dtype=torch.float64)
    return EntropicModel(generator, prior, loss=loss, regularization=regularization, reduction=reduction).log_constant


@pytest.mark.parametrize(
    ("loss", "dim", "regularization", "expected"),
    [
        ("squared_l2", 1, 0.5, -0.22579135),
        ("squared_l2", 2, 0.5, -0.45158271),
        ("squared_l2", 5, 0.1, 2.89463802),
        ("squared_l2", 784, 5.0, -1079.63377693),
        ("half_squared_l2", 5, 0.1, 1.16177007),
        ("l1", 5, 0.1, 8.04718956),
        ("l1", 784, 5.0, -1805.22671291),
        ("l2", 2, 0.5, -0.45158271),
        ("l2", 5, 0.1, 5.06458261),
        ("l2", 784, 5.0, -4203.04193666),
    ],
)
def test_constants(loss: str, dim: int, regularization: float, expected: float) -> None:
    assert abs(constant(loss, dim, regularization) - expected) < 1e-7


@pytest.mark.parametrize("loss", ["squared_l2", "half_squared_l2", "l1"])
def test_a_mean_at_lambda_is_a_sum_at_d_lambda(loss: str) -> None:
    assert constant(loss, 7, 0.3, "mean") == pytest.approx(constant(loss, 7, 7 * 0.3))
    z, y = torch.randn(4, 2, 1, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    generator, prior = nn.Linear(1, 7, dtype=torch.float64), standard_normal(1)
    mean = EntropicModel(generator, prior, loss=loss, regularization=0.3, reduction="mean")
    total = EntropicModel(generator, prior, loss=loss, regularization=7 * 0.3)
    assert torch.allclose(mean.log_likelihood(z, y), total.log_likelihood(z, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("event", [(3,), (1, 2, 2)])
def test_the_likelihood_is_the_density_of_the_noise(loss: str, event: tuple[int, ...]) -> None:
    """All ways to compute it have the same constant and agree."""
    size = math.prod(event)
    generator = nn.Sequential(nn.Linear(2, size, dtype=torch.float64), nn.Unflatten(-1, event))
    model = EntropicModel(generator, standard_normal(2), loss=loss, regularization=0.3)
    z, y = torch.randn(6, 2, dtype=torch.float64), torch.randn(5, *event, dtype=torch.float64)
    x = model.decode(z)
    pairs = model.pairwise_log_likelihood(x, y)
    density = torch.stack([model.observation(x).log_prob(datum) for datum in y])
    assert torch.allclose(pairs, density)
    assert torch.allclose(model.log_likelihood(z.expand(5, 6, 2), y), density)
    assert torch.allclose(model.log_weight({"z": z}, y=y[0]), density[0])
    assert torch.allclose(model.potential_fn({"z": z}, y=y[0]), -density[0] - model.prior.log_prob(z))


def test_far_from_the_origin_in_float32() -> None:
    model = EntropicModel(nn.Linear(2, 3), PRIOR, regularization=0.1)
    x, y = 4096 + torch.randn(40, 3), 4096 + torch.randn(50, 3)
    exact = model.observation(x.double()).log_prob(y.double()[:, None])
    assert torch.allclose(model.pairwise_log_likelihood(x, y).double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("chunk_size", [1, 7, None])
def test_chunks_change_nothing(chunk_size: int | None) -> None:
    generator = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    model = EntropicModel(generator, PRIOR, regularization=0.3, chunk_size=chunk_size)
    whole = EntropicModel(generator, PRIOR, regularization=0.3, chunk_size=1000)
    z, y = torch.randn(5, 4, 2), torch.randn(5, 3)
    assert torch.allclose(model.log_likelihood(z, y), whole.log_likelihood(z, y), atol=1e-5)
    assert torch.allclose(model.decode(z), whole.decode(z), atol=1e-6)


# A distribution's contract.


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes(loss: str) -> None:
    generator = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3)))
    gan = EntropicGAN(generator, PRIOR, loss=loss, regularization=0.5)
    assert (gan.batch_shape, gan.event_shape) == ((), (2, 3))
    assert gan.sample().shape == (2, 3) and gan.sample((5, 4)).shape == (5, 4, 2, 3)
    wide = gan.expand([4])
    assert wide.batch_shape == (4,) and wide.sample((5,)).shape == (5, 4, 2, 3)
    y = gan.sample((5, 4))
    value = gan.log_prob(y)
    assert value.shape == (5, 4) and torch.allclose(wide.log_prob(y), value)
    assert gan.log_prob(y[0, 0]).shape == () and wide.log_prob(y[0, 0]).shape == (4,)
    assert torch.allclose(gan.log_prob(y[0, 0]), value[0, 0], atol=1e-5)
    again = pickle.loads(pickle.dumps(gan))
    assert torch.equal(again.log_prob(y), value) and repr(again) == repr(gan)


def test_samples_follow_the_density() -> None:
    gan = gan_of(THREE)
    assert_same_distribution(gan.sample((3000,)), THREE.marginal.sample((3000,)))


@pytest.mark.parametrize("loss", LOSSES)
def test_one_dimension_integrates_to_one(loss: str) -> None:
    generator = nn.Sequential(nn.Linear(1, 8, dtype=torch.float64), nn.Tanh(), nn.Linear(8, 1, dtype=torch.float64))
    gan = EntropicGAN(generator, standard_normal(1), loss=loss, regularization=0.2)
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    density = gan.log_prob(grid).detach().exp()
    assert abs(float(torch.trapezoid(density, grid[:, 0])) - 1) < 1e-4


# A fixed function of y.


def test_log_prob_is_a_function_of_y_alone(seed: int) -> None:
    """The value does not depend on the other data points; `resample` changes it; torch's generator does not move."""
    guides = [THREE.posterior(), lambda y: _encoder(y), lambda y: _flow(y)]
    y = POINTS
    for estimator in [
        ImportanceWeighted(num_particles=50),
        *(ImportanceWeighted(guide, num_particles=5) for guide in guides),
        Surrogate(Coupling(lambda x: x.square().sum(-1)), num_particles=50),
        Surrogate(_encoder, num_particles=5),
    ]:
        gan = gan_of(THREE, estimator=estimator)
        state = torch.get_rng_state()
        value = gan.log_prob(y)
        assert torch.equal(torch.get_rng_state(), state)
        pyro.set_rng_seed(seed + 1)
        assert torch.equal(gan.log_prob(y), value)
        alone = torch.stack([gan.log_prob(row) for row in y])
        assert torch.allclose(alone, value, atol=1e-9), estimator
        gan.resample()
        assert gan.seed == 1
        if estimator.proposal is not guides[0] if isinstance(estimator, ImportanceWeighted) else True:
            assert not torch.allclose(gan.log_prob(y), value)


def _encoder(y: Tensor) -> dist.TorchDistribution:
    return dist.Normal(0.3 * y[:, :2], 0.8).to_event(1)


def _flow(y: Tensor) -> dist.TorchDistribution:
    stretch = dist.transforms.AffineTransform(0.0, 1.5, event_dim=1)
    return dist.TransformedDistribution(_encoder(y), [stretch])


@pytest.mark.parametrize(
    "estimator",
    [
        ImportanceWeighted(num_particles=20),
        ImportanceWeighted(_encoder, num_particles=3),
        Surrogate(Coupling(lambda x: x.square().sum(-1)), num_particles=20),
        Surrogate(_encoder, num_particles=3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(estimator, loss: str) -> None:
    generator = nn.Linear(2, 3, dtype=torch.float64)
    gan = EntropicGAN(generator, standard_normal(2), loss=loss, regularization=0.7, estimator=estimator)
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gan.log_prob, (y,), atol=1e-4)
    assert all(p.grad is None for p in generator.parameters())


def test_gradient_of_the_exact_guide_is_exact() -> None:
    gan = gan_of(THREE, estimator=ImportanceWeighted(THREE.posterior(), num_particles=2))
    y = POINTS.clone().requires_grad_()
    (estimated,) = torch.autograd.grad(gan.log_prob(y).sum(), y)
    (exact,) = torch.autograd.grad(THREE.log_prob(y).sum(), y)
    assert torch.allclose(estimated, exact, atol=1e-8)


def test_estimate_is_of_log_prob() -> None:
    gan = gan_of(THREE)
    estimate = gan.estimate(POINTS)
    assert torch.equal(estimate.value, gan.log_prob(POINTS)) and estimate.is_bound == "lower"
    assert torch.equal(gan.estimate(POINTS).value, estimate.value)
    gaps = (estimate.value - THREE.log_prob(POINTS)).abs() / estimate.standard_error
    assert bool((gaps < 5).all())
    other = gan.estimate(POINTS, ImportanceWeighted(Laplace(), num_particles=100))
    assert bool((other.standard_error < estimate.standard_error).all())


# In Pyro.


def test_it_is_observed_in_a_model_and_differentiated() -> None:
    """The shift of data is inferred through the GAN's likelihood; the exact posterior is normal."""
    gan = gan_of(THREE, estimator=ImportanceWeighted(THREE.posterior(), num_particles=2))
    y = 1.0 + THREE.marginal.sample((20,))

    def model() -> None:
        shift = pyro.sample("shift", dist.Normal(torch.zeros((), dtype=torch.float64), 10.0))
        with pyro.plate("data", 20):
            pyro.sample("y", gan, obs=y - shift)

    start = pyro.infer.autoguide.init_to_value(values={"shift": torch.zeros((), dtype=torch.float64)})
    guide = pyro.infer.autoguide.AutoDelta(model, init_loc_fn=start)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.98}), Trace_ELBO())
    for _ in range(200):
        svi.step()
    precision = torch.linalg.inv(THREE.marginal.covariance_matrix)
    total = 20 * precision.sum() + 0.01
    exact = (precision.sum(0) @ (y - THREE.bias).sum(0)) / total
    assert abs(float(guide.median()["shift"] - exact)) < 0.01


def test_the_joint_model_with_nuts() -> None:
    model = gan_of(THREE).model()
    y = POINTS[1]
    mcmc = MCMC(NUTS(model), 200, 100, disable_progbar=True)
    mcmc.run(y)
    q = THREE.posterior()(y[None])
    z = mcmc.get_samples()["z"]
    assert (z.mean(0) - q.mean[0]).abs().max() < 5 * q.stddev[0].max() / math.sqrt(40)


def test_the_batched_kernels_serve_it() -> None:
    model = gan_of(THREE).model()
    mcmc = VectorizedMCMC(MALA(model), 100, 200, num_chains=64, disable_progbar=True)
    mcmc.run(y=POINTS[1])
    q = THREE.posterior()(POINTS[1:2])
    assert_chain_mean(mcmc.get_samples(group_by_chain=True)["z"], q.mean[0])


@pytest.mark.filterwarnings("ignore:.*effective sample size")
def test_svi_trains_a_guide_for_many_data() -> None:
    model = gan_of(THREE).model()
    y = THREE.marginal.sample((30,))

    def guide(y: Tensor) -> None:
        gain = pyro.param("gain", torch.zeros(2, 3, dtype=torch.float64))
        log_scale = pyro.param("log_scale", torch.zeros(2, dtype=torch.float64))
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(y @ gain.T, log_scale.exp()).to_event(1))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(num_particles=4, vectorize_particles=True))
    losses = [svi.step(y) for _ in range(400)]
    bound = -sum(losses[-100:]) / 100
    exact = float(THREE.log_prob(y).sum())
    assert exact - 15 < bound < exact + 2
    # A guide that SVI trained is an encoder for the importance-weighted bound.
    gain, scale = pyro.param("gain").detach(), pyro.param("log_scale").detach().exp()
    proposal = ImportanceWeighted(lambda y: dist.Normal(y @ gain.T, scale).to_event(1), num_particles=100)
    value = float(proposal(model, y).value.sum())
    assert bound < value < exact + 2


def test_prior_predictive_follows_the_density() -> None:
    model = gan_of(THREE).model()
    samples = Predictive(model, num_samples=500)()
    assert samples["y"].shape == (500, 3)
    parallel = Predictive(model, num_samples=500, parallel=True)()
    assert_mean(parallel["y"], THREE.bias, "prior predictive")
    assert_mean(samples["y"], THREE.bias, "prior predictive, one by one")


# Bad input.


class Broken(nn.Module):
    """NaN beyond a number of standard deviations."""

    def __init__(self, beyond: float) -> None:
        super().__init__()
        self.beyond = beyond

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z.abs() > self.beyond, torch.nan, z)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regularization": 0.0}, "positive, finite regularization"),
        ({"regularization": -1.0}, "positive, finite regularization"),
        ({"regularization": math.nan}, "positive, finite regularization"),
        ({"loss": "cosine"}, "constant would depend on z"),
        ({"loss": lambda y, x: (y * x).sum(-1)}, "constant would depend on z"),
        ({"reduction": "none"}, "reduction to be one of 'sum', 'mean'"),
        ({"loss": "l2", "reduction": "mean"}, "not a sum over coordinates"),
        ({"estimator": ImportanceWeighted(Laplace())}, "differentiable function of y"),
        ({"generator": lambda z: z.sum(-1, keepdim=True).to(torch.float64)}, "latents' dtype"),
        ({"generator": lambda z, label: z}, "keywords"),
        ({"chunk_size": 0}, "chunk_size of at least 1"),
        ({"seed": -1}, "seed between 0 and"),
        ({"estimator": "prior"}, "estimator of pyro_gan.likelihood"),
        ({"generator": Broken(0.0)}, "finite generated data|NaN for all"),
        ({"generator": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))}, "training mode"),
        ({"generator": lambda z: z + torch.randn_like(z)}, "noise of their own"),
        ({"generator": nn.Linear(3, 3)}, r"takes a batch of latents of shape \(8, 2\)"),
        ({"generator": lambda z: z.sum(-1)}, "generated data of shape"),
        ({"generator": nn.Linear(2, 3).double()}, "dtype"),
        ({"prior": dist.Normal(0.0, 1.0)}, "vector event"),
        ({"prior": dist.Bernoulli(0.5 * torch.ones(2)).to_event(1)}, "continuous"),
    ],
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    settings = {"generator": nn.Linear(2, 3), "prior": PRIOR, "regularization": 0.5} | options
    with pytest.raises(ValueError, match=words):
        EntropicGAN(**settings)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.zeros(5, 4), r"shape \(row, 3\)"),
        (torch.tensor(0.0), r"shape \(row, 3\)"),
        (torch.zeros(5, 3, dtype=torch.uint8), "dequantise"),
        (torch.zeros(5, 3, dtype=torch.float64), "dtype"),
        (torch.full((5, 3), math.nan), "finite data"),
        (torch.full((5, 3), math.inf), "finite data"),
    ],
)
def test_bad_data(y: Tensor, words: str) -> None:
    gan = EntropicGAN(nn.Linear(2, 3), PRIOR, regularization=0.5)
    for call in (gan.log_prob, gan.estimate, lambda y: gan.model()(y)):
        with pytest.raises(ValueError, match=words):
            call(y)


def test_nan_for_a_rare_latent_is_named() -> None:
    far = ImportanceWeighted(lambda y: dist.Normal(99.0 * torch.ones(len(y), 2), 1.0).to_event(1), num_particles=3)
    gan = EntropicGAN(Broken(50.0), PRIOR, regularization=0.5, estimator=far)
    with pytest.raises(ValueError, match="likelihood is NaN"):
        gan.log_prob(torch.zeros(1, 2))


def test_a_batch_of_data_is_no_posterior() -> None:
    model = gan_of(THREE).model()
    mcmc = VectorizedMCMC(MALA(model), 2, 2, num_chains=4, disable_progbar=True)
    with pytest.raises(ValueError, match=r"one data point of shape \(3,\)"):
        mcmc.run(y=POINTS)
    with pytest.raises(ValueError, match="one data point"):
        mcmc.run()
