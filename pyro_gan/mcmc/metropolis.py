"""The Metropolis accept or reject of a whole batch of chains, written once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["MAX_ENERGY_CHANGE", "Info", "State", "metropolis", "take"]

#: A drop in log density beyond which a proposal counts as a divergence (Pyro's and Stan's limit).
MAX_ENERGY_CHANGE = 1000.0


class State(NamedTuple):
    """Where a batch of chains is, with what was paid to know about it.

    Attributes:
        z: Unconstrained position.
        potential: Potential energy there.
        grad: Gradient of the potential there; None for kernels that need none.
        log_weight: Log of target over proposal there; None for kernels that need none.
    """

    z: Float[Tensor, "chain dim"]
    potential: Float[Tensor, " chain"]
    grad: Float[Tensor, "chain dim"] | None = None
    log_weight: Float[Tensor, " chain"] | None = None


class Info(NamedTuple):
    """What one transition did.

    Attributes:
        accept_prob: Probability with which the proposal was to be accepted; of an unadjusted kernel, with which a
            Metropolis-Hastings correction would have.
        accepted: Whether it was.
        invalid: Whether the proposal's score was NaN or plus infinity, or its gradient not finite (it was rejected). A
            weight of zero, a score of minus infinity, is a rejection like any other.
        diverging: Invalid, or, of a kernel with gradients, a log acceptance ratio below -1000.
        energy: Total energy of the state that resulted; for a kernel without momentum its potential.
    """

    accept_prob: Float[Tensor, " chain"]
    accepted: Bool[Tensor, " chain"]
    invalid: Bool[Tensor, " chain"]
    diverging: Bool[Tensor, " chain"]
    energy: Float[Tensor, " chain"]


def take(state: State, chains: Tensor) -> State:
    """Return some of a batch of states, by index or mask."""
    return State(
        state.z[chains],
        state.potential[chains],
        None if state.grad is None else state.grad[chains],
        None if state.log_weight is None else state.log_weight[chains],
    )


def metropolis(state: State, proposal: State, log_accept: Float[Tensor, " chain"]) -> tuple[State, Info]:
    """Accept each chain's proposal with probability `min(1, exp(log_accept))`, alone and on its own coin.

    A proposal whose potential is NaN or minus infinity, or whose gradient is not finite, is rejected and flagged: NaN
    never enters a chain.

    Args:
        state: Current state.
        proposal: Proposed state, with the same fields filled.
        log_accept: Log of the Metropolis-Hastings ratio.

    Returns:
        The next state, and what happened.
    """
    invalid = torch.isneginf(proposal.potential) | torch.isnan(proposal.potential) | torch.isnan(log_accept)
    if proposal.grad is not None:
        # A non-finite entry makes the sum non-finite; so does overflow, which is as unusable.
        invalid = invalid | ~torch.isfinite(proposal.grad.sum(-1))
    log_accept = log_accept.masked_fill(invalid, -torch.inf)
    # An exponential variable is -log of a uniform one, without the uniform's chance of being exactly 0.
    accepted = log_accept > -torch.empty_like(log_accept).exponential_()
    new = State(
        z=torch.where(accepted.unsqueeze(-1), proposal.z, state.z),
        potential=torch.where(accepted, proposal.potential, state.potential),
        grad=_select(accepted.unsqueeze(-1), proposal.grad, state.grad),
        log_weight=_select(accepted, proposal.log_weight, state.log_weight),
    )
    return new, Info(
        accept_prob=log_accept.clamp(max=0.0).exp(),
        accepted=accepted,
        invalid=invalid,
        # Without a gradient there is no integrator to diverge: a proposal of little weight is no failure.
        diverging=invalid if proposal.grad is None else log_accept < -MAX_ENERGY_CHANGE,
        energy=new.potential,
    )


def _select(accepted: Tensor, after: Tensor | None, before: Tensor | None) -> Tensor | None:
    if after is None or before is None:
        return None
    return torch.where(accepted, after, before)
