"""What an estimate of a log likelihood holds, the model it is of, and the base class of the estimators."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, final, runtime_checkable

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_gan._typing import Params
from pyro_gan.checks import shown
from pyro_gan.importance import log_mean_weight

__all__ = [
    "Bound",
    "Estimator",
    "LatentLikelihood",
    "LikelihoodEstimate",
    "check_model",
    "data_blocks",
    "from_log_weights",
    "joined",
    "refuse_nan",
]

Bound = Literal["lower", "upper"] | None

#: Log weights held at a time, data points times particles.
MAX_WEIGHTS = 1_000_000
#: An estimator warns below this many effective particles, or below a quarter of its particles if that is less.
MIN_ESS = 10.0


@final
class LikelihoodEstimate(NamedTuple):
    """Estimated log likelihoods of data, each with its error.

    Attributes:
        value: Nats, all constants included.
        standard_error: Of the value, by the delta method from the spread of the weights; NaN with one particle. It
            does not see regions without a particle: where the ESS is small, the error is underestimated too.
        ess: Effective particles, between 1 and their number; 0 if no particle has any weight.
        is_bound: "lower": the value's expectation is at most the exact log likelihood, and the value exceeds that by t
            nats with probability exp(-t) at most. The exception is a plain average (`Surrogate` of an explicit guide);
            it may exceed the exact value by as much as its standard error says. "upper" is the mirror image. None: no
            bound of either kind.
    """

    value: Float[Tensor, " datum"]
    standard_error: Float[Tensor, " datum"]
    ess: Float[Tensor, " datum"]
    is_bound: Bound


@runtime_checkable
class LatentLikelihood(Protocol):
    """A latent variable model as the estimators see it; `EntropicModel` is one."""

    prior: dist.TorchDistribution
    event_shape: torch.Size
    regularization: float
    chunk_size: int | None
    transforms: dict[str, Transform]
    site: str

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
        """Return `log f(y | z)` of unconstrained latents, with one data point for each."""

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior."""


class Estimator(ABC):
    """A way to estimate `log f(y)`, the log of an integral over latents; a subclass writes `estimate`.

    Attributes:
        num_particles: Particles that weigh a data point.
        is_differentiable: Whether `log_prob` exists: the value is a differentiable function of y once its base draws
            are fixed.
    """

    num_particles: int
    is_differentiable: bool = False

    def __call__(self, model: LatentLikelihood, y: Float[Tensor, "datum *event"]) -> LikelihoodEstimate:
        """Estimate the log likelihood of data under a model.

        Args:
            model: `EntropicGAN(...).model()`, or another with that interface.
            y: Data; one data point without its first dimension counts as a batch of one.

        Returns:
            Value, standard error, ESS and kind of bound.

        Raises:
            ValueError: if the data do not fit the model, or a likelihood is NaN.

        Warns:
            UserWarning: where the effective number of particles is small.
        """
        with torch.no_grad():
            estimate = self.estimate(model, _rows(model, y), shared=False)
        least = min(MIN_ESS, self.num_particles / 4)
        num_low = int((~(estimate.ess >= least)).sum())
        if num_low:
            warnings.warn(
                f"{self!r}: {num_low} of {len(estimate.ess)} data points have an effective sample size under "
                f"{least:.3g} of {self.num_particles} particles, the smallest {float(estimate.ess.min()):.2g}. These "
                "values rest on few particles: they are usually too low, and their standard errors too small. Take a "
                "proposal nearer to the posterior (a trained encoder, Laplace) or AnnealedImportance.",
                stacklevel=2,
            )
        return estimate

    @abstractmethod
    def estimate(
        self, model: LatentLikelihood, y: Float[Tensor, "datum *event"], *, shared: bool
    ) -> LikelihoodEstimate:
        """Return the estimate of checked data; callers use the estimator itself, which checks and warns.

        Args:
            model: The model.
            y: Data, `(datum, *event)`.
            shared: Whether all data points use the same base draws, so that the value of one does not depend on the
                others. An estimator that is not differentiable may ignore it.
        """

    def log_prob(self, model: LatentLikelihood, y: Float[Tensor, "datum *event"]) -> Float[Tensor, " datum"]:
        """Return the value alone, differentiable in y; all data share base draws from torch's generator.

        Raises:
            ValueError: if the value of this estimator is not a differentiable function of y.
        """
        if not self.is_differentiable:
            raise ValueError(
                f"{self!r} is not a differentiable function of y: it accepts, rejects or optimises on the way. Take "
                "ImportanceWeighted or Surrogate for log_prob, and this one for estimate(y, ...)."
            )
        return self.estimate(model, _rows(model, y), shared=True).value


def check_model(model: Any) -> LatentLikelihood:
    """Return a model that estimators can use, or raise."""
    if not isinstance(model, LatentLikelihood):
        raise ValueError(f"Expected a model such as EntropicGAN(...).model(); got {shown(model)}.")
    return model


def _rows(model: LatentLikelihood, y: Tensor) -> Tensor:
    y = check_model(model).check_data(y)
    return y if y.dim() > len(model.event_shape) else y[None]


def from_log_weights(log_weights: Float[Tensor, "datum particle"], is_bound: Bound) -> LikelihoodEstimate:
    """Return log mean weights with their errors.

    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    refuse_nan(log_weights)
    return LikelihoodEstimate(*log_mean_weight(log_weights), is_bound)


def joined(blocks: Sequence[LikelihoodEstimate]) -> LikelihoodEstimate:
    """Return the estimates of blocks of data as one."""
    value, error, ess, bounds = zip(*blocks, strict=True)
    return LikelihoodEstimate(torch.cat(value), torch.cat(error), torch.cat(ess), bounds[0])


def refuse_nan(log_weights: Float[Tensor, "datum particle"]) -> None:
    """Raise if a weight is NaN or infinite."""
    if bool((torch.isnan(log_weights) | torch.isposinf(log_weights)).any()):
        raise ValueError(
            "A likelihood is NaN: the generator returned NaN or infinity for a proposed latent. Find it with "
            "generator(z) on draws of the prior and of the proposal."
        )


def data_blocks(y: Tensor, num_particles: int) -> tuple[Tensor, ...]:
    """Split data so that a block's weights fit into memory."""
    return y.split(max(1, MAX_WEIGHTS // num_particles))
