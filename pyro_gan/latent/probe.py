"""What makes a prior and a pair of networks unfit to define a target, found by trying a few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_gan._random import rng_fork

__all__ = ["ContextError", "check_prior", "probe"]


class ContextError(ValueError):
    """A network was called without a keyword that it needs, or with one that it does not take."""


def check_prior(prior: Any) -> None:
    """Raise unless the prior is one distribution over one vector-like event."""
    if not isinstance(prior, TorchDistributionMixin):
        raise ValueError(f"Expected prior to be a distribution of pyro.distributions; got {prior!r}.")
    if prior.batch_shape or not prior.event_shape:
        raise ValueError(
            f"Expected a prior with batch_shape () and a vector event; got batch_shape {tuple(prior.batch_shape)} and "
            f"event_shape {tuple(prior.event_shape)}. Move dimensions into the event: "
            "dist.Normal(0., 1.).expand([dim]).to_event(1)."
        )
    if prior.support is None or prior.support.is_discrete:
        raise ValueError(
            f"Expected a prior over continuous latents; got the support {prior.support} of {prior}."
        )


def probe(
    generator: Any, prior: torch.distributions.Distribution, run: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> None:
    """Raise unless `run` is a deterministic, row-by-row function of prior draws.

    Args:
        generator: For its parameters' dtype and device.
        prior: Draws come from it; torch's generators are left as they were.
        run: Latents `(batch, *latent)` to data `(batch, *event)` and log ratios `(batch,)`.

    Raises:
        ValueError: if shapes, dtypes or devices disagree, the networks draw noise or couple rows, or all scores are
            NaN.
    """
    with rng_fork(), torch.no_grad():
        z = prior.sample((8,))
        _check_parameters(generator, z)
        state = _rng_state(z)
        try:
            x, scores = run(z)
        except (TypeError, KeyError) as error:
            raise ContextError(
                f"The generator or the critic was called with other keywords than it takes: {error}. Give a "
                "conditional network its context by keyword, run(label=...); both networks get it, so wrap one that "
                "takes none: lambda x, label: critic(x)."
            ) from error
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"The generator and the log ratio cannot be run on latents of shape {tuple(z.shape)}, a batch of "
                f"{len(z)} draws of the prior: {error}. Give the prior the generator's latent shape, and the log "
                "ratio a critic that takes the generator's output."
            ) from error
        again_x, again = run(z)
        if not torch.equal(state, _rng_state(z)) or not _same(x, again_x) or not _same(scores, again):
            raise ValueError(
                "The generator or the critic draws noise of its own: the same latent has no one score. Make the noise "
                "part of the latent (a longer z), or fix it."
            )
        if torch.isnan(scores).all():
            raise ValueError(
                f"The log ratio is NaN for all of {len(z)} prior draws. Look at log_ratio(generator(z)) first."
            )
        if scores.dtype != z.dtype:
            raise ValueError(
                f"Expected log ratios of the latents' dtype {z.dtype}; got {scores.dtype}. "
                "Build prior, generator and critic in one dtype."
            )
        # Batch statistics other than BatchNorm's (minibatch discrimination, say) show when the neighbours change.
        if not _same(torch.cat([run(z[:3])[1], run(z[3:])[1]]), scores):
            raise ValueError(
                "A latent's score changes with the other rows of its batch: the networks compute batch statistics "
                "(minibatch discrimination?), so chains would not be independent. Replace that layer by one that "
                "works row by row."
            )


def _check_parameters(generator: Any, z: Tensor) -> None:
    parameter = next(generator.parameters(), None) if isinstance(generator, nn.Module) else None
    if parameter is None or not parameter.is_floating_point():
        return
    if parameter.dtype != z.dtype or parameter.device != z.device:
        raise ValueError(
            f"Expected prior draws of the generator's dtype and device, {parameter.dtype} on {parameter.device}; got "
            f"{z.dtype} on {z.device}. Build the prior there: "
            "dist.Normal(torch.zeros(dim, dtype=..., device=...), 1.).to_event(1)."
        )


def _rng_state(like: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(like.device) if like.is_cuda else torch.get_rng_state()


def _same(a: Tensor, b: Tensor) -> bool:
    # Kernels for other batch sizes add in another order; statistics of the batch move scores far more than that.
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True)
