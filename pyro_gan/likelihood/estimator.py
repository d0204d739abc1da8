"""What an estimate of a log likelihood says about itself, and what its estimators have in common."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_gan._typing import Params

__all__ = [
    "Estimator",
    "LatentLikelihood",
    "LikelihoodEstimate",
    "data_blocks",
    "from_log_weights",
    "joined",
    "refuse_nan",
]

Bound = Literal["lower", "upper"] | None

#: Log weights held at a time, data times particles.
MAX_WEIGHTS = 1_000_000
#: Effective particles below which a value rests on too few, where there are four times as many at least.
MIN_ESS = 10.0


class LikelihoodEstimate(NamedTuple):
    """Estimated log likelihoods of data, each with its error.

    Attributes:
        value: Nats, all constants included.
        standard_error: Of the value, by the delta method from the spread of the weights; NaN with one particle. It
            knows nothing of regions that no particle has seen: where the ESS is small, so is what it can tell.
        ess: Effective particles, between 1 and their number.
        is_bound: "lower": the value's expectation is at most the exact log likelihood, and it exceeds that by t nats
            with probability exp(-t) at most, but for a plain average (`Surrogate` of an explicit guide), whose
            excess its standard error tells. "upper" is the mirror image. None: no bound of either kind.
    """

    value: Float[Tensor, " datum"]
    standard_error: Float[Tensor, " datum"]
    ess: Float[Tensor, " datum"]
    is_bound: Bound


class LatentLikelihood(Protocol):
    """A latent variable model as the estimators see it; `EntropicModel` is one."""

    prior: dist.TorchDistribution
    event_shape: torch.Size
    regularization: float
    chunk_size: int | None
    transforms: dict[str, Transform]
    site: str

    @property
    def log_constant(self) -> float:
        """The log of the constant in `f(y | z)`, nats."""

    def decode(self, z: Tensor) -> Tensor:
        """Return the generated data of latents."""

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """Return `log f(y | z)`, latents `(datum, particle, *latent)` to `(datum, particle)`."""

    def pairwise_log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `log f(y | z)` of generated rows and data, `(datum, row)`."""

    def simulate(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """Draw latents and data from the joint model."""

    def check_data(self, y: Tensor) -> Tensor:
        """Return the data, or raise what is wrong with them."""

    def log_prior(self, params: Params) -> Tensor:
        """Return the prior's log density in unconstrained space."""

    def log_weight(self, params: Params, *, y: Tensor) -> Tensor:
        """Return `log f(y | z)` of unconstrained latents and a datum for each."""

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior."""


class Estimator(ABC):
    """A way to estimate `log f(y)`, the log of an integral over latents."""

    #: Whether `log_prob` exists: the value is a differentiable function of y once its base draws are fixed.
    is_differentiable: bool = False

    def __call__(self, model: LatentLikelihood, y: Float[Tensor, "datum *event"]) -> LikelihoodEstimate:
        """Estimate the log likelihood of data under a model.

        Args:
            model: `EntropicGAN(...).model()`, or another with that interface.
            y: Data; one datum without its first dimension counts as a batch of one.

        Returns:
            Value, standard error, ESS and kind of bound.

        Raises:
            ValueError: if the data do not fit the model, or a likelihood is NaN.

        Warns:
            UserWarning: where the effective number of particles is small.
        """
        y = model.check_data(y)
        rows = y if y.dim() > len(model.event_shape) else y[None]
        with torch.no_grad():
            estimate = self._estimate(model, rows)
        self._warn(estimate)
        return estimate

    @abstractmethod
    def _estimate(self, model: LatentLikelihood, y: Tensor) -> LikelihoodEstimate:
        """Estimate without gradient; `y` is `(datum, *event)`, checked."""

    def log_prob(self, model: LatentLikelihood, y: Float[Tensor, "datum *event"]) -> Float[Tensor, " datum"]:
        """Return the value alone, differentiable in y; base draws come from torch's generator and serve all data.

        Raises:
            ValueError: if this estimator's value is no differentiable function of y.
        """
        raise ValueError(
            f"{self!r} is no differentiable function of y: it accepts, rejects or optimises on the way. Take "
            "ImportanceWeighted or Surrogate for log_prob, and this one for estimate(y, ...)."
        )

    @property
    @abstractmethod
    def num_particles(self) -> int:
        """Particles that weigh a datum."""

    def _warn(self, estimate: LikelihoodEstimate) -> None:
        least = min(MIN_ESS, self.num_particles / 4)
        num_low = int((estimate.ess < least).sum())
        if num_low:
            warnings.warn(
                f"{self!r}: {num_low} of {len(estimate.ess)} data have an effective sample size under {least:.3g} of "
                f"{self.num_particles} particles, the smallest {float(estimate.ess.min()):.2g}: these values rest on "
                "few particles, are too low as a rule, and their standard errors are too small. Take a proposal "
                "nearer to the posterior (a trained encoder, Laplace) or AnnealedImportance.",
                stacklevel=3,
            )


def from_log_weights(log_weights: Float[Tensor, "datum particle"], is_bound: Bound) -> LikelihoodEstimate:
    """Return log mean weights with their errors.

    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    refuse_nan(log_weights)
    num = log_weights.shape[-1]
    total = torch.logsumexp(log_weights, -1)
    # Shifted first: a square of weights at -1000 nats has no digits left. No weight at all leaves no effective one.
    share = log_weights - torch.where(torch.isfinite(total), total, 0.0)[..., None]
    squares = torch.logsumexp(2 * share, -1)
    ess = torch.where(torch.isfinite(total), (-squares).exp().clamp(1.0, num), 0.0)
    variance = (num / ess - 1) / (num - 1) if num > 1 else torch.full_like(ess, math.nan)
    return LikelihoodEstimate(total - math.log(num), variance.clamp(min=0.0).sqrt(), ess, is_bound)


def joined(blocks: Sequence[LikelihoodEstimate]) -> LikelihoodEstimate:
    """Return the estimates of blocks of data as one."""
    return LikelihoodEstimate(
        torch.cat([block.value for block in blocks]),
        torch.cat([block.standard_error for block in blocks]),
        torch.cat([block.ess for block in blocks]),
        blocks[0].is_bound,
    )


def refuse_nan(log_weights: Float[Tensor, "datum particle"]) -> None:
    """Raise if a weight is NaN or infinite."""
    if bool((torch.isnan(log_weights) | torch.isposinf(log_weights)).any()):
        raise ValueError(
            "A likelihood is NaN: the generator gave NaN or infinity for a latent that was proposed. Find it with "
            "generator(z) on draws of the prior and of the proposal."
        )


def data_blocks(y: Tensor, num_particles: int) -> tuple[Tensor, ...]:
    """Split data so that a block's weights fit into memory."""
    return y.split(max(1, MAX_WEIGHTS // num_particles))
