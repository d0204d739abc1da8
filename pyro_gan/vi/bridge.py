"""From an encoder to samplers: where chains start, and what may be proposed, exactly or only approximately."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_gan._typing import BatchedPotential
from pyro_gan.distributions.implicit import Implicit
from pyro_gan.vi._sites import layers
from pyro_gan.vi.guides import Encoder
from pyro_gan.vi.ratios import CodeRatio

__all__ = ["ApproximateProposal", "encoder_proposal", "encoder_starts"]


@torch.no_grad()
def encoder_starts(
    encoder: Encoder, x: Float[Tensor, "chain *event"], *, model: BatchedPotential
) -> dict[str, Tensor]:
    """Draw where chains start: one latent from q(z|x) for each real datum, as `initial_params`.

    A start need not have the target's law, so an implicit encoder serves as well as an explicit one: warmup is for
    what is left.

    Args:
        encoder: A guide with `conditional(x)`.
        x: Real data, one for each chain.
        model: What will be sampled, such as `LatentPosterior`; of one site.

    Returns:
        Unconstrained latents, `{site: (chain, *latent)}`.

    Raises:
        ValueError: if the model has another number of sites than one, or an encoding is outside its support.

    Example:
        >>> from pyro_gan import LatentPosterior
        >>> from pyro_gan.vi import GaussianGuide
        >>> prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> gan = LatentPosterior(torch.nn.Linear(2, 3), lambda x: -x.square().sum(-1), prior)
        >>> encoder_starts(GaussianGuide(torch.nn.Linear(3, 4), dim=2), torch.zeros(5, 3), model=gan)["z"].shape
        torch.Size([5, 2])
    """
    if len(model.transforms) != 1:
        raise ValueError(f"Expected a model of one latent site; got {sorted(model.transforms)}.")
    ((site, to_unconstrained),) = model.transforms.items()
    z = encoder.conditional(x).sample()
    start = to_unconstrained(z)
    # Transforms clamp what is outside their domain, so it does not come back.
    if not torch.isclose(to_unconstrained.inv(start), z, rtol=1e-3, atol=1e-3).all():
        raise ValueError(
            f"Expected encodings in the support of {site!r}; got some outside. End the encoder in a map onto the "
            "support, such as a sigmoid."
        )
    return {site: start}


@torch.no_grad()
def encoder_proposal(encoder: Encoder, x: Float[Tensor, "datum *event"]) -> TorchDistribution:
    r"""Return the mixture :math:`\frac1N \sum_i q(z|x_i)` of an explicit encoder, with its exact density.

    As the `proposal` of `IndependenceMH` or in importance weights it changes how fast one arrives and never where. It
    must cover the target: an encoder narrower than the posterior has weights without a variance.

    Args:
        encoder: A guide whose `conditional(x)` has a density, such as `GaussianGuide`.
        x: Data, `(datum, *event)`; scoring a proposal takes time in proportion to their number.

    Returns:
        A distribution of latents with `batch_shape ()`, a fixed one: later training of the encoder does not move it.

    Raises:
        ValueError: if the encoder is implicit.

    Example:
        >>> from pyro_gan.vi import GaussianGuide
        >>> proposal = encoder_proposal(GaussianGuide(torch.nn.Linear(3, 4), dim=2), torch.zeros(5, 3))
        >>> proposal.sample((7,)).shape, proposal.log_prob(torch.zeros(7, 2)).shape
        (torch.Size([7, 2]), torch.Size([7]))
    """
    conditional = encoder.conditional(x)
    if any(isinstance(layer, Implicit) for layer in layers(conditional)):
        raise ValueError(
            "Expected an encoder with a density; got an implicit one, whose proposals cannot be scored exactly. "
            "ApproximateProposal(encoder, ratio=T, ...) scores them by a learned ratio."
        )
    even = torch.zeros(conditional.batch_shape, dtype=x.dtype, device=x.device)
    return dist.MixtureSameFamily(dist.Categorical(logits=even), conditional)


@final
class ApproximateProposal(TorchDistribution):
    r"""An implicit encoder as a proposal, scored by a learned ratio: chains with it are near their target, not on it.

    .. math:: \log \hat q(z) = T(z) + \log p_0(z)
        \quad\text{or}\quad \log \tfrac1N \textstyle\sum_i e^{T(x_i, z)} + \log p_0(z)

    for a ratio of latents or of latents and data. What a chain or a set of weights then leaves invariant is not the
    target :math:`\pi` but what is proportional to :math:`\pi\, q / \hat q`, and no one knows :math:`q / \hat q`: the
    error of T goes straight into the result, and more draws do not mend it. Hence `exact` is False, and an estimate
    made with it bounds nothing in any known direction: `is_bound` is None. Chains that only *start* at an implicit
    encoder (`encoder_starts`) are exact.

    Args:
        encoder: A guide with `conditional(x)`.
        ratio: The trained ratio of that encoder.
        x: Data that proposals are drawn from, `(datum, *event)`. A ratio of latents alone has learnt the law of
            encodings of all training data: pass many.
        prior: p0(z), `batch_shape ()`.

    Attributes:
        exact: False.
        is_bound: None.

    Raises:
        ValueError: if the prior has a batch shape, or there is no datum.

    References:
        Hierarchical Implicit Models and Likelihood-Free Variational Inference, D. Tran et al., 2017,
        https://arxiv.org/abs/1702.08896

    Example:
        >>> from pyro_gan.vi import AggregatedRatio, ImplicitGuide, Joined
        >>> prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> encoder = ImplicitGuide(Joined(torch.nn.Linear(3 + 2, 2)), prior, event_shape=(2,))
        >>> ratio = AggregatedRatio(torch.nn.Linear(2, 1))
        >>> proposal = ApproximateProposal(encoder, ratio=ratio, x=torch.randn(50, 3), prior=prior)
        >>> proposal.log_prob(proposal.sample((7,))).shape, proposal.exact
        (torch.Size([7]), False)
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    #: The density is learned.
    exact = False
    #: Of an estimate made with it nobody knows on which side of the truth it lies.
    is_bound = None

    def __init__(
        self,
        encoder: Encoder,
        *,
        ratio: CodeRatio,
        x: Float[Tensor, "datum *event"],
        prior: TorchDistribution,
    ) -> None:
        if prior.batch_shape:
            raise ValueError(
                f"Expected a prior with batch_shape (); got {tuple(prior.batch_shape)}. Use .to_event()."
            )
        if x.dim() < 2 or not len(x):
            raise ValueError(f"Expected data of shape (datum, *event), at least one; got {tuple(x.shape)}.")
        self.encoder, self.ratio, self.x, self.prior = encoder, ratio, x, prior
        super().__init__(torch.Size(), prior.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """The prior's support."""
        return self.prior.support

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*sample_and_latent"]:
        """Encode data drawn at random, with replacement.

        Args:
            sample_shape: Left dimensions.

        Returns:
            Latents, `(*sample, *latent)`.
        """
        shape = torch.Size(sample_shape)
        chosen = torch.randint(len(self.x), (shape.numel(),), device=self.x.device)
        return self.encoder.conditional(self.x[chosen]).sample().reshape(shape + self.event_shape)

    @torch.no_grad()
    def log_prob(self, value: Float[Tensor, "*sample_and_latent"]) -> Float[Tensor, "*sample"]:
        """Return the estimate of log q, in nats.

        Args:
            value: Latents, `(*sample, *latent)`.
        """
        left = value.shape[: value.dim() - len(self.event_shape)]
        z = value.reshape(-1, *self.event_shape)
        if self.ratio.uses_data:
            each = [self.ratio(z, datum.expand(len(z), *datum.shape)) for datum in self.x]
            log_ratio = torch.stack(each).logsumexp(0) - math.log(len(each))
        else:
            log_ratio = self.ratio(z)
        return (log_ratio + self.prior.log_prob(z)).reshape(left)
