"""From an encoder to samplers: starts of chains, and the exact mixture that an explicit encoder proposes from."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_gan._random import rng_fork
from pyro_gan._typing import BatchedPotential
from pyro_gan.checks import instance, rows, shaped
from pyro_gan.vi._sites import is_implicit
from pyro_gan.vi.guides import Encoder, check_encoder

__all__ = ["encoder_proposal", "encoder_starts"]


@torch.no_grad()
def encoder_starts(encoder: Encoder, x: Float[Tensor, "chain *event"], *, model: BatchedPotential) -> dict[str, Tensor]:
    """Draw a start for each chain, as `initial_params`: one latent from q(z|x) for each real data point.

    A start may come from any distribution, so an implicit encoder serves as well as an explicit one: warmup moves the
    chains to the target.

    Args:
        encoder: A guide with `conditional(x)`.
        x: Real data, one data point for each chain.
        model: The model to sample, such as `LatentPosterior`, with one latent site.

    Returns:
        Unconstrained latents, `{site: (chain, *latent)}`.

    Raises:
        ValueError: if the model does not have exactly one site, or a latent of the encoder has another shape or lies
            outside the support.

    Example:
        >>> from pyro_gan import LatentPosterior
        >>> from pyro_gan.vi import GaussianGuide
        >>> prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> gan = LatentPosterior(torch.nn.Linear(2, 3), lambda x: -x.square().sum(-1), prior)
        >>> encoder_starts(GaussianGuide(torch.nn.Linear(3, 4), dim=2), torch.zeros(5, 3), model=gan)["z"].shape
        torch.Size([5, 2])
    """
    check_encoder(encoder)
    instance("model", model, BatchedPotential, cure="Pass a model to sample, such as LatentPosterior(...).")
    if len(model.transforms) != 1:
        raise ValueError(f"Expected a model of one latent site; got {sorted(model.transforms)}.")
    ((site, to_unconstrained),) = model.transforms.items()
    z = encoder.conditional(rows("x", x)).sample()
    with rng_fork():
        wanted = to_unconstrained.inverse_shape(model.sample_prior(1)[site].shape[1:])
    cure = f"Build the encoder for latents of the shape that {site!r} has in the model."
    shaped("latents of the encoder", z, (len(x), *wanted), cure=cure)
    start = to_unconstrained(z)
    # Transforms clamp a value outside their domain, so it does not come back.
    if not torch.isclose(to_unconstrained.inv(start), z, rtol=1e-3, atol=1e-3).all():
        raise ValueError(
            f"Expected latents in the support of {site!r}; got some outside. End the encoder in a map onto the "
            "support, such as a sigmoid."
        )
    return {site: start}


@torch.no_grad()
def encoder_proposal(encoder: Encoder, x: Float[Tensor, "datum *event"]) -> TorchDistribution:
    r"""Return the mixture :math:`\frac1N \sum_i q(z|x_i)` of an explicit encoder, with its exact density.

    As the `proposal` of `IndependenceMH` or of importance weights it changes the speed of convergence and not the
    target. It must cover the target: if the encoder is narrower than the posterior, the weights have an infinite
    variance.

    Args:
        encoder: A guide whose `conditional(x)` has a density, such as `GaussianGuide`.
        x: Data, `(datum, *event)`; the cost of a density grows in proportion to their number.

    Returns:
        A distribution of latents with `batch_shape ()`. It is fixed: later training of the encoder does not change it.

    Raises:
        ValueError: if the encoder is implicit.

    Example:
        >>> from pyro_gan.vi import GaussianGuide
        >>> proposal = encoder_proposal(GaussianGuide(torch.nn.Linear(3, 4), dim=2), torch.zeros(5, 3))
        >>> proposal.sample((7,)).shape, proposal.log_prob(torch.zeros(7, 2)).shape
        (torch.Size([7, 2]), torch.Size([7]))
    """
    check_encoder(encoder)
    conditional = encoder.conditional(rows("x", x))
    if is_implicit(conditional):
        raise ValueError(
            "Expected an encoder with a density; got an implicit one, whose density is unknown. Use a GaussianGuide "
            "for proposals, or start chains at the implicit encoder with encoder_starts."
        )
    even = torch.zeros(conditional.batch_shape, dtype=x.dtype, device=x.device)
    return dist.MixtureSameFamily(dist.Categorical(logits=even), conditional)
