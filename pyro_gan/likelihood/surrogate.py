"""The surrogate likelihood: the lower bound that the optimal transport coupling of an entropic GAN gives."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import by_chunk
from pyro_gan.checks import count
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
from pyro_gan.likelihood.proposals import Guide, check_proposal, guide_log_weights

__all__ = ["Surrogate"]


@final
class Surrogate(Estimator):
    r"""The evidence lower bound of the coupling, the entropic GAN's surrogate likelihood.

    .. math:: L_Q(y) = \log C - \tfrac1\lambda \mathbb{E}_Q[\ell(y, G(z))] - \mathrm{KL}(Q \Vert p_0)
        \;\le\; \log f(y)

    The gap is the divergence of Q from the model's posterior. It closes where the generator fits the data as well as it
    can, and is wide before: the surrogate of a half-trained generator says little about its likelihood.

    A `Coupling` weighs draws of the prior by :math:`w \propto e^{-(\ell + D_2)/\lambda}`, with :math:`\sum w = 1`. The
    value is :math:`\log C - \sum_k w_k \ell_k / \lambda - \sum_k w_k \log(K w_k)`. For given draws it is at most the
    importance-weighted value of the prior on the same draws, which is the optimum of this expression over w. Hence it
    is a lower bound on average for every potential and every number of particles. With an explicit guide the value is
    the plain average of log weights over its draws.

    The score published with the paper is something else: it weighs prior draws by the prior's density once more, takes
    the discrete entropy of the weights and has no constants, so it is no bound and no log density.

    Args:
        coupling: A `Coupling`, or an explicit guide as for `ImportanceWeighted`.
        num_particles: K.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Entropic GANs meet VAEs: A Statistical Approach to Compute Sample Likelihoods in GANs, Y. Balaji, H. Hassani,
        R. Chellappa and S. Feizi, 2019, https://arxiv.org/abs/1810.04147

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.likelihood import EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> surrogate = Surrogate(Coupling(lambda x: 0.1 * x.square().sum(-1)))
        >>> surrogate(model, torch.zeros(5, 3)).is_bound
        'lower'
    """

    is_differentiable = True

    def __init__(self, coupling: Coupling | Guide, *, num_particles: int = 1000) -> None:
        if isinstance(coupling, str | Laplace):
            raise ValueError(
                f"Expected a Coupling or an explicit guide; got {coupling!r}, which belongs into ImportanceWeighted."
            )
        check_proposal(coupling, "coupling")
        self.coupling = coupling
        self.num_particles = count("num_particles", num_particles)

    def estimate(self, model: LatentLikelihood, y: Tensor, *, shared: bool) -> LikelihoodEstimate:
        """Return the surrogate, differentiable in y."""
        blocks = data_blocks(y, self.num_particles)
        if not isinstance(self.coupling, Coupling):
            weights = guide_log_weights(self.coupling, model, blocks, self.num_particles, shared=shared)
            return joined([_averaged(block) for block in weights])
        x = model.decode(model.prior.sample((self.num_particles,)))
        potential = by_chunk(self.coupling, x, model.chunk_size) / model.regularization
        return joined([_weighted(model.pairwise_log_likelihood(x, block), potential) for block in blocks])

    def __repr__(self) -> str:
        return f"Surrogate({type(self.coupling).__name__}, num_particles={self.num_particles})"


def _weighted(
    log_likelihood: Float[Tensor, "datum particle"], potential: Float[Tensor, " particle"]
) -> LikelihoodEstimate:
    """Return the value by weighted draws of the prior; the potential comes divided by lambda."""
    log_weights = log_likelihood - potential
    estimate = from_log_weights(log_weights, "lower")
    # Normalised to sum 1. The value is log mean e^{-(l + D2)/lambda} plus the mean of D2 / lambda under w.
    share = torch.softmax(log_weights, -1)
    mean = (share * potential).sum(-1)
    # Where no particle has any weight, there is nothing to average, and the value is minus infinity.
    has_weight = torch.isfinite(estimate.value)
    value = torch.where(has_weight, estimate.value + mean, estimate.value)
    # Delta method: how much each particle's term moves the sum of both parts.
    num = log_weights.shape[-1]
    influence = num * share * (1 + potential - mean[..., None]) - 1
    standard_error = influence.square().mean(-1).div(max(num - 1, 1)).sqrt()
    # Without any weight, or with one particle, the error is that of the log mean weight: infinite, or NaN.
    known = has_weight & (num > 1)
    return estimate._replace(value=value, standard_error=torch.where(known, standard_error, estimate.standard_error))


def _averaged(log_weights: Float[Tensor, "datum particle"]) -> LikelihoodEstimate:
    refuse_nan(log_weights)
    num = log_weights.shape[-1]
    value = log_weights.mean(-1)
    standard_error = log_weights.std(-1) / math.sqrt(num) if num > 1 else torch.full_like(value, math.nan)
    # There are no weights: all draws count alike.
    return LikelihoodEstimate(value, standard_error, torch.full_like(value, float(num)), "lower")
