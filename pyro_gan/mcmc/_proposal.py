"""What kernels share that propose from one law, whatever the state: checks, weights, and blocks scored ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_gan._networks import unchecked
from pyro_gan._random import rng_fork
from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import State
from pyro_gan.targets import Target

__all__ = ["IndependenceKernel", "check_fits", "check_proposal"]

#: Proposals scored in one go. They do not depend on the state, so a few chains can score many steps ahead.
BLOCK_ROWS = 1000

#: Prior draws at which a proposal must have a density.
NUM_CHECKED = 100


class IndependenceKernel(BatchKernel):
    """A kernel that proposes from the prior, or a given distribution, and weighs target over that.

    A subclass writes `_transition`, and takes its proposals from `_next_proposals`.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: Distribution to propose from in place of the prior, over all unconstrained sites raveled and joined.

    Raises:
        ValueError: for a bare `potential_fn` without `proposal`, a proposal of another dimension, or one without a
            density where the prior has draws.
    """

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        proposal: Distribution | None = None,
    ) -> None:
        super().__init__(model, potential_fn, num_chains=num_chains)
        if potential_fn is not None and proposal is None:
            raise ValueError(
                f"{type(self).__name__} proposes from the prior, and a bare potential_fn does not say what that is. "
                "Pass proposal=, or a model."
            )
        if proposal is not None:
            check_proposal(proposal)
        self.proposal = proposal
        self._block: list[State] = []

    def weigh(self, z: Float[Tensor, "chain dim"], potential: Float[Tensor, " chain"]) -> State:
        """Return the state at positions whose potential is known: their weights take no pass through a network."""
        if self.proposal is None:
            return State(z, potential, None, -potential - self.target.log_prior(z))
        log_q = self.proposal.log_prob(z.reshape(-1, *self.proposal.event_shape))
        return State(z, potential, None, -potential - log_q)

    def cleanup(self) -> None:
        """Drop the state and the proposals scored ahead; diagnostics stay."""
        super().cleanup()
        self._block = []

    def _prepare(self, num_chains: int) -> None:
        self._block = []
        if self.proposal is not None:
            check_fits(self.proposal, self.target)
            _check_covers(self.proposal, self.target)

    def _sample_start(self, num_draws: int) -> Tensor:
        return self._propose(num_draws)

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        if self.proposal is None:
            log_weight = self.target.log_weight(z)
            return State(z, -self.target.log_prior(z) - log_weight, None, log_weight)
        return self.weigh(z, self.target.potential(z))

    def _propose(self, num_draws: int) -> Tensor:
        if self.proposal is None:
            return self.target.sample_prior(num_draws)
        return self.proposal.sample((num_draws,)).reshape(num_draws, -1)

    def _next_proposals(self, num_draws: int) -> State:
        if not self._block:
            self._block = self._score_ahead(num_draws)
        return self._block.pop()

    def _score_ahead(self, num_draws: int) -> list[State]:
        """Return scored proposals, as many a step as asked for, of as many steps as make a block."""
        steps = max(1, BLOCK_ROWS // num_draws)
        ahead = self._evaluate(self._propose(steps * num_draws))
        fields = [[None] * steps if field is None else field.split(num_draws) for field in ahead]
        return [State(*step) for step in zip(*fields, strict=True)]


def check_proposal(proposal: Distribution) -> None:
    """Raise unless a distribution to propose from is one, of whole positions."""
    if proposal.batch_shape:
        raise ValueError(
            f"Expected a proposal with batch_shape (); got {tuple(proposal.batch_shape)}. Independent coordinates "
            "become one event with .to_event(1)."
        )


def check_fits(proposal: Distribution, target: Target) -> None:
    """Raise unless a distribution to propose from has the target's dimension, dtype and device."""
    if proposal.event_shape.numel() != target.dim:
        raise ValueError(
            f"Expected a proposal over {target.dim} numbers; got event_shape {tuple(proposal.event_shape)}."
        )
    with rng_fork():
        drawn = proposal.sample()
    if drawn.dtype != target.dtype or drawn.device != target.device:
        raise ValueError(
            f"Expected a proposal of the model's dtype and device, {target.dtype} on {target.device}; got "
            f"{drawn.dtype} on {drawn.device}."
        )


def _check_covers(proposal: Distribution, target: Target) -> None:
    """Raise if a distribution to propose from has no density where the target has some, as far as prior draws tell."""
    if not target.has_split:
        return
    with rng_fork():
        z = target.sample_prior(NUM_CHECKED)
    values = z.reshape(-1, *proposal.event_shape)
    log_q = unchecked(proposal).log_prob(values)
    # Outside of its support a distribution may give any number.
    missed = z[~torch.isfinite(log_q) | ~_inside(proposal, values)]
    # Where the target has none either, nothing is missed.
    num_missed = int(torch.isfinite(target.potential(missed)).sum()) if len(missed) else 0
    if num_missed:
        raise ValueError(
            f"Expected a proposal whose support covers the target's; it has no density at {num_missed} of "
            f"{NUM_CHECKED} prior draws, and chains would never go there. Positions are unconstrained: propose from a "
            "law over all reals, such as a Normal; pyro_gan.mcmc.fit_proposal makes one."
        )


def _inside(proposal: Distribution, values: Tensor) -> Tensor:
    try:
        support: Any = proposal.support
        inside: Tensor = support.check(values)
    except (AttributeError, NotImplementedError):  # not every distribution says what its support is
        return torch.ones_like(values.flatten(1)[:, 0], dtype=torch.bool)
    return inside.reshape(len(values), -1).all(1)
