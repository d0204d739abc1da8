"""The likelihood of data round a generated mean: Laplace or Normal, in data or in a network's features of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Float
from pyro import distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_gan.vi._frozen_call import call_frozen

__all__ = ["Observer"]

Family = Literal["laplace", "normal"]
Reduction = Literal["sum", "mean"]


@final
class Observer:
    r"""A reconstruction loss as the log density that it is.

    With weight :math:`\lambda` and :math:`d` numbers a datum,

    .. math:: \log p(x|z) = -\lambda \|x - G(z)\|_1 + d \log\tfrac{\lambda}{2}
        \quad\text{or}\quad -\tfrac{\lambda}{2} \|x - G(z)\|_2^2 + \tfrac{d}{2} \log\tfrac{\lambda}{2\pi} :

    a Laplace of scale :math:`1/\lambda`, a Normal of variance :math:`1/\lambda`. That holds for the *sum* over the
    numbers of a datum. Published weights are mostly for their mean, and :math:`\lambda_{sum} = \lambda_{mean} / d`: a
    weight of 20 on the mean of 784 pixels is a Laplace of scale 39. Hence `reduction` has no default.

    In feature space :math:`x` and :math:`G(z)` are replaced by a network's features of them. That is no density of
    :math:`x`, so nothing built on it is a bound.

    Args:
        family: "laplace" or "normal".
        weight: :math:`\lambda`.
        reduction: Whether the weight is that of the "sum" or of the "mean" over the numbers of a datum (or of its
            features).
        features: `(row, *event) -> (row, *features)`, such as a discriminator's inner layers; None for the data. No
            gradient reaches its parameters.
        event_dim: Number of dimensions of one datum.

    Raises:
        ValueError: for another family or reduction, or a weight that is not positive.

    References:
        Autoencoding beyond pixels using a learned similarity metric, A. Larsen et al., 2016,
        https://arxiv.org/abs/1512.09300

    Example:
        >>> observer = Observer("laplace", 3.0, reduction="sum")
        >>> observer.log_prob(torch.zeros(5, 2), torch.ones(5, 2)).shape
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
        if family not in ("laplace", "normal"):
            raise ValueError(f"Expected the family 'laplace' or 'normal'; got {family!r}.")
        if reduction not in ("sum", "mean"):
            raise ValueError(f"Expected the reduction 'sum' or 'mean'; got {reduction!r}.")
        if not 0 < weight < float("inf"):
            raise ValueError(f"Expected a positive, finite weight; got {weight}.")
        self.family, self.weight, self.reduction = family, weight, reduction
        self.features, self.event_dim = features, event_dim

    @property
    def is_density(self) -> bool:
        """Whether it is a density of the data."""
        return self.features is None

    def distribution(self, generated: Float[Tensor, "*batch_and_event"]) -> TorchDistribution:
        """Return the law of `observed(x)` round generated data, its batch shape their left dimensions.

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
        """Return what is observed of data: they themselves, or their features, `(*batch, feature)`."""
        if self.features is None:
            return x
        with torch.no_grad():
            return self._seen(x)

    def log_prob(
        self, generated: Float[Tensor, "*batch_and_event"], x: Float[Tensor, "*batch_and_event"]
    ) -> Float[Tensor, "*batch"]:
        """Return the log density of data round generated data, in nats, all constants in it.

        Args:
            generated: Generated data, `(*batch, *event)`.
            x: Data, `(*batch, *event)`.
        """
        self.check_events(generated, x)
        return self.distribution(generated).log_prob(self.observed(x))

    def check_events(self, generated: Tensor, x: Tensor) -> None:
        """Raise unless a generated datum and a datum have one shape: broadcast, they would pass for compared."""
        theirs, ours = (tuple(t.shape[max(t.dim() - self.event_dim, 0) :]) for t in (generated, x))
        if theirs != ours:
            raise ValueError(
                f"Expected generated data with the data's event shape {ours}; got {theirs}. Set event_dim to the "
                "number of dimensions of one datum."
            )

    def _seen(self, x: Tensor) -> Tensor:
        if self.features is None:
            return x
        left = x.shape[: x.dim() - self.event_dim]
        return call_frozen(self.features, x.reshape(-1, *x.shape[len(left) :])).reshape(*left, -1)
