"""The importance-weighted bound: draws of a proposal, weighted to the posterior."""

from __future__ import annotations

from typing import final

from torch import Tensor

from pyro_gan.checks import count
from pyro_gan.likelihood.coupling import Coupling
from pyro_gan.likelihood.estimator import (
    Estimator,
    LatentLikelihood,
    LikelihoodEstimate,
    data_blocks,
    from_log_weights,
    joined,
)
from pyro_gan.likelihood.laplace import Laplace
from pyro_gan.likelihood.proposals import Proposal, check_proposal, guide_log_weights

__all__ = ["ImportanceWeighted"]


@final
class ImportanceWeighted(Estimator):
    r"""The log of the mean importance weight of K draws, a lower bound on average.

    .. math:: L_K(y) = \log \frac{1}{K} \sum_{k=1}^K \frac{p_0(z_k)\, f(y \mid z_k)}{q(z_k \mid y)}, \qquad
        \mathbb{E}\, L_K \le \log f(y)

    It rises with K to the exact value. If q is the posterior, it is exact for every K. With the prior as the proposal,
    all data share its K draws and one pass through the generator, so the errors of different data points are
    correlated. The prior is enough for a few latent dimensions or wide noise. A guide draws K for each data point.

    Args:
        proposal: "prior"; an explicit guide, from data `(datum, *event)` to a distribution over latents (a trained
            encoder, a closed form); or `Laplace()`.
        num_particles: K.

    Raises:
        ValueError: if the proposal is something else, or K is not positive.

    References:
        Importance Weighted Autoencoders, Y. Burda, R. Grosse and R. Salakhutdinov, 2016,
        https://arxiv.org/abs/1509.00519

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from pyro_gan.likelihood import EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> ImportanceWeighted(num_particles=1000)(model, torch.zeros(5, 3)).value.shape
        torch.Size([5])
    """

    def __init__(self, proposal: Proposal = "prior", *, num_particles: int = 1000) -> None:
        if isinstance(proposal, Coupling):
            raise ValueError(
                "Expected a proposal that can be drawn from; got a Coupling, which weighs draws of the prior. Weighted "
                "to the posterior its potential cancels, and the value is the same as the prior's: take "
                "proposal='prior', or the closed form LinearGaussian.coupling where there is one."
            )
        check_proposal(proposal, "proposal")
        self.proposal = proposal
        self.num_particles = count("num_particles", num_particles)
        # The mode that Laplace finds moves with y, and no gradient goes through the search.
        self.is_differentiable = not isinstance(proposal, Laplace)

    def estimate(self, model: LatentLikelihood, y: Tensor, *, shared: bool) -> LikelihoodEstimate:
        """Return the bound, differentiable in y and in the parameters of a guide."""
        blocks = data_blocks(y, self.num_particles)
        if isinstance(self.proposal, str):
            x = model.decode(model.prior.sample((self.num_particles,)))
            weights = [model.pairwise_log_likelihood(x, block) for block in blocks]
        else:
            weights = guide_log_weights(self.proposal, model, blocks, self.num_particles, shared=shared)
        return joined([from_log_weights(block, "lower") for block in weights])

    def __repr__(self) -> str:
        proposal = self.proposal if isinstance(self.proposal, str) else type(self.proposal).__name__
        return f"ImportanceWeighted({proposal}, num_particles={self.num_particles})"
