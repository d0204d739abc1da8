"""The surrogate likelihood: the bound that the optimal transport coupling gives, as the entropic GAN paper has it."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import by_chunk
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
from pyro_gan.likelihood.proposals import Guide, check_proposal, guide_log_weights, shared_log_weights

__all__ = ["Surrogate"]


@final
class Surrogate(Estimator):
    r"""The evidence lower bound of the coupling, the entropic GAN's surrogate likelihood.

    .. math:: L_Q(y) = \log C - \tfrac1\lambda \mathbb{E}_Q[\ell(y, G(z))] - \mathrm{KL}(Q \Vert p_0)
        \;\le\; \log f(y)

    The gap is the divergence of Q from the model's posterior. It closes where the generator fits the data as well as it
    can, and is wide before: the surrogate of a half-trained generator says little about its likelihood.

    With a `Coupling` draws of the prior are weighed by :math:`w \propto e^{-(\ell + D_2)/\lambda}`, and with
    :math:`\sum w = 1` the value is :math:`\log C - \sum_k w_k \ell_k / \lambda - \sum_k w_k \log(K w_k)`. For given
    draws that is at most the importance-weighted value of the prior on the same draws (a sum of logs is at most its
    optimum over w), hence a lower bound on average whatever the potential, however few the particles. With an explicit
    guide the value is the plain average of log weights over its draws.

    Args:
        coupling: A `Coupling`, or an explicit guide as for `ImportanceWeighted`.
        num_particles: K.
        mode: "bound", or "paper" for the score published with the paper, for comparison with its figures only. That
            one weighs prior draws by the prior's density once more, takes the discrete entropy of the weights and has
            no constants: it is no bound of either kind and no log density.

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

    def __init__(self, coupling: Coupling | Guide, *, num_particles: int = 1000, mode: str = "bound") -> None:
        if num_particles < 1:
            raise ValueError(f"Expected num_particles of at least 1; got {num_particles}.")
        if mode not in ("bound", "paper"):
            raise ValueError(f"Expected mode 'bound' or 'paper'; got {mode!r}.")
        if mode == "paper" and not isinstance(coupling, Coupling):
            raise ValueError("Expected a Coupling with mode='paper', which weighs draws of the prior.")
        if isinstance(coupling, str | Laplace):
            raise ValueError(
                f"Expected a Coupling or an explicit guide; got {coupling!r}, which belongs into ImportanceWeighted."
            )
        if not isinstance(coupling, Coupling):
            check_proposal(coupling, "coupling")
        self.coupling = coupling
        self.mode = mode
        self._num_particles = num_particles

    @property
    def num_particles(self) -> int:
        """K."""
        return self._num_particles

    def log_prob(self, model: LatentLikelihood, y: Float[Tensor, "datum *event"]) -> Float[Tensor, " datum"]:
        """Return the surrogate, differentiable in y; all data share their base draws."""
        return self._run(model, y, shared=True).value

    def _estimate(self, model: LatentLikelihood, y: Tensor) -> LikelihoodEstimate:
        return self._run(model, y, shared=False)

    def _run(self, model: LatentLikelihood, y: Tensor, *, shared: bool) -> LikelihoodEstimate:
        blocks = data_blocks(y, self.num_particles)
        if isinstance(self.coupling, Coupling):
            z = model.prior.sample((self.num_particles,))
            x = model.decode(z)
            potential = by_chunk(self.coupling, x, model.chunk_size) / model.regularization
            parts = [
                self._weighed(model.pairwise_log_likelihood(x, block), potential, z, model.log_constant)
                for block in blocks
            ]
        else:
            guide: Any = self.coupling
            num = self.num_particles
            if shared:
                weights = shared_log_weights(guide, model, blocks, num)
            else:
                weights = [guide_log_weights(guide, model, block, num, shared=False) for block in blocks]
            parts = [_averaged(block) for block in weights]
        return joined(parts)

    def _weighed(
        self, log_likelihood: Tensor, potential: Tensor, z: Tensor, log_constant: float
    ) -> LikelihoodEstimate:
        log_weights = log_likelihood - potential
        if self.mode == "paper":
            return _published(log_likelihood - log_constant, log_weights, z)
        estimate = from_log_weights(log_weights, "lower")
        # Normalised to sum 1. The value is log mean e^{-(l + D2)/lambda} plus the mean of D2 / lambda under w.
        share = torch.softmax(log_weights, -1)
        mean = (share * potential).sum(-1)
        # Where no particle has any weight, nothing is to be averaged, and the value is minus infinity.
        has_weight = torch.isfinite(estimate.value)
        value = torch.where(has_weight, estimate.value + mean, estimate.value)
        # Delta method: how much each particle's term moves the two parts together.
        num = self.num_particles
        influence = num * share * (1 + potential - mean[..., None]) - 1
        standard_error = influence.square().mean(-1).div(max(num - 1, 1)).sqrt()
        standard_error = torch.where(has_weight, standard_error, estimate.standard_error)
        if num == 1:
            standard_error = torch.full_like(standard_error, math.nan)
        return LikelihoodEstimate(value, standard_error, estimate.ess, "lower")

    def __repr__(self) -> str:
        mode = "" if self.mode == "bound" else f", mode={self.mode!r}"
        return f"Surrogate({type(self.coupling).__name__}, num_particles={self.num_particles}{mode})"


def _averaged(log_weights: Float[Tensor, "datum particle"]) -> LikelihoodEstimate:
    refuse_nan(log_weights)
    num = log_weights.shape[-1]
    value = log_weights.mean(-1)
    standard_error = log_weights.std(-1) / math.sqrt(num) if num > 1 else torch.full_like(value, math.nan)
    # Nothing is weighed: every draw counts alike.
    return LikelihoodEstimate(value, standard_error, torch.full_like(value, float(num)), "lower")


def _published(log_likelihood: Tensor, log_weights: Tensor, z: Tensor) -> LikelihoodEstimate:
    """Return the published score; `log_likelihood` comes without its constant."""
    half_norm = 0.5 * z.flatten(1).square().sum(-1)
    refuse_nan(log_weights)
    log_share = torch.log_softmax(log_weights - half_norm, -1)
    share = log_share.exp()
    entropy = -(share * log_share).sum(-1)
    value = (share * (log_likelihood - half_norm)).sum(-1) + entropy
    ess = 1 / share.square().sum(-1)
    return LikelihoodEstimate(value, torch.full_like(value, math.nan), ess, None)
