"""Where chains start: the user's points, checked, or draws with a finite potential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.metropolis import State
from pyro_gan.targets import Target

__all__ = ["check_initial_params", "find_start", "start_at"]

#: Rounds of draws before giving up, and draws of a round at least: a chain or two may have to look for a rare region.
MAX_ROUNDS, DRAWS_PER_ROUND = 100, 1000

Evaluate = Callable[[Tensor], State]


def check_initial_params(params: Params, target: Target, num_chains: int | None) -> None:
    """Raise unless starting points have the target's sites, shapes and dtype, and are finite.

    Args:
        params: Unconstrained, `{site: (chain, *event)}`, or `{site: (*event)}` if `num_chains` is None.
        target: What is to be sampled.
        num_chains: Number of chains, or None for one without a chain dimension.

    Raises:
        ValueError: saying what was expected and what came.
    """
    if set(params) != set(target.shapes):
        raise ValueError(
            f"Expected initial_params for the sites {sorted(target.shapes)}; got {sorted(params)}."
        )
    lead = () if num_chains is None else (num_chains,)
    for name, shape in target.shapes.items():
        value = params[name]
        if value.shape != torch.Size(lead) + shape:
            raise ValueError(
                f"Expected initial_params[{name!r}] of shape {(*lead, *shape)}, unconstrained"
                f"{'' if num_chains is None else ', one row a chain'}; got {tuple(value.shape)}."
            )
        if value.dtype != target.dtype:
            raise ValueError(
                f"Expected initial_params[{name!r}] in the model's dtype {target.dtype}; got {value.dtype}."
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"Expected finite initial_params; got NaN or infinity in {name!r}.")


def start_at(z: Float[Tensor, "chain dim"], evaluate: Evaluate) -> State:
    """Return the state at the user's points.

    Raises:
        ValueError: if a potential or gradient there is not finite.
    """
    state = evaluate(z)
    bad = ~_usable(state)
    if bad.any():
        raise ValueError(
            f"The potential or its gradient is not finite at initial_params for {int(bad.sum())} of {len(bad)} "
            f"chains (first: {int(bad.nonzero()[0])}). Start inside the target's support."
        )
    return state


def find_start(num_chains: int, draw: Callable[[int], Tensor], evaluate: Evaluate) -> State:
    """Draw a point for every chain, and go on for those whose potential or gradient is not finite.

    Raises:
        ValueError: if 100 rounds of draws, a thousand or more each, were not enough.
    """
    state = evaluate(draw(num_chains))
    for _ in range(MAX_ROUNDS):
        waiting = (~_usable(state)).nonzero().flatten()
        if not len(waiting):
            return state
        candidates = evaluate(draw(max(len(waiting), DRAWS_PER_ROUND)))
        found = _usable(candidates).nonzero().flatten()[: len(waiting)]
        waiting = waiting[: len(found)]
        state = State(
            *(_replaced(old, waiting, new, found) for old, new in zip(state, candidates, strict=True))
        )
    raise ValueError(
        f"Found no starting point with a finite potential and gradient for {int((~_usable(state)).sum())} of "
        f"{num_chains} chains in {MAX_ROUNDS} rounds of {DRAWS_PER_ROUND} draws or more. Look for NaN or infinite "
        "scores in log_ratio(generator(z)), or pass initial_params."
    )


def _replaced(old: Tensor | None, rows: Tensor, new: Tensor | None, source: Tensor) -> Any:
    if old is None or new is None:
        return None
    return old.index_copy(0, rows, new[source])


def _usable(state: State) -> Tensor:
    finite = torch.isfinite(state.potential)
    return finite if state.grad is None else finite & torch.isfinite(state.grad).all(-1)
