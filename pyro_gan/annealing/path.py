"""The distribution between prior and target at a power that changes, for particles whose scores are kept.

The costly numbers of a particle, its log weight and its gradient, do not depend on the power. A state carries them as
`parts`, so that a change of the power needs no evaluation.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.targets import Parts, PowerTarget, State, Target
from pyro_gan.targets.rows import ValueAndGrad

__all__ = ["Path"]


@final
class Path(PowerTarget):
    r"""A target whose weight has a power that changes, :math:`p_0(z)\, w(z)^\beta`, for a batch of particles.

    Args:
        target: The target at power 1; its prior and weight must be known separately.

    Attributes:
        beta: The power.
        num_forwards: Rows whose weight was evaluated without a gradient.
        num_gradients: Rows whose weight was evaluated with its gradient.

    Raises:
        ValueError: for a target without a known prior.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.beta = 0.0
        self.num_forwards = self.num_gradients = 0

    def evaluate(self, z: Float[Tensor, "chain dim"], *, gradient: bool) -> State:
        """Return the state at positions, with its parts."""
        if not gradient:
            self.num_forwards += len(z)
            return self.at_power(z, Parts(self.target.log_prior(z), self.target.log_weight(z)))
        self.num_gradients += len(z)
        potential, grad = self.target.potential_and_grad(z)
        log_prior, prior_grad = self.target.log_prior_and_grad(z)
        # Outside the prior's support the weight is undefined; zero is as good as any.
        log_weight = torch.where(torch.isneginf(log_prior), -torch.inf, -potential - log_prior)
        return self.at_power(z, Parts(log_prior, log_weight, prior_grad, grad))

    def at_power(self, z: Float[Tensor, "chain dim"], parts: Parts) -> State:
        """Return the state at the present power from its parts, without an evaluation."""
        grad = None
        if parts.grad is not None and parts.prior_grad is not None:
            grad = self.beta * parts.grad - (1 - self.beta) * parts.prior_grad
        return State(z, -parts.log_prior - self.beta * parts.log_weight, grad, None, parts)

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return `-log_prior - beta log_weight`."""
        return self.evaluate(z, gradient=False).potential

    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential energy and its gradient."""
        state = self.evaluate(z, gradient=True)
        assert state.grad is not None
        return state.potential, state.grad

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight at the present power."""
        weight = self.evaluate_weighted(z).log_weight
        assert weight is not None
        return weight

    def evaluate_weighted(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at positions, with the log weight at the present power over the prior."""
        return self.weigh(self.evaluate(z, gradient=False))

    def weigh(self, state: State) -> State:
        """Return a state with the log weight at the present power over the prior."""
        if state.parts is None:
            return super().weigh(state)
        return state._replace(grad=None, log_weight=self.beta * state.parts.log_weight)
