"""Which target a model or a bare potential gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_gan._typing import BatchedPotential, Params
from pyro_gan.targets.base import Target
from pyro_gan.targets.model import ModelTarget
from pyro_gan.targets.potential import PotentialTarget
from pyro_gan.targets.program import ProgramTarget

__all__ = ["make_target"]


def make_target(
    model: Any,
    potential_fn: Callable[[Params], Tensor] | None,
    *,
    prototype: Params | None,
    batched: bool,
    context: dict[str, Any],
    args: tuple[Any, ...] = (),
) -> Target:
    """Build the target of a kernel's `model` or `potential_fn`.

    Args:
        model: A model with its own batched potential, any other Pyro model, or None.
        potential_fn: A bare potential, or None.
        prototype: Values of one chain; needed for a bare potential.
        batched: Whether a bare potential takes a batch of chains.
        context: The model's keyword arguments.
        args: The model's positional arguments.

    Returns:
        The target.

    Raises:
        ValueError: if the model is none or unfit, if arguments come with what takes none, or a bare potential without
            a starting point.
    """
    if isinstance(model, BatchedPotential):
        if args:
            raise ValueError(
                f"Expected the arguments of a model with its own batched potential as keywords; got {len(args)} "
                "positional."
            )
        return ModelTarget(model, context)
    if model is not None:
        if not callable(model):
            raise ValueError(
                f"Expected a Pyro model, a callable such as LatentPosterior or a function; got {model!r}."
            )
        return ProgramTarget(model, args, context)
    if potential_fn is None:
        raise ValueError("Expected a model or a potential_fn; got neither.")
    if args or context:
        raise ValueError("Expected no arguments to run() with a bare potential_fn: it takes the sites only.")
    if not prototype:
        raise ValueError(
            "A bare potential_fn has no prior to start from: pass initial_params={site: values}."
        )
    return PotentialTarget(potential_fn, prototype, batched=batched)
