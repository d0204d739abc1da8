"""The importance-weighted bound: draws of a proposal, weighed to the posterior."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.likelihood.coupling import Coupling
from pyro_gan.likelihood.estimator import (
    Estimator,
    LatentLikelihood,
    LikelihoodEstimate,
    data_blocks,
    from_log_weights,
    joined,
    refuse_nan,
)
from pyro_gan.likelihood.laplace import Laplace
from pyro_gan.likelihood.proposals import Proposal, check_proposal, guide_log_weights, shared_log_weights

__all__ = ["ImportanceWeighted"]


@final
class ImportanceWeighted(Estimator):
    r"""The log of the mean importance weight of K draws, a lower bound on average.

    .. math:: L_K(y) = \log \frac{1}{K} \sum_{k=1}^K \frac{p_0(z_k)\, f(y \mid z_k)}{q(z_k \mid y)}, \qquad
        \mathbb{E}\, L_K \le \log f(y),

    which rises with K to the exact value; with q the posterior it is exact for every K. The prior as proposal shares
    its K draws among all data, one pass through the generator in all, so that the errors of different data go
    together. It does for a few latent dimensions or wide noise. A guide draws K for every datum.

    Args:
        proposal: "prior"; an explicit guide, from data `(datum, *event)` to a distribution over latents (a trained
            encoder, a closed form); or `Laplace()`.
        num_particles: K.

    Raises:
        ValueError: if the proposal is none of these, or K is not positive.

    References:
        Importance Weighted Autoencoders, Y. Burda, R. Grosse and R. Salakhutdinov, 2016,
        https://arxiv.org/abs/1509.00519

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.likelihood import EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> ImportanceWeighted(num_particles=1000)(model, torch.zeros(5, 3)).value.shape
        torch.Size([5])
    """

    def __init__(self, proposal: Proposal = "prior", *, num_particles: int = 1000) -> None:
        if isinstance(proposal, Coupling):
            raise ValueError(
                "Expected a proposal that can be drawn from; got a Coupling, which weighs draws of the prior. Weighed "
                "on to the posterior its potential cancels, and the value is the same as the prior's: take "
                "proposal='prior', or the closed form LinearGaussian.coupling where there is one."
            )
        check_proposal(proposal, "proposal")
        if num_particles < 1:
            raise ValueError(f"Expected num_particles of at least 1; got {num_particles}.")
        self.proposal = proposal
        self._num_particles = num_particles
        # The mode that Laplace finds moves with y, and no gradient follows it through the search.
        self.is_differentiable = not isinstance(proposal, Laplace)

    @property
    def num_particles(self) -> int:
        """K."""
        return self._num_particles

    def log_prob(self, model: LatentLikelihood, y: Float[Tensor, "datum *event"]) -> Float[Tensor, " datum"]:
        """Return the bound, differentiable in y and in the guide's parameters; all data share their base draws."""
        if not self.is_differentiable:
            return super().log_prob(model, y)
        blocks = self._log_weights(model, y, shared=True)
        for block in blocks:
            refuse_nan(block)
        return torch.cat([torch.logsumexp(block, -1) for block in blocks]) - math.log(self.num_particles)

    def _estimate(self, model: LatentLikelihood, y: Tensor) -> LikelihoodEstimate:
        blocks = [from_log_weights(block, "lower") for block in self._log_weights(model, y, shared=False)]
        return joined(blocks)

    def _log_weights(self, model: LatentLikelihood, y: Tensor, *, shared: bool) -> list[Tensor]:
        blocks = data_blocks(y, self.num_particles)
        if self.proposal == "prior":
            x = model.decode(model.prior.sample((self.num_particles,)))
            return [model.pairwise_log_likelihood(x, block) for block in blocks]
        assert not isinstance(self.proposal, str)
        if shared:
            return shared_log_weights(self.proposal, model, blocks, self.num_particles)
        return [
            guide_log_weights(self.proposal, model, block, self.num_particles, shared=False)
            for block in blocks
        ]

    def __repr__(self) -> str:
        proposal = self.proposal if isinstance(self.proposal, str) else type(self.proposal).__name__
        return f"ImportanceWeighted({proposal}, num_particles={self.num_particles})"
