"""Where chains start: at points that the user gives, or at draws with a finite potential."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.targets import State, Target
from pyro_gan.targets.base import check_sites

__all__ = ["check_finite", "check_params", "find_start", "given_params", "start_at"]

#: Rounds of draws before giving up, and least number of draws in a round: one chain may have to find a rare region.
MAX_ROUNDS, DRAWS_PER_ROUND = 100, 1000

Evaluate = Callable[[Tensor], State]


def given_params(params: Params) -> dict[str, Tensor]:
    """Return the user's starting points as a dictionary, or raise unless they are tensors by site."""
    checks.instance("initial_params", params, Mapping, cure="Pass {site: values}.")
    return {name: checks.tensor(f"initial_params[{name!r}]", value) for name, value in params.items()}


def check_params(name: str, params: Params, target: Target, num_chains: int | str | None) -> None:
    """Raise unless values by site have the target's sites, shapes and dtype.

    Args:
        name: What the error calls them.
        params: Unconstrained, `{site: (chain, *event)}`, or `{site: (*event)}` if `num_chains` is None.
        target: What is to be sampled.
        num_chains: Number of chains, a word for any number, or None for one chain without a chain dimension.
    """
    check_sites(name, params, target)
    lead = () if num_chains is None else (num_chains,)
    for site, shape in target.shapes.items():
        cure = f"Values are unconstrained{'' if num_chains is None else ', in one row for each chain'}."
        value = checks.shaped(f"{name}[{site!r}]", params[site], (*lead, *shape), cure=cure)
        if value.dtype != target.dtype:
            raise ValueError(f"Expected {name}[{site!r}] in the model's dtype {target.dtype}; got {value.dtype}.")


def check_finite(name: str, params: Params) -> None:
    """Raise unless values by site are finite."""
    for site, value in params.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"Expected finite {name}; got NaN or infinity in {site!r}.")


def start_at(z: Float[Tensor, "chain dim"], evaluate: Evaluate) -> State:
    """Return the state at points that the user gave.

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
    """Draw a point for each chain, and draw again while its potential or gradient is not finite.

    Raises:
        ValueError: if 100 rounds of at least a thousand draws each were not enough.
    """
    state = evaluate(draw(num_chains))
    for _ in range(MAX_ROUNDS):
        waiting = (~_usable(state)).nonzero().flatten()
        if not len(waiting):
            return state
        candidates = evaluate(draw(max(len(waiting), DRAWS_PER_ROUND)))
        found = _usable(candidates).nonzero().flatten()[: len(waiting)]
        waiting = waiting[: len(found)]
        state = state.put(waiting, candidates.take(found))
    raise ValueError(
        f"Found no starting point with a finite potential and gradient for {int((~_usable(state)).sum())} of "
        f"{num_chains} chains in {MAX_ROUNDS} rounds of at least {DRAWS_PER_ROUND} draws. Look for NaN or infinite "
        "scores in log_ratio(generator(z)), or pass initial_params."
    )


def _usable(state: State) -> Tensor:
    finite = torch.isfinite(state.potential)
    return finite if state.grad is None else finite & torch.isfinite(state.grad).all(-1)
