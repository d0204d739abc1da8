"""The sandwich of a lower and an upper bound on the log likelihood, by annealing in both directions."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import count, shown
from pyro_gan.likelihood.annealed import AnnealedImportance
from pyro_gan.likelihood.estimator import LatentLikelihood, LikelihoodEstimate, check_model

__all__ = ["Sandwich", "SandwichEstimate"]


@final
class SandwichEstimate(NamedTuple):
    """Bounds on the log likelihoods of simulated data.

    Attributes:
        y: The data, drawn from the model.
        lower: A lower bound on average, by annealing up from the prior.
        upper: An upper bound on average, by annealing down from the latents that generated the data. All its particles
            start at one latent; its standard error covers only their moves after that.
    """

    y: Float[Tensor, "datum ..."]
    lower: LikelihoodEstimate
    upper: LikelihoodEstimate

    @property
    def gap(self) -> Float[Tensor, " datum"]:
        """Upper minus lower bound, nats; on average the error of either bound is at most this."""
        return self.upper.value - self.lower.value


@final
class Sandwich:
    r"""Bidirectional Monte Carlo: the error of `AnnealedImportance`, measured without knowing the likelihood.

    A latent and the data point simulated from it are an exact draw of that data point's posterior. Annealing from there
    to the prior estimates :math:`1 / f(y)` without bias, so minus the log of the mean weight is an upper bound on
    average. The error of either bound is at most the gap between them, and the gap closes as T grows. The gap is
    measured on data simulated from the model; it says as much about real data as those look like simulated data to the
    model.

    Args:
        estimator: Anneals in both directions; by default with 1000 temperatures and 16 particles. Its kernel must be
            reversible, as all kernels of this package are.

    Raises:
        ValueError: if the estimator is another one.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo, R. Grosse, Z. Ghahramani and R. Adams,
        2015, https://arxiv.org/abs/1511.02543

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.likelihood import AnnealedImportance, EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> estimator = AnnealedImportance(num_temperatures=20, num_particles=16)
        >>> Sandwich(estimator)(model, num_data=5).gap.shape
        torch.Size([5])
    """

    def __init__(self, estimator: AnnealedImportance | None = None) -> None:
        self.estimator = AnnealedImportance() if estimator is None else estimator
        if not isinstance(self.estimator, AnnealedImportance):
            raise ValueError(f"Expected estimator to be an AnnealedImportance; got {shown(estimator)}.")

    @torch.no_grad()
    def __call__(self, model: LatentLikelihood, num_data: int = 10) -> SandwichEstimate:
        """Simulate data from the model and bound their log likelihoods from both sides.

        Args:
            model: `EntropicGAN(...).model()`.
            num_data: Data points to simulate.

        Returns:
            The data and both bounds.

        Raises:
            ValueError: if `num_data` is not positive, or a likelihood is NaN.
        """
        z, y = check_model(model).simulate(count("num_data", num_data))
        schedule = self.estimator.schedule(model, y)
        lower = self.estimator.lower(model, y, schedule)
        return SandwichEstimate(y, lower, self.estimator.upper(model, z, y, schedule))

    def __repr__(self) -> str:
        return f"Sandwich({self.estimator!r})"
