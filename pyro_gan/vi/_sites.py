"""What a traced site holds: its latents and context as rows, its mask and scale, and whether it has a density."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyro_gan.distributions.implicit import Implicit
from pyro_gan.vi.ratios import LatentRatio

__all__ = [
    "carries_log_density",
    "check_same_terms",
    "contrast_rows",
    "is_implicit",
    "sample_sites",
    "site_mask",
    "site_rows",
]


def sample_sites(trace: Trace) -> dict[str, Any]:
    """Return a trace's sample sites by name."""
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def is_implicit(fn: Any) -> bool:
    """Return whether a distribution, or one that it wraps, has no density."""
    return any(isinstance(layer, Implicit) for layer in _layers(fn))


def carries_log_density(site: dict[str, Any]) -> bool:
    """Return whether a site is a `Delta` with a log density."""
    deltas = [layer for layer in _layers(site["fn"]) if isinstance(layer, Delta)]
    return any(bool(torch.as_tensor(delta.log_density).ne(0).any()) for delta in deltas)


def site_rows(site: dict[str, Any], ratio: LatentRatio) -> tuple[Tensor, Tensor | None]:
    """Return the latents of a site as rows, `(row, *latent)`, and the data of each row for a ratio that reads data."""
    return _latent_rows(site, site["value"]), _context_rows(site, ratio)


def _latent_rows(site: dict[str, Any], value: Tensor) -> Tensor:
    return value.expand(site["fn"].shape()).reshape(-1, *site["fn"].event_shape)


def contrast_rows(
    site: dict[str, Any], prior_site: dict[str, Any], ratio: LatentRatio
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what trains a ratio, without masked elements: the guide's latents, draws of the prior, and their data."""
    (z, x), prior_z = site_rows(site, ratio), _latent_rows(site, prior_site["fn"]())
    mask = site_mask(site)
    if not isinstance(mask, Tensor):
        return z, prior_z, x
    keep = mask.expand(site["fn"].batch_shape).reshape(-1)
    return z[keep], prior_z[keep], None if x is None else x[keep]


def _context_rows(site: dict[str, Any], ratio: LatentRatio) -> Tensor | None:
    """Return the data of each row, `(row, *event)`; None for a ratio that does not read data.

    Raises:
        ValueError: if the ratio reads data and the site has none.
    """
    if not ratio.uses_data:
        return None
    name, batch = site["name"], site["fn"].batch_shape
    context, event_dim = site["infer"].get("context"), site["infer"].get("context_event_dim", 1)
    if context is None:
        for layer in _layers(site["fn"]):
            if isinstance(layer, Implicit):
                context, event_dim = layer.expanded_context(), layer.context_event_dim
    if context is None:
        raise ValueError(
            f"Expected data at {name!r}, whose ratio reads data beside latents; got a site without them. Give an "
            f"Implicit its context, or write pyro.sample({name!r}, ..., infer={{'context': x}})."
        )
    left, event = context.shape[: context.dim() - event_dim], context.shape[context.dim() - event_dim :]
    try:
        context = context.expand(batch + event)
    except RuntimeError:
        raise ValueError(
            f"Expected a context at {name!r} whose left dimensions broadcast to the site's batch shape "
            f"{tuple(batch)}; got {tuple(left)} left of {tuple(event)}."
        ) from None
    return context.reshape(-1, *event)


def site_mask(site: dict[str, Any]) -> Tensor | bool | None:
    """Return the product of the masks of handlers and of the distribution.

    Raises:
        ValueError: if a distribution was masked before its dimensions became part of an event.
    """
    mask, fn = site["mask"], site["fn"]
    while isinstance(fn, MaskedDistribution):
        own = vars(fn)["_mask"]  # Pyro has no public name for it
        mask = own if mask is None else mask & own
        fn = fn.base_dist
    if any(isinstance(layer, MaskedDistribution) for layer in _layers(fn)):
        raise ValueError(
            f"Expected masks of whole events at {site['name']!r}, as a ratio is of one; got a mask of a part. "
            "Mask after to_event()."
        )
    return mask


def check_same_terms(name: str, site: dict[str, Any], prior_site: dict[str, Any]) -> None:
    """Raise unless the guide's site and the model's have the same event shape, scale and mask, as a ratio does."""
    if site["fn"].event_shape != prior_site["fn"].event_shape:
        raise ValueError(
            f"Expected one event shape at {name!r} in model and guide; got {tuple(prior_site['fn'].event_shape)} and "
            f"{tuple(site['fn'].event_shape)}."
        )
    theirs, ours = ((each["scale"], site_mask(each)) for each in (prior_site, site))
    if all(_equal_without_a_read(*pair) for pair in zip(theirs, ours, strict=True)):
        return
    ones = site["value"].new_ones(site["fn"].batch_shape, dtype=torch.float64)
    if not torch.equal(scale_and_mask(ones, *theirs), scale_and_mask(ones, *ours)):
        raise ValueError(
            f"Expected one scale and mask at {name!r} in model and guide; got two. A ratio cannot give log q another "
            "weight than log p. Wrap the site in the same way in both."
        )


def _equal_without_a_read(a: Any, b: Any) -> bool:
    """Return whether two scales or masks are known to be equal without waiting for a device."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


def _layers(fn: Any) -> Iterator[Any]:
    """Yield a distribution, the one that it wraps, and so on."""
    while fn is not None:
        yield fn
        fn = getattr(fn, "base_dist", None)
