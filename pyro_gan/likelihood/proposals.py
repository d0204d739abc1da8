"""Proposals over latents given data: explicit guides, with noise shared between data points or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pyro.distributions as dist
import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import check_eval
from pyro_gan._random import own_generators
from pyro_gan.checks import shown
from pyro_gan.likelihood.estimator import LatentLikelihood
from pyro_gan.likelihood.laplace import Laplace

__all__ = ["Guide", "Proposal", "check_proposal", "guide_log_weights"]

#: Data `(datum, *event)` to a distribution over latents with batch shape `(datum,)`, with a density.
Guide = Callable[[Tensor], td.Distribution]
Proposal = str | Guide | Laplace


def check_proposal(proposal: Any, name: str) -> None:
    """Raise unless it is "prior", a callable or a `Laplace`, and no network in training mode."""
    is_word = isinstance(proposal, str) and proposal == "prior"
    if not is_word and (not callable(proposal) or isinstance(proposal, type)):
        raise ValueError(
            f"Expected the {name} to be 'prior', Laplace(), or a callable from data (datum, *event) to a distribution "
            f"over latents; got {shown(proposal)}."
        )
    check_eval(proposal, name)


def guide_log_weights(
    proposal: Guide | Laplace, model: LatentLikelihood, blocks: Sequence[Tensor], num_particles: int, *, shared: bool
) -> list[Float[Tensor, "datum particle"]]:
    """Return `log f(y | z) + log p0(z) - log q(z | y)` of draws of an explicit guide, for each block of data.

    Args:
        proposal: The guide, or how to make one.
        model: The model.
        blocks: Data, `(datum, *event)` each.
        num_particles: Draws for each data point.
        shared: Whether all data points are drawn for with the same noise, so that the value of a data point does not
            depend on the others.

    Raises:
        ValueError: if the guide has no density, or another shape than the latents'.
    """
    parts = []
    for index, y in enumerate(blocks, 1):
        # Shared noise starts each block from the same state; only the last block moves it on.
        with own_generators() if shared and index < len(blocks) else nullcontext():
            guide = proposal.fit(model, y) if isinstance(proposal, Laplace) else proposal(y)
            _check_guide(guide, model, len(y))
            z = _draw(guide, num_particles, shared=shared)
            try:
                log_q = guide.log_prob(z)
            except NotImplementedError as error:
                raise _no_density(guide) from error
            weights = model.log_likelihood(z.transpose(0, 1), y) + _log_prior(model, z.transpose(0, 1))
            parts.append(weights - log_q.transpose(0, 1))
    return parts


def _check_guide(guide: Any, model: LatentLikelihood, num_data: int) -> None:
    innermost = guide
    while isinstance(innermost, td.Independent | td.TransformedDistribution):
        innermost = innermost.base_dist
    # The log_prob of a Delta is that of a point mass, and a masked distribution leaves terms out. Neither is a density,
    # and weights that divide by one would bound nothing.
    not_normalised = isinstance(innermost, dist.Delta | dist.MaskedDistribution)
    has_density = isinstance(guide, td.Distribution) and not not_normalised
    if not (has_density and getattr(guide, "has_density", True)):
        raise _no_density(guide)
    expected = (torch.Size([num_data]), model.prior.event_shape)
    if (guide.batch_shape, guide.event_shape) != expected:
        raise ValueError(
            f"Expected a guide with batch_shape {tuple(expected[0])} and event_shape {tuple(expected[1])} for "
            f"{num_data} data points; got {tuple(guide.batch_shape)} and {tuple(guide.event_shape)}. Move dimensions "
            "into the event: dist.Normal(loc, scale).to_event(1)."
        )


def _no_density(guide: Any) -> ValueError:
    return ValueError(
        f"Expected an explicit guide, a distribution with a density; got {type(guide).__name__}. Importance weights "
        "divide by the proposal's density, which an implicit guide does not have: train an explicit encoder (a normal "
        "or a flow), or take Laplace() or AnnealedImportance, which need no guide."
    )


def _draw(guide: td.Distribution, num: int, *, shared: bool) -> Float[Tensor, "particle datum *latent"]:
    base = guide
    transforms: list[Any] = []
    while isinstance(base, td.Independent | td.TransformedDistribution):
        if isinstance(base, td.TransformedDistribution):
            transforms = [*base.transforms, *transforms]
        base = base.base_dist

    if not (shared and isinstance(base, td.Normal | td.MultivariateNormal)):
        # For other families, data in the same places of the same batch still have the same noise under a fixed seed.
        return guide.rsample((num,)) if guide.has_rsample else guide.sample((num,))
    noise = torch.randn((num, 1, *base.loc.shape[1:]), dtype=base.loc.dtype, device=base.loc.device)
    if isinstance(base, td.Normal):
        z = base.loc + base.scale * noise
    else:
        z = base.loc + (base.scale_tril @ noise[..., None])[..., 0]
    for transform in transforms:
        z = transform(z)
    return z


def _log_prior(model: LatentLikelihood, z: Float[Tensor, "datum particle *latent"]) -> Tensor:
    support = model.prior.support
    assert support is not None
    inside = support.check(z)
    if bool(inside.all()):
        return model.prior.log_prob(z)
    # A normal guide reaches beyond a bounded prior: such draws have no weight.
    somewhere = model.prior.sample(z.shape[:2])
    mask = inside.reshape(inside.shape + (1,) * (z.dim() - inside.dim()))
    return model.prior.log_prob(torch.where(mask, z, somewhere)).masked_fill(~inside, -torch.inf)
