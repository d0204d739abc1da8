"""Finds what makes a prior and its networks unfit to define a target, by trying a few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gan._random import own_generators
from pyro_gan.checks import shown
from pyro_gan.probes import NUM_PROBED, probe_rows, unmoved

__all__ = ["check_parameters", "check_prior", "probe"]


def check_prior(prior: Any) -> constraints.Constraint:
    """Return the support of a prior, or raise unless it is one distribution over one continuous event."""
    if not isinstance(prior, TorchDistributionMixin):
        cure = "Pass one such as dist.Normal(0., 1.).expand([dim]).to_event(1)."
        raise ValueError(f"Expected prior to be a distribution of pyro.distributions; got {shown(prior)}. {cure}")
    if not prior.event_shape.numel():
        raise ValueError(
            f"Expected a prior of at least one dimension; got one of event_shape {tuple(prior.event_shape)}. Give it "
            "the latent shape of the generator: dist.Normal(0., 1.).expand([dim]).to_event(1)."
        )
    if prior.batch_shape or not prior.event_shape:
        raise ValueError(
            f"Expected a prior with batch_shape () and a vector event; got batch_shape {tuple(prior.batch_shape)} and "
            f"event_shape {tuple(prior.event_shape)}. Move dimensions into the event: "
            "dist.Normal(0., 1.).expand([dim]).to_event(1)."
        )
    if prior.support is None or prior.support.is_discrete:
        raise ValueError(f"Expected a prior over continuous latents; got the support {prior.support}.")
    # torch cannot transform a mixture's support under its own name, only that of the components. Older versions of
    # torch do not have the name.
    if type(prior.support).__name__ == "MixtureSameFamilyConstraint":
        return prior.support.base_constraint
    return prior.support


def probe(
    generator: Any, prior: torch.distributions.Distribution, run: Callable[[Tensor], tuple[Tensor, ...]], *networks: Any
) -> None:
    """Raise unless `run` is a deterministic, row-by-row function of prior draws, for any number of them.

    Args:
        generator: The generator, for the dtype and the device of its parameters.
        prior: The distribution of the draws; torch's generators are left as they were.
        run: Latents `(row, *latent)` to the generated data `(row, *event)`, and to log ratios `(row,)` if there is a
            critic.
        networks: The functions that `run` calls, whose running statistics must not move.

    Raises:
        ValueError: if shapes, dtypes or devices disagree; the networks draw noise, couple rows, write into their input,
            move statistics of their own or fail at some number of rows; or all values are NaN.
    """
    with own_generators(), torch.no_grad(), unmoved(*networks):
        z = prior.sample((NUM_PROBED,))
        cure = "Build the prior there: dist.Normal(torch.zeros(dim, dtype=..., device=...), 1.).to_event(1)."
        check_parameters("prior draws", generator, z, cure=cure)
        values = probe_rows(run, z, names=("generated data", "log ratio"))
        value, name = values[-1], "log ratio" if len(values) > 1 else "generated data"
        if torch.isnan(value).all():
            raise ValueError(f"The {name} is NaN for all of {len(value)} prior draws. Look at generator(z) first.")
        if len(values) > 1 and value.dtype != z.dtype:
            raise ValueError(
                f"Expected log ratios of the latents' dtype {z.dtype}; got {value.dtype}. "
                "Build prior, generator and critic in one dtype."
            )


def check_parameters(name: str, generator: Any, z: Tensor, *, cure: str) -> None:
    """Raise unless latents have the dtype and the device of a generator's parameters."""
    parameter = next(generator.parameters(), None) if isinstance(generator, nn.Module) else None
    if parameter is None or not parameter.is_floating_point() or torch.is_autocast_enabled():
        return
    if parameter.dtype != z.dtype or parameter.device != z.device:
        raise ValueError(
            f"Expected {name} of the generator's dtype and device, {parameter.dtype} on {parameter.device}; got "
            f"{z.dtype} on {z.device}. {cure}"
        )
