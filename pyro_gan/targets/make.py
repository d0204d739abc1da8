"""Makes the target of a model or of a bare potential."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_gan import checks
from pyro_gan._typing import BatchedPotential, Params
from pyro_gan.targets.base import Target, WeightedTarget, check_weighted
from pyro_gan.targets.model import ModelTarget
from pyro_gan.targets.potential import PotentialTarget
from pyro_gan.targets.program import ProgramTarget

__all__ = ["check_model", "check_transforms", "make_target", "make_weighted_target"]


def make_target(
    model: Any,
    potential_fn: Callable[[Params], Tensor] | None = None,
    *,
    args: tuple[Any, ...] = (),
    context: Mapping[str, Any] = MappingProxyType({}),
    prototype: Params | None = None,
    batched: bool = True,
) -> Target:
    """Build the target of a kernel's `model` or `potential_fn`.

    Args:
        model: A model with its own batched potential, any other Pyro model, or None. A target is returned as it is.
        potential_fn: A bare potential, or None.
        args: The model's positional arguments.
        context: The model's keyword arguments.
        prototype: Values of one chain; needed for a bare potential.
        batched: Whether a bare potential takes a batch of chains.

    Returns:
        The target.

    Raises:
        ValueError: if the model is missing or cannot be sampled, if there are arguments that it does not take, or if a
            bare potential comes without a starting point.
    """
    check_model(model, potential_fn)
    checks.instance("args", args, tuple)
    checks.instance("context", context, Mapping)
    if (isinstance(model, Target) or model is None) and (args or context):
        raise ValueError(
            f"Expected no arguments for a {'bare potential_fn' if model is None else 'target'}; got {len(args)} "
            f"positional and {len(context)} keyword arguments. It takes the sites only: leave them out."
        )
    if isinstance(model, Target):
        return model
    if isinstance(model, BatchedPotential):
        if args:
            raise ValueError(
                f"Expected the arguments of a model with its own batched potential as keywords; got {len(args)} "
                "positional."
            )
        return ModelTarget(model, dict(context))
    if model is not None:
        return ProgramTarget(model, args, dict(context))
    assert potential_fn is not None
    if prototype is None or not checks.instance("prototype", prototype, Mapping):
        raise ValueError(
            "Expected initial_params={site: values} with a bare potential_fn, which has no prior; got none."
        )
    return PotentialTarget(potential_fn, prototype, batched=batched)


def make_weighted_target(
    model: Any, args: tuple[Any, ...] = (), context: Mapping[str, Any] = MappingProxyType({})
) -> WeightedTarget:
    """Build the target of a model whose prior and weight must be known separately.

    Args:
        model: A Pyro model, or a target.
        args: The model's positional arguments.
        context: The model's keyword arguments.

    Raises:
        ValueError: as for `make_target`; for a target without a known prior.
    """
    return check_weighted(make_target(model, args=args, context=context))


def check_model(model: Any, potential_fn: Any = None) -> None:
    """Raise unless there is either a model, which may be a target, or a bare potential.

    Raises:
        ValueError: if both or neither are given, or the one that is given is of another kind.
    """
    if (model is None) == (potential_fn is None):
        raise ValueError(
            f"Expected exactly one of model and potential_fn; got {'neither' if model is None else 'both'}."
        )
    if potential_fn is not None:
        checks.function("potential_fn", potential_fn)
    elif not isinstance(model, Target | BatchedPotential) or isinstance(model, type):
        checks.function("model", model, cure="A model is a Pyro program, such as LatentPosterior or a function.")


def check_transforms(transforms: Any, model: Any, initial_params: Params | None) -> None:
    """Raise unless transforms from constrained to unconstrained values, if there are any, fit a bare potential.

    Args:
        transforms: By site; None for none.
        model: The kernel's model, or None if it has a bare potential.
        initial_params: The starting points, whose sites are those of a bare potential.

    Raises:
        ValueError: if there is a model, whose own transforms have their Jacobians in the potential; if the transforms
            are no dict of transforms, or one is of an unknown site.
    """
    if transforms is None:
        return
    cure = "For instance {'z': biject_to(constraints.positive).inv}."
    for site, transform in checks.instance("transforms", transforms, Mapping, cure=cure).items():
        checks.instance(f"the transform of site {site!r}", transform, Transform, cure=cure)
    if model is not None:
        raise ValueError(
            f"Expected transforms with a bare potential_fn only; got those of {sorted(transforms)} beside a model, "
            "which knows its own and has their Jacobians in its potential. Leave them out, or make them part of the "
            "prior: dist.TransformedDistribution(...)."
        )
    sites = sorted(initial_params) if isinstance(initial_params, Mapping) else sorted(transforms)
    if unknown := sorted(set(transforms) - set(sites)):
        raise ValueError(
            f"Expected transforms of the sites {sites} of initial_params; got one of {unknown}. Rename it."
        )
