"""Entropic transport: exact at known potentials, trained to the closed-form cost, finite for outputs of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from pyro_gan import toys
from pyro_gan.likelihood import Coupling, LinearGaussian, Surrogate
from pyro_gan.objectives import EntropicTransport, fit_gan, fit_transport
from tests.likelihood.linear_models import POINTS, THREE, double, gan_of, standard_normal
from tests.statistics import assert_close_in_se

FORMS = ["semi_dual", "dual"]
LOSSES = ["squared_l2", "half_squared_l2", "l1", "l2"]


class Quadratic(nn.Module):
    """One or two quadratic functions; the potentials between Gaussians are quadratic."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(outputs, dim, dim, dtype=torch.float64))
        self.linear = nn.Linear(dim, outputs, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ni,oij,nj->no", x, self.matrix, x) + self.linear(x)


def spread(distribution: torch.distributions.MultivariateNormal, num: int, seed: int) -> Tensor:
    """Return points that lie more evenly than random draws, so that a mean over them has a small error."""
    uniform = SobolEngine(distribution.loc.shape[-1], scramble=True, seed=seed).draw(num, dtype=torch.float64)
    normal = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + 1e-12, 1 - 1e-12))
    return distribution.loc + normal @ distribution.scale_tril.T


ONE = (LinearGaussian(double([1.2]), double(0.4), 0.7), double([2.25]))


def five() -> tuple[LinearGaussian, Tensor]:
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    scales = torch.linspace(0.3, 1.2, 5, dtype=torch.float64)
    linear = LinearGaussian(turn * scales, torch.linspace(-0.4, 0.4, 5).double(), 2.0)
    other = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    return linear, other @ torch.diag(scales.flip(0) + 0.2) @ other.T


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dim", [1, 5])
def test_trained_to_the_closed_form(form: str, dim: int) -> None:
    linear, covariance = ONE if dim == 1 else five()
    data = torch.distributions.MultivariateNormal(torch.zeros(dim).double(), covariance)
    model = gan_of(linear).model()
    objective = EntropicTransport(regularization=linear.regularization, form=form)
    critic = Quadratic(dim, 1 if form == "semi_dual" else 2)
    adam = torch.optim.Adam(critic.parameters(), lr=0.05)
    # The dual's exponential is noisy in small batches: it gets more steps and a larger tolerance.
    steps, tolerance = (200, 2e-2) if form == "semi_dual" else (400, 0.3)
    fitted = fit_transport(
        model.decode, critic, prior=standard_normal(dim), data=data.sample((20_000,)), objective=objective,
        optimizer=adam, scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps), num_steps=steps,
        batch_size=64, num_report=500, progress=False,
    )  # fmt: skip
    exact = float(linear.transport_cost(data.loc, covariance))
    generated = torch.distributions.MultivariateNormal(torch.zeros(dim).double(), torch.eye(dim).double())
    x = model.decode(spread(generated, 2048, 0))
    cost = float(objective.cost(critic, spread(data, 2048, 1), x))
    assert exact - tolerance < cost < exact + 2e-2  # no potential exceeds the optimum
    assert fitted.num_steps == steps and abs(fitted.cost - exact) < 0.5 * exact
    if form == "dual":
        return
    # The coupling of the fitted potential has the closed form's surrogate.
    y = data.sample((5,))
    closed = linear.surrogate(y, linear.coupling(data.loc, covariance))
    surrogate = Surrogate(Coupling(objective.potential(critic)), num_particles=20_000)(model, y)
    assert_close_in_se(surrogate.value, closed, surrogate.standard_error + 0.02)


