"""Scoring rules against a pair of Gaussians whose log ratio is a known quadratic, by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_gan.objectives import Bernoulli

# p = N(.5, .8^2), q = N(0, 1)
TRUE = torch.tensor([0.02783105, 0.78125, -0.28125], dtype=torch.float64)


def nodes(mean: float, sd: float) -> Tensor:
    """Midpoints of 40 000 equally likely cells: plain means over them are quadrature."""
    share = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    return mean + sd * torch.special.ndtri(share)


def quadratic(coefficients: Tensor, x: Tensor) -> Tensor:
    return coefficients[0] + coefficients[1] * x + coefficients[2] * x.square()


def test_minimum_at_the_optimum() -> None:
    loss = Bernoulli().critic_loss(quadratic(TRUE, nodes(0.5, 0.8)), quadratic(TRUE, nodes(0.0, 1.0)))
    assert float(loss) == pytest.approx(0.64640512, abs=1e-5)


@pytest.mark.parametrize("class_prior", [0.5, 0.2, 0.9])
def test_the_fitted_critic_gives_the_log_ratio(class_prior: float) -> None:
    objective = Bernoulli(class_prior)
    real, generated = nodes(0.5, 0.8), nodes(0.0, 1.0)
    coefficients = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [coefficients], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective.critic_loss(quadratic(coefficients, real), quadratic(coefficients, generated))
        loss.backward()
        return loss

    optimiser.step(closure)
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    log_ratio = objective.log_ratio(quadratic(coefficients.detach(), x))
    assert torch.allclose(log_ratio, quadratic(TRUE, x), atol=3e-3)


def test_class_prior_shifts_the_logit() -> None:
    assert float(Bernoulli(0.2).log_ratio(torch.zeros(()))) == pytest.approx(-math.log(0.25))


def test_generator_gradient_survives_a_sure_critic() -> None:
    output = torch.tensor([-10.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(Bernoulli().generator_loss(output, output), output)
    assert float(gradient) == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("class_prior", [0.0, 1.0, -0.1, math.nan])
def test_bad_class_prior_raises(class_prior: float) -> None:
    with pytest.raises(ValueError, match="class prior"):
        Bernoulli(class_prior)
