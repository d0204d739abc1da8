"""Where chains start: the user's points, checked, or draws with a finite potential."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.metropolis import State
from pyro_gan.target import Target

__all__ = ["check_initial_params", "find_start", "start_at"]

#: Draws tried for a chain before giving up.
MAX_TRIES = 100

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
    """Draw a point for every chain, and again for those whose potential or gradient is not finite.

    Raises:
        ValueError: if a chain has found none after 100 draws.
    """
    z = draw(num_chains)
    state = evaluate(z)
    for _ in range(MAX_TRIES):
        bad = ~_usable(state)
        if not bad.any():
            return state
        z = z.clone()
        z[bad] = draw(int(bad.sum()))
        state = evaluate(z)
    raise ValueError(
        f"Found no starting point with a finite potential and gradient for {int(bad.sum())} of {len(bad)} chains "
        f"in {MAX_TRIES} draws. Look for NaN or infinite scores in log_ratio(generator(z)), or pass initial_params."
    )


def _usable(state: State) -> Tensor:
    finite = torch.isfinite(state.potential)
    return finite if state.grad is None else finite & torch.isfinite(state.grad).all(-1)