def exact_potentials(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Sinkhorn's potentials between the two sets of points, for the squared L2 loss and lambda .5."""
    losses = (y[:, None] - x).square().sum(-1)
    first, second = torch.zeros(len(y)).double(), torch.zeros(len(x)).double()
    for _ in range(2000):
        first = -0.5 * (torch.logsumexp(-(second + losses) / 0.5, 1) - math.log(len(x)))
        second = 0.5 * (torch.logsumexp((first[:, None] - losses) / 0.5, 0) - math.log(len(y)))
    return first, second


def test_both_forms_have_one_optimum() -> None:
    """At Sinkhorn's potentials each form equals the primal cost and is stationary; no other potential does better."""
    y, x = torch.randn(7, 2, dtype=torch.float64), 1 + torch.randn(5, 2, dtype=torch.float64)
    first, second = exact_potentials(y, x)
    losses = (y[:, None] - x).square().sum(-1)
    plan = ((first[:, None] - second - losses) / 0.5).exp() / 35
    assert torch.allclose(plan.sum(0), torch.full((5,), 1 / 5).double(), atol=1e-9)
    assert torch.allclose(plan.sum(1), torch.full((7,), 1 / 7).double(), atol=1e-9)
    primal = (plan * losses).sum() + 0.5 * (plan * (35 * plan).log()).sum()

    def value(form: str, d1: Tensor, d2: Tensor) -> Tensor:
        def critic(points: Tensor) -> Tensor:
            is_real = points is y
            if form == "semi_dual":
                return d2
            zero = torch.zeros(len(points)).double()
            return torch.stack([d1, zero], -1) if is_real else torch.stack([zero, d2], -1)

        return -EntropicTransport(regularization=0.5, form=form).critic_loss(critic, y, x)

    for form in FORMS:
        d1, d2 = (potential.clone().requires_grad_() for potential in (first, second))
        best = value(form, d1, d2)
        assert torch.allclose(best, primal, atol=1e-9)
        gradient = torch.autograd.grad(best, [d2] if form == "semi_dual" else [d1, d2])
        assert all(part.abs().max() < 1e-8 for part in gradient)
        for _ in range(20):
            shift = [0.3 * torch.randn_like(potential) for potential in (first, second)]
            assert value(form, first + shift[0], second + shift[1]) < primal
    # Adding a constant to both potentials changes nothing.
    assert torch.allclose(value("dual", first + 3, second + 3), primal)
    assert torch.allclose(value("semi_dual", first, second + 3), primal)


def test_the_generators_gradient_is_that_of_the_cost() -> None:
    """The envelope theorem: the gradient with the plan held fixed equals differences of the re-optimised cost."""
    y, x = torch.randn(7, 2, dtype=torch.float64), 1 + torch.randn(5, 2, dtype=torch.float64)

    def cost(x: Tensor) -> float:
        first, second = exact_potentials(y, x)
        return float(first.mean() - second.mean())

    objective = EntropicTransport(regularization=0.5)
    second = exact_potentials(y, x)[1]
    moved = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective.generator_loss(lambda _: second, y, moved), moved)
    step = torch.zeros_like(x)
    step[2, 1] = 1e-5
    assert (cost(x + step) - cost(x - step)) / 2e-5 == pytest.approx(float(gradient[2, 1]), abs=1e-6)


