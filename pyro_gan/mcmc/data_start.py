"""Chains that start at the scores of real data, as MH-GAN's do, and so have no latent until they accept one.

A chain that starts at a draw of the target is stationary from its first step on. A real data point is such a draw, but
its latent is unknown: the chain starts from its score alone. A chain that accepts nothing during warmup stays at its
data point because the weight there is large. No policy brings these data points back: the output lacks them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, final, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.mcmc.accept import accept_by_weight
from pyro_gan.targets import State, Target

__all__ = ["DataStart", "Policy", "Settled", "check_data_start", "check_scores", "settle", "start_at_scores"]

Policy = Literal["continue", "drop", "restart"]


@final
class DataStart(NamedTuple):
    """What became of the chains that started at real data.

    Attributes:
        num_chains: Chains that started.
        num_waiting: Chains that had accepted nothing when warmup ended.
        extra_steps: Steps that were added to warmup for them.
        num_dropped: Chains that were dropped from the run.
    """

    num_chains: int
    num_waiting: int
    extra_steps: int
    num_dropped: int


@final
class Settled(NamedTuple):
    """Chains at the end of warmup, after the policy was applied to those that had accepted nothing.

    Attributes:
        state: The state of all chains; NaN for a chain without a position.
        moved: Which chains have accepted a proposal since their start.
        placed: Which chains have a position.
        report: What was done.
    """

    state: State
    moved: Bool[Tensor, " chain"]
    placed: Bool[Tensor, " chain"]
    report: DataStart


def check_data_start(initial_log_ratio: Tensor | None, policy: str, budget: int | None) -> None:
    """Raise unless the options of `IndependenceMH` about a start at real data are valid and fit together.

    Args:
        initial_log_ratio: Scores of real data, `(row,)`, or None.
        policy: See `IndependenceMH`.
        budget: See `IndependenceMH`.

    Raises:
        ValueError: if they are not; also for a policy or a budget without scores.
    """
    checks.choice("policy", policy, get_args(Policy))
    if budget is not None:
        checks.count("budget", budget, minimum=0, cure="It is a number of steps.")
    if initial_log_ratio is not None:
        check_scores(initial_log_ratio)
    elif policy != "continue" or budget is not None:
        raise ValueError(
            f"Expected initial_log_ratio with policy={policy!r} and budget={budget}, which are for chains that start "
            "at real data; got None. Pass it, or leave them out."
        )


def check_scores(initial_log_ratio: Tensor) -> None:
    """Raise unless scores are finite numbers `(row,)`."""
    cure = (
        "Pass log_ratio(x) of held-out real data; a chain never leaves an infinite score, so cap the log ratio, see "
        "pyro_gan.calibrate."
    )
    checks.rows("initial_log_ratio", initial_log_ratio, event_shape=(), cure=cure)


def start_at_scores(log_ratio: Float[Tensor, " row"], num_chains: int, target: Target, like: Tensor) -> State:
    """Return a state of chains that have a log weight only: position and potential are NaN.

    Args:
        log_ratio: Scores. Each chain takes one at random; no two chains take the same one if there are enough.
        num_chains: Number of chains.
        target: For the dimension.
        like: For dtype and device.
    """
    if len(log_ratio) >= num_chains:
        chosen = torch.randperm(len(log_ratio))[:num_chains]
    else:
        chosen = torch.randint(len(log_ratio), (num_chains,))
    scores = log_ratio.detach()[chosen.to(log_ratio.device)].to(like)
    check_scores(scores)  # once more: a number that is finite in float64 may be infinite in float32
    return State(like.new_full((num_chains, target.dim), torch.nan), torch.full_like(scores, torch.nan), None, scores)


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
    """Apply the policy to chains that have accepted nothing since they started at real data.

    Args:
        state: Where the chains are; NaN for chains that have accepted nothing.
        moved: Which chains have accepted a proposal.
        proposals: Returns scored proposals for a number of chains, for several steps at once.
        fresh: Returns a state of a number of chains at draws of the prior.
        policy: See `IndependenceMH`.
        restart_steps: Steps after a restart.
        budget: Largest number of extra steps of "continue".

    Raises:
        ValueError: if no chain is left.
    """
    waiting = (~moved).nonzero().flatten()
    num_waiting, extra_steps = len(waiting), 0
    placed = torch.ones_like(moved)
    if num_waiting and policy == "restart":
        extra_steps = restart_steps
        walked, accepted = _walk(fresh(num_waiting), proposals, restart_steps)
        state, moved = state.put(waiting, walked), moved.index_copy(0, waiting, accepted)
    else:
        while policy == "continue" and len(waiting) and extra_steps < budget:
            block = proposals(len(waiting))[: budget - extra_steps]
            walked, accepted = _first_accepted(state.take(waiting), block)
            state, moved = state.put(waiting, walked), moved.index_copy(0, waiting, accepted)
            extra_steps += len(block)
            # The host reads the number of waiting chains from the device once in each block.
            waiting = waiting[~accepted]
        placed = moved
    num_dropped = int((~placed).sum())
    if num_dropped == len(placed):
        raise ValueError(
            f"None of the {num_dropped} chains that started at real data has accepted a proposal, so no chain has a "
            "position. Run a longer warmup, or look at LatentPosterior.check()."
        )
    return Settled(state, moved, placed, DataStart(len(placed), num_waiting, extra_steps, num_dropped))


def _walk(state: State, proposals: Callable[[int], list[State]], num_steps: int) -> tuple[State, Tensor]:
    accepted = torch.zeros_like(state.potential, dtype=torch.bool)
    block: list[State] = []
    for _ in range(num_steps):
        block = block or proposals(len(state.z))
        state, info = accept_by_weight(state, block.pop())
        accepted = accepted | info.accepted
    return state, accepted


def _first_accepted(state: State, block: list[State]) -> tuple[State, Tensor]:
    accepted = torch.zeros_like(state.potential, dtype=torch.bool)
    for proposal in block:
        # A chain keeps the first proposal that it accepts: only that one has the distribution that `policy` states.
        state, info = accept_by_weight(state, proposal, never=accepted)
        accepted = accepted | info.accepted
    return state, accepted
