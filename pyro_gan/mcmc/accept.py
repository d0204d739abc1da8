"""The Metropolis accept-reject step for a batch of chains."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan.targets import State

__all__ = ["MAX_ENERGY_CHANGE", "Info", "accept_by_weight", "metropolis"]

#: A drop in log density beyond which a proposal counts as a divergence (Pyro's and Stan's limit).
MAX_ENERGY_CHANGE = 1000.0


@final
class Info(NamedTuple):
    """What one transition did.

    Attributes:
        accept_prob: Probability of accepting the proposal; for an unadjusted kernel, the probability with which a
            Metropolis-Hastings correction would have accepted it.
        accepted: Whether it was accepted.
        invalid: Whether the proposal was rejected because its score was NaN or plus infinity, or its gradient was not
            finite. A score of minus infinity, a weight of zero, is an ordinary rejection.
        diverging: Whether the proposal was invalid or, for a kernel with gradients, its log acceptance ratio was below
            -1000.
        energy: Total energy of the resulting state; for a kernel without momentum its potential.
    """

    accept_prob: Float[Tensor, " chain"]
    accepted: Bool[Tensor, " chain"]
    invalid: Bool[Tensor, " chain"]
    diverging: Bool[Tensor, " chain"]
    energy: Float[Tensor, " chain"]


def metropolis(state: State, proposal: State, log_accept: Float[Tensor, " chain"]) -> tuple[State, Info]:
    """Accept each chain's proposal with probability `min(1, exp(log_accept))`, independently of the other chains.

    A proposal is rejected and flagged as invalid if its potential is NaN or minus infinity, or its gradient is not
    finite: NaN never enters a chain.

    Args:
        state: Current state.
        proposal: Proposed state, with the same fields filled.
        log_accept: Log of the Metropolis-Hastings ratio.

    Returns:
        The next state, and what happened.
    """
    invalid = torch.isneginf(proposal.potential) | torch.isnan(proposal.potential) | torch.isnan(log_accept)
    if proposal.grad is not None:
        # An entry that is not finite makes the sum not finite. So does an overflow, which is no better.
        invalid = invalid | ~torch.isfinite(proposal.grad.sum(-1))
    log_accept = log_accept.masked_fill(invalid, -torch.inf)
    # An exponential variable is -log of a uniform one, but never infinite: a uniform one can be exactly 0.
    accepted = log_accept > -torch.empty_like(log_accept).exponential_()
    new = proposal.where(accepted, state)
    return new, Info(
        accept_prob=log_accept.clamp(max=0.0).exp(),
        accepted=accepted,
        invalid=invalid,
        # Without a gradient no integrator can diverge: a proposal of little weight is an ordinary rejection.
        diverging=invalid if proposal.grad is None else log_accept < -MAX_ENERGY_CHANGE,
        energy=new.potential,
    )


def accept_by_weight(
    state: State, proposal: State, *, never: Bool[Tensor, " chain"] | None = None
) -> tuple[State, Info]:
    """Accept each chain's proposal with probability `min(1, w(z') / w(z))`.

    Args:
        state: Current state, with log weights.
        proposal: Proposed state, with log weights.
        never: Chains that must not move; None if all may.

    Returns:
        The next state, and what happened.
    """
    assert proposal.log_weight is not None and state.log_weight is not None
    log_accept = proposal.log_weight - state.log_weight
    if never is not None:
        log_accept = log_accept.masked_fill(never, -torch.inf)
    return metropolis(state, proposal, log_accept)
