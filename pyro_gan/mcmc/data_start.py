"""Chains that start at the scores of real data, as MH-GAN's do, and so have no latent until they accept one.

A chain that starts at a draw of the target is stationary from its first step on, but for a real datum nobody knows a
latent, only its score. A chain that accepts nothing during warmup still stands at that datum; it stands there because
its weight is great, so whatever is done about it, what such data stand for is missing from the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan.mcmc.metropolis import State, metropolis, take
from pyro_gan.targets import Target

__all__ = ["DataStart", "Policy", "Settled", "check_policy", "check_scores", "settle", "start_at_scores"]

Policy = Literal["continue", "drop", "restart"]


class DataStart(NamedTuple):
    """What became of the chains that started at real data.

    Attributes:
        num_chains: Chains that started.
        num_waiting: Those that had accepted nothing when warmup ended.
        extra_steps: Steps that were added to warmup for them.
        num_dropped: Those that the run went on without.
    """

    num_chains: int
    num_waiting: int
    extra_steps: int
    num_dropped: int


class Settled(NamedTuple):
    """Chains at the end of warmup, after something was done about those that had accepted nothing.

    Attributes:
        state: Where they are.
        moved: Which have accepted a proposal since their start.
        placed: Which have a position.
        report: What was done.
    """

    state: State
    moved: Bool[Tensor, " chain"]
    placed: Bool[Tensor, " chain"]
    report: DataStart


def check_policy(policy: str, budget: int | None, *, has_scores: bool) -> None:
    """Raise unless the policy is one, the budget a number of steps, and there are chains for them to be about."""
    if policy not in get_args(Policy):
        raise ValueError(f"Expected policy to be one of {get_args(Policy)}; got {policy!r}.")
    if budget is not None and (not isinstance(budget, int) or budget < 0):
        raise ValueError(f"Expected budget to be a number of steps, an int of at least 0; got {budget!r}.")
    if not has_scores and (policy != "continue" or budget is not None):
        raise ValueError(
            f"policy={policy!r} and budget={budget} are about chains that start at real data: pass "
            "initial_log_ratio=, or leave them out."
        )


def check_scores(initial_log_ratio: Tensor) -> None:
    """Raise unless scores are finite numbers `(datum,)`."""
    if not torch.is_tensor(initial_log_ratio):
        raise ValueError(
            f"Expected initial_log_ratio to be a tensor; got {type(initial_log_ratio).__name__}."
        )
    if initial_log_ratio.dim() != 1 or not len(initial_log_ratio):
        raise ValueError(
            f"Expected initial_log_ratio of shape (datum,); got {tuple(initial_log_ratio.shape)}. Pass log_ratio(x) of "
            "held-out real data."
        )
    bad = int((~torch.isfinite(initial_log_ratio)).sum())
    if bad:
        raise ValueError(
            f"Expected a finite initial_log_ratio; {bad} of {len(initial_log_ratio)} are NaN or infinite. A chain "
            "never leaves an infinite score: cap the log ratio, see pyro_gan.calibrate."
        )


def start_at_scores(
    log_ratio: Float[Tensor, " datum"], num_chains: int, target: Target, like: Tensor
) -> State:
    """Return a state of chains that have a log weight and nothing else: position and potential are NaN.

    Args:
        log_ratio: Scores, of which every chain takes one at random, no two the same if there are enough.
        num_chains: Number of chains.
        target: For the dimension.
        like: For dtype and device.
    """
    if len(log_ratio) >= num_chains:
        chosen = torch.randperm(len(log_ratio))[:num_chains]
    else:
        chosen = torch.randint(len(log_ratio), (num_chains,))
    scores = log_ratio.detach()[chosen.to(log_ratio.device)].to(like)
    check_scores(scores)  # once more: what is finite in double precision need not be in single
    return State(
        like.new_full((num_chains, target.dim), torch.nan), torch.full_like(scores, torch.nan), None, scores
    )


def settle(
    state: State,
    moved: Bool[Tensor, " chain"],
    proposals: Callable[[int], list[State]],
    *,
    fresh: Callable[[int], State],
    policy: Policy,
    restart_steps: int,
    budget: int,
) -> Settled:
    """Do by the policy about chains that have accepted nothing since they started at real data.

    Args:
        state: Where the chains are, NaN for those that wait.
        moved: Which have accepted something.
        proposals: Gives scored proposals for so many chains, some steps at once.
        fresh: Gives a state of so many chains at draws of the prior.
        policy: See `IndependenceMH`.
        restart_steps: Steps after a restart.
        budget: Most steps to go on for.

    Raises:
        ValueError: if no chain is left.
    """
    waiting = (~moved).nonzero().flatten()
    num_waiting, extra_steps = len(waiting), 0
    placed = torch.ones_like(moved)
    if num_waiting and policy == "restart":
        extra_steps = restart_steps
        walked, accepted = _walk(fresh(num_waiting), proposals, restart_steps)
        state, moved = _put(state, waiting, walked), moved.index_copy(0, waiting, accepted)
    else:
        while policy == "continue" and len(waiting) and extra_steps < budget:
            block = proposals(len(waiting))[: budget - extra_steps]
            walked, accepted = _first_accepted(take(state, waiting), block)
            state, moved = _put(state, waiting, walked), moved.index_copy(0, waiting, accepted)
            extra_steps += len(block)
            # How many wait still is read back from the device, once a block.
            waiting = waiting[~accepted]
        placed = moved
    num_dropped = int((~placed).sum())
    if num_dropped == len(placed):
        raise ValueError(
            f"None of the {num_dropped} chains that started at real data has accepted a proposal: there is nothing to "
            "sample from. Run a longer warmup, or look at LatentPosterior.check()."
        )
    return Settled(state, moved, placed, DataStart(len(placed), num_waiting, extra_steps, num_dropped))


def _walk(state: State, proposals: Callable[[int], list[State]], num_steps: int) -> tuple[State, Tensor]:
    accepted = torch.zeros_like(state.potential, dtype=torch.bool)
    block: list[State] = []
    for _ in range(num_steps):
        block = block or proposals(len(state.z))
        state, info = metropolis(state, block[-1], _log_accept(block.pop(), state))
        accepted = accepted | info.accepted
    return state, accepted


def _first_accepted(state: State, block: list[State]) -> tuple[State, Tensor]:
    accepted = torch.zeros_like(state.potential, dtype=torch.bool)
    for proposal in block:
        log_accept = _log_accept(proposal, state).masked_fill(accepted, -torch.inf)
        state, info = metropolis(state, proposal, log_accept)
        accepted = accepted | info.accepted
    return state, accepted


def _log_accept(proposal: State, state: State) -> Tensor:
    assert proposal.log_weight is not None and state.log_weight is not None
    return proposal.log_weight - state.log_weight


def _put(state: State, chains: Tensor, part: State) -> State:
    assert state.log_weight is not None and part.log_weight is not None
    return State(
        state.z.index_copy(0, chains, part.z),
        state.potential.index_copy(0, chains, part.potential),
        None,
        state.log_weight.index_copy(0, chains, part.log_weight),
    )
