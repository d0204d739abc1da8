"""p = N(.5, .8^2) against q = N(0, 1): the log ratio is a known quadratic, and expected losses are sums over a grid.

Such sums of smooth, decaying functions are exact to rounding (trapezoid rule), so any error is the objective's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_gan.objectives import DonskerVaradhan, Objective

P = Normal(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64))
Q = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
#: log p - log q = TRUE[0] + TRUE[1] x + TRUE[2] x^2
TRUE = torch.tensor([0.02783105, 0.78125, -0.28125], dtype=torch.float64)

X = torch.linspace(-12, 12, 2401, dtype=torch.float64)
WEIGHT_P = P.log_prob(X).exp() * 0.01
WEIGHT_Q = Q.log_prob(X).exp() * 0.01
LOG_RATIO = P.log_prob(X) - Q.log_prob(X)
FEATURES = torch.stack([torch.ones_like(X), X, X.square()], -1)

#: Of equal width, so that the ratio and its inverse have all moments: log p - log q = -1/8 + x / 2.
P_WIDE = Normal(torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
TRUE_WIDE = torch.tensor([-0.125, 0.5, 0.0], dtype=torch.float64)


def quadratic(coefficients: Tensor, x: Tensor) -> Tensor:
    return coefficients[0] + coefficients[1] * x + coefficients[2] * x.square()


def by_row(objective: Objective, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cost of each output as real and as generated; the other side has a constant output."""
    rows, other = output[:, None], torch.full((1,), 0.3, dtype=output.dtype)
    real = torch.func.vmap(lambda v: objective.critic_loss(v, other))(rows)
    generated = torch.func.vmap(lambda v: objective.critic_loss(other, v))(rows)
    return real, generated - objective.critic_loss(other, other)


def expected_loss(objective: Objective, output: Tensor) -> Tensor:
    """Return the critic's loss under exact p and q, for its outputs on the grid."""
    if isinstance(objective, DonskerVaradhan):  # the log of a mean is no sum over rows, but takes weights
        n = len(X)
        return objective.real_term(n * WEIGHT_P * output) + objective.generated_term(output + (n * WEIGHT_Q).log())
    real, generated = by_row(objective, output)
    return WEIGHT_P @ real + WEIGHT_Q @ generated


def fit(loss, *, start: Tensor | None = None) -> Tensor:
    """Minimise a function of three coefficients."""
    coefficients = torch.zeros(3, dtype=torch.float64) if start is None else start.clone()
    coefficients.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [coefficients], max_iter=300, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(coefficients)
        value.backward()
        return value

    optimiser.step(closure)
    return coefficients.detach()