def test_mean_surrogate_is_constant_minus_cost() -> None:
    """At exact potentials of finite sets, mean surrogate = log C - cost / lambda: training maximises the surrogate."""
    model = gan_of(THREE).model()
    z, y = torch.randn(6, 2, dtype=torch.float64), POINTS
    x = model.decode(z)
    first, second = exact_potentials(y, x)
    log_weights = model.pairwise_log_likelihood(x, y) - second / 0.5
    share = torch.softmax(log_weights, -1)
    surrogate = (share * (model.pairwise_log_likelihood(x, y) - (6 * share).log())).sum(-1)
    assert torch.allclose(surrogate, model.log_constant - first / 0.5 + (share * second).sum(-1) / 0.5, atol=1e-9)
    cost = first.mean() - second.mean()
    assert abs(float(surrogate.mean() - (model.log_constant - cost / 0.5))) < 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_fit_gan_trains_the_pair(form: str) -> None:
    """In one dimension the best width is the square root of S - lambda / 2, and the mean is that of the data."""
    data = 1.0 + 1.5 * torch.randn(20_000, 1)
    generator, critic = nn.Linear(1, 1), toys.MLP([1, 32, 1 if form == "semi_dual" else 2])
    adam = [torch.optim.Adam(network.parameters(), lr=0.02, betas=(0.5, 0.9)) for network in (generator, critic)]
    gan = fit_gan(
        generator, critic, prior=torch.distributions.Normal(torch.zeros(1), 1.0), data=data,
        objective=EntropicTransport(regularization=0.7, form=form), generator_optimizer=adam[0],
        critic_optimizer=adam[1], num_steps=400, batch_size=64, critic_steps=2, averaging=0.98, progress=False,
    )  # fmt: skip
    weight, bias = (p.item() for p in gan.generator.parameters())
    assert abs(weight) == pytest.approx(1.378405, abs=0.2) and bias == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_in_float32_for_outputs_of_any_size(form: str, loss: str) -> None:
    objective = EntropicTransport(loss=loss, regularization=1e-3, form=form)
    for scale in (1.0, 1e3, 1e6):
        y, x = 10 * torch.randn(8, 3), torch.randn(6, 3, requires_grad=True)
        critic = nn.Linear(3, 1 if form == "semi_dual" else 2)
        with torch.no_grad():
            critic.weight.mul_(scale)
        value = objective.critic_loss(critic, y, x.detach())
        value.backward()
        pull = objective.generator_loss(critic, y, x)
        pull.backward()
        assert value.isfinite() and pull.isfinite() and x.grad.isfinite().all()
        assert critic.weight.grad.isfinite().all()


def test_images_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = EntropicTransport(loss="l1", reduction="mean", regularization=0.1)
    y, x = torch.randn(9, 1, 4, 4), torch.randn(7, 1, 4, 4)

    def critic(x: Tensor) -> Tensor:
        return x.flatten(1).sum(-1)

    whole = objective.cost(critic, y, x)
    assert torch.allclose(-objective.critic_loss(critic, y, x), whole)
    monkeypatch.setattr("pyro_gan.objectives.entropic.MAX_PAIRS", 20)
    assert torch.allclose(objective.cost(critic, y, x), whole)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="positive, finite regularization"):
        EntropicTransport(regularization=-1.0)
    with pytest.raises(ValueError, match="constant would depend on z"):
        EntropicTransport(loss="bce", regularization=1.0)
    with pytest.raises(ValueError, match="form to be one of"):
        EntropicTransport(regularization=1.0, form="primal")
    objective = EntropicTransport(regularization=1.0, form="dual")
    with pytest.raises(ValueError, match="two outputs of the critic for each row"):
        objective.critic_loss(lambda x: x.sum(-1), torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="one event shape"):
        objective.critic_loss(nn.Linear(2, 2), torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="with a batch of at least 1"):
        objective.critic_loss(nn.Linear(2, 2), torch.zeros(0, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="critic output of shape"):
        EntropicTransport(regularization=1.0).critic_loss(nn.Linear(2, 2), torch.zeros(3, 2), torch.zeros(3, 2))


def test_bad_fits() -> None:
    critic = nn.Linear(2, 1)
    settings = {
        "prior": torch.distributions.Normal(torch.zeros(2), 1.0), "data": torch.randn(50, 2), "num_steps": 2,
        "objective": EntropicTransport(regularization=1.0), "batch_size": 10, "progress": False,
        "optimizer": torch.optim.Adam(critic.parameters()),
    }  # fmt: skip
    with pytest.raises(ValueError, match="training mode"):
        fit_transport(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), critic, **settings)
    with pytest.raises(ValueError, match="num_report"):
        fit_transport(nn.Identity(), critic, **settings, num_report=0)
    with pytest.raises(ValueError, match="one event shape"):
        fit_transport(nn.Linear(2, 3), critic, **settings)
    with pytest.raises(ValueError, match="critic of type Module; got None"):
        generator = nn.Linear(2, 2)
        fit_gan(
            generator, None, prior=settings["prior"], data=settings["data"], num_steps=2, batch_size=10,
            objective=EntropicTransport(regularization=1.0),
            generator_optimizer=torch.optim.Adam(generator.parameters()),
        )  # fmt: skip
