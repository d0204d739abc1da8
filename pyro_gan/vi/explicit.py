"""The likelihood of data around a generated mean: Laplace or Normal, of the data or of a network's features of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from pyro import distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_gan._typing import left_shape
from pyro_gan.checks import choice, count, function, real, shaped, tensor
from pyro_gan.vi._detached_call import call_detached

__all__ = ["ExplicitLikelihood"]

Family = Literal["laplace", "normal"]
Reduction = Literal["sum", "mean"]


@final
class ExplicitLikelihood:
    r"""A reconstruction loss, written as a log density.

    With weight :math:`\lambda` and :math:`d` numbers in a data point,

    .. math:: \log p(x|z) = -\lambda \|x - G(z)\|_1 + d \log\tfrac{\lambda}{2}
        \quad\text{or}\quad -\tfrac{\lambda}{2} \|x - G(z)\|_2^2 + \tfrac{d}{2} \log\tfrac{\lambda}{2\pi} :

    a Laplace distribution of scale :math:`1/\lambda`, or a Normal distribution of variance :math:`1/\lambda`. This
    holds for the *sum* over the numbers of a data point. Most published weights are for their mean, and
    :math:`\lambda_{sum} = \lambda_{mean} / d`: a weight of 20 on the mean of 784 pixels is a Laplace distribution of
    scale 39. Therefore `reduction` has no default.

    In feature space a network's features of :math:`x` and of :math:`G(z)` replace :math:`x` and :math:`G(z)`. The
    result is not a density of :math:`x`, so nothing built on it is a bound.

    Args:
        family: "laplace" or "normal".
        weight: :math:`\lambda`.
        reduction: Whether the weight multiplies the "sum" or the "mean" over the numbers of a data point (or of its
            features).
        features: `(row, *event) -> (row, *features)`, such as a discriminator's inner layers; None for the data. No
            gradient reaches its parameters.
        event_dim: Number of dimensions of one data point.

    Raises:
        ValueError: for another family or reduction, or a weight that is not positive.

    References:
        Autoencoding beyond pixels using a learned similarity metric, A. Larsen et al., 2016,
        https://arxiv.org/abs/1512.09300

    Example:
        >>> likelihood = ExplicitLikelihood("laplace", 3.0, reduction="sum")
        >>> likelihood.log_prob(torch.zeros(5, 2), torch.ones(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        family: Family,
        weight: float,
        *,
        reduction: Reduction,
        features: Callable[[Tensor], Tensor] | None = None,
        event_dim: int = 1,
    ) -> None:
        self.family = choice("family", family, get_args(Family))
        self.weight = real("weight", weight, above=0)
        self.reduction = choice("reduction", reduction, get_args(Reduction))
        self.features = None if features is None else function("features", features)
        self.event_dim = count("event_dim", event_dim, minimum=0)

    @property
    def is_density(self) -> bool:
        """Whether it is a density of the data."""
        return self.features is None

    def distribution(self, generated: Float[Tensor, "*batch_and_event"]) -> TorchDistribution:
        """Return the distribution of `observed(x)` around generated data; its batch shape is their left dimensions.

        Args:
            generated: Generated data, `(*batch, *event)`.
        """
        mean = self._seen(generated)
        event_dim = self.event_dim if self.features is None else 1
        weight = self.weight
        if self.reduction == "mean":
            weight = weight / mean.shape[mean.dim() - event_dim :].numel()
        if self.family == "laplace":
            return dist.Laplace(mean, 1 / weight).to_event(event_dim)
        return dist.Normal(mean, weight**-0.5).to_event(event_dim)

    def observed(self, x: Float[Tensor, "*batch_and_event"]) -> Float[Tensor, "*shape"]:
        """Return what the likelihood compares: the data, or their features, `(*batch, feature)`.

        Args:
            x: Data, `(*batch, *event)`.
        """
        if self.features is None:
            return tensor("data", x)
        with torch.no_grad():
            return self._seen(x)

    def log_prob(
        self, generated: Float[Tensor, "*batch_and_event"], x: Float[Tensor, "*batch_and_event"]
    ) -> Float[Tensor, "*batch"]:
        """Return the log density of data around generated data, in nats, with all constants.

        Args:
            generated: Generated data, `(*batch, *event)`.
            x: Data, `(*batch, *event)`.
        """
        self.check_events(generated, x)
        return self.distribution(generated).log_prob(self.observed(x))

    def check_events(self, generated: Tensor, x: Tensor) -> None:
        """Raise unless generated data points and data points have one shape, since other shapes might broadcast."""
        pair = tensor("generated data", generated), tensor("data", x)
        theirs, ours = (tuple(t.shape[max(t.dim() - self.event_dim, 0) :]) for t in pair)
        if theirs != ours or len(ours) != self.event_dim:
            raise ValueError(
                f"Expected generated data with the data's event shape {ours}; got {theirs}. Set event_dim to the "
                "number of dimensions of one data point."
            )

    def _seen(self, x: Tensor) -> Tensor:
        if self.features is None:
            return tensor("data", x)
        left = left_shape(shaped("data", x, ("*batch", *["size"] * self.event_dim)), self.event_dim)
        rows = call_detached(self.features, x.reshape(left.numel(), *x.shape[len(left) :]))
        return rows.reshape(*left, rows.shape[1:].numel())
