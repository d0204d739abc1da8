"""The distribution of noise whose density falls exponentially with its Euclidean length."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Gamma, constraints

from pyro_gan.checks import count, real, tensor

__all__ = ["RadialExponential"]


@final
class RadialExponential(TorchDistribution):
    r"""The distribution whose density is proportional to the exponential of minus the distance to a point.

    .. math:: f(y) = \frac{\Gamma(d/2)}{2\, \pi^{d/2}\, \Gamma(d)\, \lambda^d}\; e^{-\lVert y - m\rVert_2 / \lambda}

    in :math:`d` dimensions. The direction from :math:`m` is uniform and the distance is Gamma distributed with shape
    :math:`d` and scale :math:`\lambda`, so the mean distance is :math:`d\lambda`. In one dimension it is the Laplace
    distribution; in more dimensions its coordinates are uncorrelated but not independent.

    Args:
        loc: The point m, `(*batch, *event)`.
        scale: Lambda, positive; a number or a tensor that broadcasts to `(*batch,)`.
        event_dim: Dimensions of `loc` that are the event.
        validate_args: Whether to check the scale and the values, as for all of Pyro's distributions.

    Raises:
        ValueError: if `loc` has fewer dimensions than the event or `scale` is not positive.

    Example:
        >>> noise = RadialExponential(torch.zeros(2, 3), 0.5)
        >>> noise.batch_shape, noise.event_shape, noise.sample((4,)).shape
        (torch.Size([2]), torch.Size([3]), torch.Size([4, 2, 3]))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*shape"],
        scale: float | Float[Tensor, "*batch"],
        *,
        event_dim: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        count("event_dim", event_dim, cure="A scalar event is pyro.distributions.Laplace.")
        if tensor("loc", loc).dim() < event_dim:
            raise ValueError(
                f"Expected a loc with at least event_dim = {event_dim} dimensions; got shape {tuple(loc.shape)}. "
                "A scalar event is pyro.distributions.Laplace."
            )
        scale = scale if isinstance(scale, Tensor) else real("scale", scale, above=0)
        scale = torch.as_tensor(scale, dtype=loc.dtype, device=loc.device)
        batch_shape, event_shape = loc.shape[: loc.dim() - event_dim], loc.shape[loc.dim() - event_dim :]
        try:
            batch_shape = torch.broadcast_shapes(batch_shape, scale.shape)
        except RuntimeError:
            raise ValueError(
                f"Expected a scale that broadcasts to the batch {tuple(batch_shape)}; got {tuple(scale.shape)}."
            ) from None
        self.loc = loc.expand(batch_shape + event_shape)
        self.scale = scale.expand(batch_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """All of R^d."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """The point m, `(*batch, *event)`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of a coordinate, `(d + 1) lambda^2`, `(*batch, *event)`."""
        return (self._dim + 1) * self._per_event(self.scale).square().expand(self.loc.shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RadialExponential:
        """Return this distribution for a larger batch."""
        new = self._get_checked_instance(RadialExponential, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.scale = self.scale.expand(batch_shape)
        super(RadialExponential, new).__init__(batch_shape, self.event_shape, validate_args=self._validate_args)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw `(*sample_shape, *batch, *event)`, differentiable in `loc` and `scale`."""
        shape = self._extended_shape(torch.Size(sample_shape))
        direction = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        length = torch.linalg.vector_norm(direction.flatten(-len(self.event_shape)), dim=-1)
        shape_parameter = torch.full_like(length, float(self._dim))
        unit = Gamma(shape_parameter, torch.ones_like(length), validate_args=False).rsample()
        distance = unit * self.scale
        return self.loc + direction * self._per_event(distance / length)

    def log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Return the log density of values `(*sample, *batch, *event)` in nats, `(*sample, *batch)`."""
        if self._validate_args:
            self._validate_sample(value)
        residual = (value - self.loc).flatten(-len(self.event_shape))
        dim = self._dim
        constant = math.lgamma(0.5 * dim) - math.log(2) - 0.5 * dim * math.log(math.pi) - math.lgamma(dim)
        return constant - dim * self.scale.log() - torch.linalg.vector_norm(residual, dim=-1) / self.scale

    @property
    def _dim(self) -> int:
        return math.prod(self.event_shape)

    def _per_event(self, value: Tensor) -> Tensor:
        return value.reshape(value.shape + (1,) * len(self.event_shape))
