"""A target whose weight is raised to a power: a rung of the ladder from the prior to the target."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.targets.base import Target

__all__ = ["TemperedTarget"]


class TemperedTarget(Target):
    r"""The law between prior and target, :math:`p_0(z)\, w(z)^\beta`.

    Its potential is :math:`-\log p_0 - \beta \log w = (1 - \beta)(-\log p_0) + \beta U`, so a rung costs one value (and
    gradient) of the target and one of the prior. At 0 it is the prior and asks nothing of the weight; at 1 it is the
    target itself.

    Args:
        target: What is tempered; prior and weight must be known apart.
        beta: The power: a number, or a tensor of shape `()` or `(chain,)`, then one a chain.

    Raises:
        ValueError: if the target has no split, or a power is negative or not finite (tensors are not read).

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan import LatentPosterior
        >>> from pyro_gan.targets import make_target
        >>> prior = dist.Normal(0, 1).expand([2]).to_event(1)
        >>> gan = LatentPosterior(torch.nn.Identity(), lambda x: -x.square().sum(-1), prior)
        >>> target = make_target(gan, None, prototype=None, batched=True, context={})
        >>> z = torch.ones(1, 2)
        >>> float(target.tempered(0.5).potential(z) - target.tempered(0.0).potential(z))
        1.0
    """

    def __init__(self, target: Target, beta: float | Tensor) -> None:
        if not target.has_split:
            raise ValueError(
                "Expected a target whose prior and weight are known apart; a bare potential_fn does not say which part "
                "of it is the prior. Pass a model."
            )
        if isinstance(beta, Tensor):
            if beta.dim() > 1:
                raise ValueError(f"Expected beta of shape () or (chain,); got {tuple(beta.shape)}.")
            beta = beta.to(target.device, target.dtype)
        elif not 0 <= beta < float("inf"):
            raise ValueError(
                f"Expected beta of at least 0, and finite; got {beta}. 0 is the prior, 1 the target."
            )
        # The sites and their order are the target's.
        self.shapes, self.transforms, self.dim = target.shapes, target.transforms, target.dim
        self.dtype, self.device = target.dtype, target.device
        self._target = target
        self.beta = beta

    @property
    def has_split(self) -> bool:
        """Always: without a split there is no tempering."""
        return True

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return `-log_prior - beta log_weight`."""
        if isinstance(self.beta, float | int) and self.beta == 1:
            return self._target.potential(z)
        log_prior = self._target.log_prior(z)
        if isinstance(self.beta, float | int) and self.beta == 0:
            return -log_prior
        return -log_prior - _times(self.beta, self._target.log_weight(z))

    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential and its gradient, from one of the target and one of the prior."""
        beta = self.beta
        if isinstance(beta, float | int) and beta == 1:
            return self._target.potential_and_grad(z)
        log_prior, prior_grad = self._target.log_prior_and_grad(z)
        if isinstance(beta, float | int) and beta == 0:
            return -log_prior, -prior_grad
        potential, grad = self._target.potential_and_grad(z)
        column = beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta
        return _mix(beta, -log_prior, potential), _mix(column, -prior_grad, grad)

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the prior's log density: tempering leaves it alone."""
        return self._target.log_prior(z)

    def log_prior_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the prior's log density and its gradient."""
        return self._target.log_prior_and_grad(z)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the tempered log weight, `beta log_weight`."""
        return _times(self.beta, self._target.log_weight(z))

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior."""
        return self._target.sample_prior(num_draws)

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw points for chains to start from, those of the target."""
        return self._target.sample_start(num_draws)

    def tempered(self, beta: float | Tensor) -> Target:
        """Return the target with its weight raised to the product of both powers."""
        return TemperedTarget(self._target, self.beta * beta)


def _mix(beta: float | Tensor, prior: Tensor, target: Tensor) -> Tensor:
    # Exact at both ends, and no difference of large numbers between them.
    return (1 - beta) * prior + _times(beta, target)


def _times(beta: float | Tensor, value: Tensor) -> Tensor:
    # At power 0 a weight of zero is 1, and no NaN.
    if isinstance(beta, Tensor):
        return torch.where(beta == 0, 0.0, beta * value)
    return beta * value if beta else torch.zeros_like(value)
