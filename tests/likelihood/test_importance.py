"""The importance-weighted bound and its proposals against closed forms: exact where it must be, never above."""

from __future__ import annotations

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan.distributions import EntropicGAN
from pyro_gan.likelihood import EntropicModel, ImportanceWeighted, Laplace, LinearGaussian, Surrogate
from pyro_gan.likelihood.estimator import from_log_weights
from tests.likelihood.linear_models import POINTS, THREE, gan_of, random_linear, standard_normal, zigzag
from tests.statistics import NUM_SE, assert_close_in_se


@pytest.mark.parametrize("num_particles", [1, 2, 50])
def test_the_posterior_is_exact_for_every_number_of_particles(num_particles: int) -> None:
    estimate = ImportanceWeighted(THREE.posterior(), num_particles=num_particles)(gan_of(THREE).model(), POINTS)
    assert torch.allclose(estimate.value, THREE.log_prob(POINTS), rtol=0, atol=1e-8)
    assert torch.allclose(estimate.ess, torch.full((4,), float(num_particles), dtype=torch.float64))
    assert bool((estimate.standard_error < 1e-6).all()) or num_particles == 1


def test_it_is_the_bound_of_pyros_renyi_elbo() -> None:
    model, posterior = gan_of(THREE).model(), THREE.posterior()
    value = ImportanceWeighted(posterior, num_particles=4)(model, POINTS).value.sum()

    def guide(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            pyro.sample("z", posterior(y))

    elbo = pyro.infer.RenyiELBO(alpha=0, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    assert abs(elbo.loss(model, guide, POINTS) - 19.07589898) < 1e-6
    assert abs(float(value) + 19.07589898) < 1e-6


def wide(linear: LinearGaussian):
    """The posterior, moved by 0.3 and with 1.5 times its variance: a fair encoder."""
    exact = linear.posterior()

    def guide(y: Tensor) -> dist.TorchDistribution:
        q = exact(y)
        return dist.MultivariateNormal(q.mean + 0.3, 1.5 * q.covariance_matrix)

    return guide


@pytest.mark.filterwarnings("ignore:.*effective sample size")
def test_more_particles_tighten_the_bound() -> None:
    linear = zigzag()
    model, guide = gan_of(linear).model(), wide(linear)
    y = linear.marginal.sample((6,)).repeat_interleave(50, 0)
    errors = {}
    for num in (1, 10, 100, 1000):
        gap = ImportanceWeighted(guide, num_particles=num)(model, y).value - linear.log_prob(y)
        errors[num] = float(gap.mean())
        assert errors[num] < NUM_SE * float(gap.std()) / math.sqrt(len(y))
    assert errors[1] < errors[10] < errors[100] and errors[1] < -0.5
    assert abs(errors[1000]) < 0.05


@pytest.mark.parametrize(("latent", "dim"), [(1, 4), (2, 5), (4, 4), (5, 3)])
def test_random_models_are_met_and_never_exceeded(latent: int, dim: int) -> None:
    """Each value is within its error of the exact one, and Markov's inequality bounds its excess."""
    linear = random_linear(latent, dim)
    model = gan_of(linear).model()
    y = torch.cat([linear.marginal.sample((5,)), linear.bias + 2 * torch.randn(5, dim).double()])
    exact = linear.log_prob(y)
    for estimator in (
        ImportanceWeighted(wide(linear), num_particles=4000),
        ImportanceWeighted(Laplace(), num_particles=4000),
    ):
        estimate = estimator(model, y)
        assert_close_in_se(estimate.value, exact, estimate.standard_error, repr(estimator))
    prior = ImportanceWeighted(num_particles=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = prior(model, y).value
    assert bool((value - exact < math.log(10 / 1e-5)).all())


def test_a_wrong_constant_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the same check fails for an error of a tenth of a nat."""
    estimate = ImportanceWeighted(THREE.posterior(), num_particles=100)(gan_of(THREE).model(), POINTS)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_close_in_se(estimate.value + 0.1, THREE.log_prob(POINTS), estimate.standard_error)


def test_the_error_is_honest() -> None:
    """Repeated values spread as their standard errors say."""
    model = gan_of(THREE).model()
    y = POINTS[:1].expand(2000, 3)
    guide = wide(THREE)
    estimate = ImportanceWeighted(guide, num_particles=200)(model, y)
    spread, told = float(estimate.value.std()), float(estimate.standard_error.mean())
    assert told == pytest.approx(spread, rel=0.1)  # a standard deviation of 2000 is known to 1.6 %


def test_laplace_finds_a_linear_models_posterior() -> None:
    guide = Laplace(num_steps=400, widen=1.0).fit(gan_of(THREE).model(), POINTS)
    posterior = THREE.posterior()(POINTS)
    assert torch.allclose(guide.mean, posterior.mean, atol=1e-3)
    assert torch.allclose(guide.covariance_matrix, posterior.covariance_matrix, atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_laplace_is_never_wider_than_the_prior(scale: float) -> None:
    """With G(z) = z^2 the energy z^2 / (2 s^2) + (y - z^2)^2 / lambda has less curvature at 0 than 1 / s^2."""
    prior = dist.Normal(torch.zeros(1).double(), scale).to_event(1)
    model = EntropicModel(lambda z: z.square(), prior, regularization=0.5)
    # The curvature there is 1 / s^2 - 4 y / lambda, here half of the prior's: a shallow minimum.
    y = torch.tensor([[0.5 * 0.5 / (4 * scale**2)]], dtype=torch.float64)
    guide = Laplace(widen=1.0).fit(model, y)
    assert torch.allclose(guide.mean, torch.zeros(1, 1).double(), atol=1e-2)
    assert torch.allclose(guide.stddev, torch.full((1, 1), scale).double(), rtol=1e-3)


@pytest.mark.parametrize("loss", ["squared_l2", "half_squared_l2", "l1", "l2"])
def test_laplace_on_a_bent_generator(loss: str) -> None:
    """With one latent the exact likelihood is known by quadrature."""
    generator = nn.Sequential(nn.Linear(1, 16, dtype=torch.float64), nn.Tanh(), nn.Linear(16, 3, dtype=torch.float64))
    model = EntropicModel(generator, standard_normal(1), loss=loss, regularization=0.2)
    y = model.simulate(6)[1]
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    log_joint = model.pairwise_log_likelihood(model.decode(grid), y) + model.prior.log_prob(grid)
    exact = torch.trapezoid(log_joint.exp(), grid[:, 0]).log()
    estimate = ImportanceWeighted(Laplace(widen=1.5), num_particles=4000)(model, y)
    # A proposal that misses a tail makes the error too small now and then, but by less than a tenth of a nat.
    assert torch.allclose(estimate.value, exact, atol=0.3)
    assert bool((estimate.value < exact + NUM_SE * estimate.standard_error + 0.05).all())


def test_bounded_latents() -> None:
    """A normal guide reaches beyond them; those draws have no weight. The integral is a difference of normal cdfs."""
    prior = dist.Uniform(-torch.ones(1).double(), torch.ones(1).double()).to_event(1)
    model = EntropicModel(nn.Identity(), prior, regularization=0.5)
    y = torch.tensor([[0.0], [0.9], [1.5]], dtype=torch.float64)
    noise = dist.Normal(torch.zeros(()).double(), 0.5)
    exact = ((noise.cdf(1 - y) - noise.cdf(-1 - y)) / 2).log()[:, 0]
    guide = ImportanceWeighted(lambda y: dist.Normal(y, 0.6).to_event(1), num_particles=20_000)
    for estimator in (guide, ImportanceWeighted(num_particles=20_000)):
        estimate = estimator(model, y)
        assert_close_in_se(estimate.value, exact, estimate.standard_error)


def test_low_ess_warns_and_enough_does_not(recwarn: pytest.WarningsRecorder) -> None:
    linear = zigzag()
    model, y = gan_of(linear).model(), linear.marginal.sample((3,))
    ImportanceWeighted(linear.posterior(), num_particles=16)(model, y)
    ImportanceWeighted(linear.posterior(), num_particles=1)(model, y)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="effective sample size under 10 of 100 particles"):
        ImportanceWeighted(num_particles=100)(model, y)


def test_weights_of_nothing() -> None:
    estimate = from_log_weights(
        torch.tensor([[-torch.inf, -torch.inf], [0.0, -torch.inf], [-1000.0, -1000.0]]), "lower"
    )
    assert estimate.value.tolist() == pytest.approx([-math.inf, -math.log(2), -1000.0])
    assert estimate.ess.tolist() == pytest.approx([0.0, 1.0, 2.0])


def test_one_data_point_is_a_batch_of_one() -> None:
    model = gan_of(THREE).model()
    assert ImportanceWeighted(THREE.posterior())(model, POINTS[0]).value.shape == (1,)


@pytest.mark.filterwarnings("ignore:.*effective sample size")
def test_blocks_of_data_change_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    model = gan_of(THREE).model()
    pyro.set_rng_seed(seed)
    whole = ImportanceWeighted(num_particles=50)(model, POINTS)
    monkeypatch.setattr("pyro_gan.likelihood.estimator.MAX_WEIGHTS", 60)
    pyro.set_rng_seed(seed)
    assert torch.equal(ImportanceWeighted(num_particles=50)(model, POINTS).value, whole.value)


def test_blocks_of_data_share_a_guides_noise(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    guide = wide(THREE)
    for estimator in (ImportanceWeighted(guide, num_particles=50), Surrogate(guide, num_particles=50)):
        gan = EntropicGAN(gan_of(THREE).model().decode, standard_normal(2), regularization=0.5, seed=seed)
        gan.estimator = estimator
        whole = gan.log_prob(POINTS)
        with monkeypatch.context() as patch:
            patch.setattr("pyro_gan.likelihood.estimator.MAX_WEIGHTS", 60)
            torch.testing.assert_close(gan.log_prob(POINTS), whole, rtol=0, atol=1e-9)


# Bad input.


class Implicit(dist.TorchDistribution):
    """It has draws and no density."""

    arg_constraints = {}
    has_density = False

    def __init__(self, num: int) -> None:
        super().__init__(torch.Size([num]), torch.Size([2]))

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.randn(*sample_shape, *self.batch_shape, 2, dtype=torch.float64)

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        (lambda y: Implicit(len(y)), "has no density|does not have"),
        (lambda y: torch.randn(len(y), 2, dtype=torch.float64), "explicit guide"),
        (lambda y: dist.Delta(y[:, :2]).to_event(1), "explicit guide"),
        (lambda y: dist.Normal(y[:, :2], 1.0).to_event(1).mask(False), "explicit guide"),
        (lambda y: dist.Normal(y[:, :2], 1.0), "to_event"),
        (lambda y: dist.Normal(y, 1.0).to_event(1), "event_shape"),
        (lambda y: dist.Normal(y[0, :2], 1.0).to_event(1), "batch_shape"),
    ],
)
def test_bad_guides(guide, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImportanceWeighted(guide, num_particles=3)(gan_of(THREE).model(), POINTS)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="proposal to be 'prior'"):
        ImportanceWeighted("posterior")
    with pytest.raises(ValueError, match="proposal to be 'prior'"):
        ImportanceWeighted(3)
    with pytest.raises(ValueError, match="num_particles"):
        ImportanceWeighted(num_particles=0)
    with pytest.raises(ValueError, match="training mode"):
        ImportanceWeighted(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    for bad in ({"num_steps": 0}, {"learning_rate": 0.0}, {"widen": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Laplace(**bad)
    with pytest.raises(ValueError, match="not a guide"):
        Laplace()(POINTS)
    uniform = dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)
    model = EntropicModel(nn.Linear(2, 3), uniform, regularization=0.5)
    with pytest.raises(ValueError, match="all of R"):
        Laplace().fit(model, torch.zeros(2, 3))
    gan = EntropicGAN(nn.Linear(2, 3), dist.Normal(torch.zeros(2), 1.0).to_event(1), regularization=0.5)
    with pytest.raises(ValueError, match="not a differentiable function"):
        ImportanceWeighted(Laplace()).log_prob(gan.model(), torch.zeros(2, 3))
