"""A target whose weight is raised to a power: a rung of the ladder from the prior to the target."""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.targets.base import Target, WeightedTarget, check_weighted
from pyro_gan.targets.rows import ValueAndGrad

__all__ = ["PowerTarget", "TemperedTarget"]


class PowerTarget(WeightedTarget):
    r"""A distribution between prior and target, :math:`p_0(z)\, w(z)^\beta`, with the target's sites and prior.

    A subclass writes the potential, its gradient and the log weight.

    Args:
        target: The target at power 1.

    Raises:
        ValueError: for a target without a known prior.
    """

    def __init__(self, target: Target) -> None:
        self.target = check_weighted(target)
        self.shapes, self.transforms, self.dim = target.shapes, target.transforms, target.dim
        self.dtype, self.device = target.dtype, target.device

    @property
    def functions(self) -> tuple[Any, ...]:
        """What the target at power 1 is computed with."""
        return self.target.functions

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior, which the power does not change."""
        return self.target.log_prior(z)

    def log_prior_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the log density of the prior and its gradient."""
        return self.target.log_prior_and_grad(z)

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior."""
        return self.target.sample_prior(num_draws)

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw starting points for chains, as the target does."""
        return self.target.sample_start(num_draws)


@final
class TemperedTarget(PowerTarget):
    r"""The distribution between prior and target, :math:`p_0(z)\, w(z)^\beta`, at a fixed power.

    Its potential is :math:`-\log p_0 - \beta \log w = (1 - \beta)(-\log p_0) + \beta U`, so an evaluation costs one
    value (and gradient) of the target and one of the prior. At 0 it is the prior and does not evaluate the weight; at 1
    it is the target itself.

    Args:
        target: The target at power 1. If it is tempered itself, the powers multiply.
        beta: The power: a number, or a tensor of shape `()` or `(chain,)`, with one power for each chain.

    Raises:
        ValueError: for a target without a known prior, or a power that is negative or not finite (the values of tensors
            are not checked).

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan import LatentPosterior
        >>> from pyro_gan.targets import make_target
        >>> prior = dist.Normal(0, 1).expand([2]).to_event(1)
        >>> gan = LatentPosterior(torch.nn.Identity(), lambda x: -x.square().sum(-1), prior)
        >>> target = make_target(gan)
        >>> z = torch.ones(1, 2)
        >>> float(TemperedTarget(target, 0.5).potential(z) - TemperedTarget(target, 0.0).potential(z))
        1.0
    """

    def __init__(self, target: Target, beta: float | Tensor) -> None:
        if isinstance(beta, Tensor):
            if beta.dim() > 1:
                raise ValueError(f"Expected beta of shape () or (chain,); got {tuple(beta.shape)}.")
        else:
            beta = checks.real("beta", beta, minimum=0, cure="0 is the prior, 1 is the target.")
        if isinstance(target, TemperedTarget):
            beta = target.beta * beta
            target = target.target
        super().__init__(target)
        self.beta: float | Tensor = beta.to(target.device, target.dtype) if isinstance(beta, Tensor) else beta

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return `-log_prior - beta log_weight`."""
        if isinstance(self.beta, float) and self.beta == 1:
            return self.target.potential(z)
        log_prior = self.target.log_prior(z)
        if isinstance(self.beta, float) and self.beta == 0:
            return -log_prior
        return -log_prior - _times(self.beta, self.target.log_weight(z))

    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential and its gradient, from those of the target and of the prior."""
        beta = self.beta
        if isinstance(beta, float) and beta == 1:
            return self.target.potential_and_grad(z)
        log_prior, prior_grad = self.target.log_prior_and_grad(z)
        if isinstance(beta, float) and beta == 0:
            return -log_prior, -prior_grad
        potential, grad = self.target.potential_and_grad(z)
        column = beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta
        return _mix(beta, -log_prior, potential), _mix(column, -prior_grad, grad)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the tempered log weight, `beta log_weight`."""
        return _times(self.beta, self.target.log_weight(z))


def _mix(beta: float | Tensor, prior: Tensor, target: Tensor) -> Tensor:
    # This is exact at both ends, and never subtracts large numbers.
    return (1 - beta) * prior + _times(beta, target)


def _times(beta: float | Tensor, value: Tensor) -> Tensor:
    # At power 0 a weight of zero becomes 1, not NaN.
    if isinstance(beta, Tensor):
        return torch.where(beta == 0, 0.0, beta * value)
    return beta * value if beta else torch.zeros_like(value)
