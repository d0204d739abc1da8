"""The surrogate: the coupling's bound, the prior's weights, its error, and the published score, which is no bound."""

from __future__ import annotations

import math
import pickle

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_gan.likelihood import Coupling, EntropicModel, ImportanceWeighted, Laplace, LinearGaussian, Surrogate
from pyro_gan.objectives import EntropicTransport
from tests.likelihood.linear_models import POINTS, THREE, double, gan_of, random_linear, zigzag
from tests.statistics import NUM_SE, assert_close_in_se

pytestmark = pytest.mark.filterwarnings("ignore:.*effective sample size")
ZERO, EYE = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)


def optimal_potential(linear: LinearGaussian, mean: Tensor, covariance: Tensor):
    """D2 of generated data with a linear generator of full column rank, up to a constant; quadratic.

    It is what turns the likelihood's posterior into the coupling: log q - log p0 + loss / lambda, as a function of z.
    """
    coupling, scale = linear.coupling(mean, covariance), linear.regularization
    inverse = torch.linalg.pinv(linear.weight)
    y = mean[None]  # any data point: the potential depends on it by a constant only

    def potential(x: Tensor) -> Tensor:
        z = (x - linear.bias) @ inverse.T
        log_q, log_p = coupling(y).log_prob(z), -0.5 * z.square().sum(-1)
        return -scale * (log_q - log_p) - (y - x).square().sum(-1)

    return potential


def test_the_coupling_gives_the_closed_form() -> None:
    """By draws of the explicit coupling, and by weighted draws of the prior."""
    model, closed = gan_of(THREE).model(), THREE.coupling(ZERO, EYE)
    exact = double(-3.58143881, -6.98534332, -4.5039871, -11.36579405)
    estimate = Surrogate(closed, num_particles=20_000)(model, POINTS)
    assert_close_in_se(estimate.value, exact, estimate.standard_error)
    assert estimate.is_bound == "lower"
    weighed = Surrogate(Coupling(optimal_potential(THREE, ZERO, EYE)), num_particles=200_000)(model, POINTS)
    assert_close_in_se(weighed.value[:3], exact[:3], weighed.standard_error[:3])
    assert bool((weighed.standard_error < 0.1).all())


@pytest.mark.parametrize("power", [0.0, 0.3])
def test_no_potential_gives_the_priors_weights(power: float, seed: int) -> None:
    """With a potential it is log mean e^{-(l + D2)/lambda} plus the weighted mean of D2 / lambda."""
    model = gan_of(THREE).model()

    def potential(x: Tensor) -> Tensor:
        return power * x.square().sum(-1)

    pyro.set_rng_seed(seed)
    surrogate = Surrogate(Coupling(potential), num_particles=100)(model, POINTS)
    pyro.set_rng_seed(seed)
    prior = ImportanceWeighted(num_particles=100)(model, POINTS)
    pyro.set_rng_seed(seed)
    x = model.decode(model.prior.sample((100,)))
    log_weights = model.pairwise_log_likelihood(x, POINTS) - potential(x) / model.regularization
    by_hand = torch.logsumexp(log_weights, -1) - math.log(100)
    by_hand = by_hand + (torch.softmax(log_weights, -1) * potential(x)).sum(-1) / model.regularization
    assert torch.allclose(surrogate.value, by_hand, rtol=0, atol=1e-10)
    if power == 0:
        assert torch.allclose(surrogate.value, prior.value, rtol=0, atol=1e-10)
        assert torch.allclose(surrogate.standard_error, prior.standard_error)
    else:
        assert bool((surrogate.value < prior.value).all())


def test_for_given_draws_it_never_exceeds_the_priors_estimate(seed: int) -> None:
    """For every potential: so it is a lower bound on average with any number of particles."""
    model = gan_of(THREE).model()
    for _ in range(20):
        network = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        with torch.no_grad():
            network[2].weight.mul_(10.0)
        pyro.set_rng_seed(seed)
        value = Surrogate(Coupling(network), num_particles=30)(model, POINTS).value
        pyro.set_rng_seed(seed)
        assert bool((value <= ImportanceWeighted(num_particles=30)(model, POINTS).value + 1e-10).all())


def test_errors_are_honest() -> None:
    model = gan_of(THREE).model()
    surrogate = Surrogate(Coupling(lambda x: 0.2 * x.square().sum(-1)), num_particles=2000)
    repeats = [surrogate(model, POINTS[:1]) for _ in range(300)]
    spread = float(torch.cat([r.value for r in repeats]).std())
    told = float(torch.cat([r.standard_error for r in repeats]).mean())
    assert told == pytest.approx(spread, rel=0.25)  # chance moves it by 4 %, and weights have a tail


@pytest.mark.parametrize(("latent", "dim"), [(1, 4), (3, 3), (5, 3)])
def test_random_models(latent: int, dim: int) -> None:
    linear = random_linear(latent, dim)
    model = gan_of(linear).model()
    factor = torch.randn(dim, dim, dtype=torch.float64)
    mean, covariance = torch.randn(dim).double(), factor @ factor.T + 0.1 * torch.eye(dim).double()
    coupling = linear.coupling(mean, covariance)
    y = mean + torch.randn(20, dim, dtype=torch.float64)
    estimate = Surrogate(coupling, num_particles=2000)(model, y)
    assert_close_in_se(estimate.value, linear.surrogate(y, coupling), estimate.standard_error)
    assert bool((estimate.value <= linear.log_prob(y) + NUM_SE * estimate.standard_error).all())


