"""What a traced site says: its latents and context as rows, its mask and scale, and whether it has a density."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyro_gan.distributions.implicit import Implicit
from pyro_gan.vi.ratios import CodeRatio

__all__ = [
    "carries_log_density",
    "check_same_terms",
    "context_rows",
    "is_implicit",
    "latent_rows",
    "layers",
    "sample_sites",
    "site_mask",
    "weigh",
]


def sample_sites(trace: Trace) -> dict[str, Any]:
    """Return a trace's sample sites by name."""
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def is_implicit(site: dict[str, Any]) -> bool:
    """Return whether a site's distribution, under whatever wraps it, has no density."""
    return any(isinstance(layer, Implicit) for layer in layers(site["fn"]))


def carries_log_density(site: dict[str, Any]) -> bool:
    """Return whether a site is a `Delta` that brings a log density of its own."""
    deltas = [layer for layer in layers(site["fn"]) if isinstance(layer, Delta)]
    return any(bool(torch.as_tensor(delta.log_density).ne(0).any()) for delta in deltas)


def latent_rows(site: dict[str, Any], value: Tensor | None = None) -> Tensor:
    """Return the site's value, or another of its shape, with its batch as one dimension, `(row, *event)`."""
    value = site["value"] if value is None else value
    return value.expand(site["fn"].shape()).reshape(-1, *site["fn"].event_shape)


def context_rows(site: dict[str, Any], ratio: CodeRatio) -> Tensor | None:
    """Return the data of each row, `(row, *event)`; None for a ratio that reads none.

    Raises:
        ValueError: if the ratio reads data and the site names none.
    """
    if not ratio.uses_data:
        return None
    name, batch = site["name"], site["fn"].batch_shape
    context, event_dim = site["infer"].get("context"), site["infer"].get("context_event_dim", 1)
    if context is None:
        for layer in layers(site["fn"]):
            if isinstance(layer, Implicit):
                context, event_dim = layer.expanded_context(), layer.context_event_dim
    if context is None:
        raise ValueError(
            f"The ratio at {name!r} reads data beside latents, and the site says of no data. Give an Implicit its "
            f"context, or write pyro.sample({name!r}, ..., infer={{'context': x}})."
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
    """Return the mask of handlers and of the distribution itself together.

    Raises:
        ValueError: if a distribution was masked before its dimensions became an event's.
    """
    mask, fn = site["mask"], site["fn"]
    while isinstance(fn, MaskedDistribution):
        mask = fn._mask if mask is None else mask & fn._mask
        fn = fn.base_dist
    if any(isinstance(layer, MaskedDistribution) for layer in layers(fn)):
        raise ValueError(
            f"A ratio is of a whole event, and a part of it is masked at {site['name']!r}. Mask after to_event()."
        )
    return mask


def weigh(log_ratio: Tensor, site: dict[str, Any]) -> Tensor:
    """Return the log ratio of each element with the site's scale and mask."""
    return scale_and_mask(log_ratio, site["scale"], site_mask(site))


def check_same_terms(name: str, site: dict[str, Any], prior_site: dict[str, Any]) -> None:
    """Raise unless the guide's site and the model's have one event shape, scale and mask: a ratio has one of each."""
    if site["fn"].event_shape != prior_site["fn"].event_shape:
        raise ValueError(
            f"Expected one event shape at {name!r} in model and guide; got {tuple(prior_site['fn'].event_shape)} and "
            f"{tuple(site['fn'].event_shape)}."
        )
    batch = site["fn"].batch_shape
    for what, theirs, ours in (
        ("scale", prior_site["scale"], site["scale"]),
        ("mask", site_mask(prior_site), site_mask(site)),
    ):
        if theirs is ours:  # by far the commonest, and it reads nothing from a device
            continue
        theirs, ours = (_expanded(1.0 if term is None else term, batch) for term in (theirs, ours))
        if not torch.equal(theirs, ours):
            raise ValueError(
                f"Expected one {what} at {name!r} in model and guide: a ratio cannot give log q another {what} than "
                "log p. Wrap the site alike in both."
            )


def _expanded(term: Any, batch: torch.Size) -> Tensor:
    term = torch.as_tensor(term).to(torch.float64)
    return term.expand(torch.broadcast_shapes(term.shape, batch)).cpu()


def layers(fn: Any) -> Iterator[Any]:
    """Yield a distribution and those it is wrapped around."""
    while fn is not None:
        yield fn
        fn = getattr(fn, "base_dist", None)