def published_score(model: EntropicModel, y: Tensor, potential: Tensor, z: Tensor) -> Tensor:
    """The score of Balaji et al. (2019): no constants, the prior's density once more, a discrete entropy."""
    half_norm = 0.5 * z.square().sum(-1)
    log_likelihood = model.pairwise_log_likelihood(model.decode(z), y) - model.log_constant
    log_share = torch.log_softmax(log_likelihood - potential / model.regularization - half_norm, -1)
    return (log_share.exp() * (log_likelihood - half_norm - log_share)).sum(-1)


def test_the_published_score_is_no_bound() -> None:
    """On the zigzag with the exact potential it is off by nats, and above the exact likelihood for some data."""
    linear = zigzag()
    model = gan_of(linear).model()
    y = linear.marginal.sample((40,))
    # On the model's own data the coupling is the posterior, and D2 is constant.
    score = published_score(model, y, torch.zeros(640).double(), model.prior.sample((640,)))
    excess = score - linear.log_prob(y)
    assert excess.abs().max() > 1.0 and excess.max() > 0.5


@pytest.mark.parametrize("power", [0.2, 3.0])
def test_the_error_is_that_of_the_delta_method(power: float, seed: int) -> None:
    """The value is a function of how often each draw counts; its gradient there is each draw's influence."""
    model, num = gan_of(THREE).model(), 200
    pyro.set_rng_seed(seed)
    x = model.decode(model.prior.sample((num,)))
    potential = power * x.square().sum(-1) / model.regularization
    log_weights = model.pairwise_log_likelihood(x, POINTS) - potential
    counts = torch.ones(len(POINTS), num, dtype=torch.float64, requires_grad=True)
    weights = counts * log_weights.exp()
    value = weights.sum(-1).log() - counts.sum(-1).log()
    value = value + (weights * potential).sum(-1) / weights.sum(-1)
    (gradient,) = torch.autograd.grad(value.sum(), counts)
    expected = ((num * gradient).square().mean(-1) / (num - 1)).sqrt()
    pyro.set_rng_seed(seed)
    surrogate = Surrogate(Coupling(lambda x: power * x.square().sum(-1)), num_particles=num)
    estimate = surrogate(model, POINTS)
    assert torch.allclose(estimate.value, value.detach()) and torch.allclose(estimate.standard_error, expected)
    if power > 1:
        plain = ((num * log_weights.softmax(-1) - 1).square().mean(-1) / (num - 1)).sqrt()
        assert not torch.allclose(plain, expected, rtol=0.05)  # the weight's own error is another


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="potential to be a function or a network"):
        Coupling(3.0)
    with pytest.raises(ValueError, match="training mode"):
        Coupling(nn.Sequential(nn.Linear(3, 2), nn.Dropout()))
    for bad in ("prior", Laplace()):
        with pytest.raises(ValueError, match="belongs into ImportanceWeighted"):
            Surrogate(bad)
    with pytest.raises(ValueError, match="coupling to be"):
        Surrogate(3)
    with pytest.raises(ValueError, match="num_particles"):
        Surrogate(THREE.posterior(), num_particles=0)
    with pytest.raises(ValueError, match="critic output of shape"):
        Surrogate(Coupling(lambda x: x))(gan_of(THREE).model(), POINTS)


def test_a_coupling_cannot_be_drawn_from() -> None:
    with pytest.raises(ValueError, match="same as the prior"):
        ImportanceWeighted(Coupling(lambda x: x[:, 0]))


def test_a_coupling_is_frozen() -> None:
    network = nn.Linear(3, 1)
    coupling = Coupling(network)
    assert coupling.train().training is False
    assert not any(p.requires_grad for p in coupling.parameters()) and network.weight.requires_grad


@pytest.mark.parametrize(("form", "outputs"), [("semi_dual", 1), ("dual", 2)])
def test_a_coupling_freezes_the_critic_of_a_transport(form: str, outputs: int) -> None:
    objective = EntropicTransport(regularization=0.5, form=form)
    critic = nn.Sequential(nn.Linear(3, outputs), nn.Dropout(0.5)).double()
    with pytest.raises(ValueError, match="Dropout at 'critic.1' in training mode"):
        Coupling(objective.potential(critic))
    surrogate = Surrogate(Coupling(objective.potential(critic.eval())), num_particles=20)
    model = gan_of(THREE).model()
    assert not surrogate.log_prob(model, POINTS).requires_grad
    y = POINTS.clone().requires_grad_()
    surrogate.log_prob(model, y).sum().backward()
    assert y.grad.abs().sum() > 0 and all(p.grad is None for p in critic.parameters())
    again = pickle.loads(pickle.dumps(surrogate))
    assert torch.equal(again.coupling(POINTS), surrogate.coupling(POINTS))


def test_without_any_weight_it_is_minus_infinity() -> None:
    y = torch.cat([POINTS, torch.full((1, 3), 1e200, dtype=torch.float64)])
    estimate = Surrogate(Coupling(lambda x: x[:, 0]), num_particles=20)(gan_of(THREE).model(), y)
    assert torch.isfinite(estimate.value[:-1]).all() and torch.isneginf(estimate.value[-1])
    assert estimate.ess[-1] == 0 and torch.isposinf(estimate.standard_error[-1])
