"""Losses of the residual `y - G(z)`, and the noise distributions whose densities are `C exp(-loss / lambda)`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from pyro import distributions as dist
from torch import Tensor

from pyro_gan.checks import choice, count, real, shaped, tensor
from pyro_gan.residuals.radial import RadialExponential

__all__ = ["ResidualLoss", "check_regularization", "residual_loss"]

LOSSES = ("squared_l2", "half_squared_l2", "l1", "l2")
REDUCTIONS = ("sum", "mean")


@final
class ResidualLoss(NamedTuple):
    """One of the four losses, with its reduction; `residual_loss` builds it and checks the names.

    Attributes:
        name: "squared_l2", "half_squared_l2", "l1" or "l2" (the norm, not squared).
        reduction: "sum" over the event, or "mean": the sum divided by the event's size d. A mean at lambda is the sum
            at lambda times d.
    """

    name: str
    reduction: str

    def rows(self, residual: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Return the loss of each residual; the event is one flat dimension."""
        residual = shaped("residual", residual, ("*batch", "dim"))
        if self.name == "l2":
            return torch.linalg.vector_norm(residual, dim=-1)
        total = residual.abs().sum(-1) if self.name == "l1" else residual.square().sum(-1)
        return self._weight(residual.shape[-1]) * total

    def pairwise(self, y: Float[Tensor, "datum dim"], x: Float[Tensor, "row dim"]) -> Float[Tensor, "datum row"]:
        """Return the loss of each data point against each generated row, without a tensor of all residuals."""
        # Matrix products would be faster, but lose the small distances between points far from the origin.
        mode = "donot_use_mm_for_euclid_dist"
        y = shaped("y", y, ("datum", "dim"))
        x = shaped("x", x, ("row", y.shape[1]))
        distance = torch.cdist(y, x, p=1.0 if self.name == "l1" else 2.0, compute_mode=mode)
        if self.name == "l2":
            return distance
        return self._weight(y.shape[-1]) * (distance if self.name == "l1" else distance.square())

    def noise(
        self, loc: Float[Tensor, "*batch_event"], regularization: float, *, event_dim: int = 1
    ) -> dist.TorchDistribution:
        """Return the distribution around a point whose density is C exp(-loss / lambda).

        It is `Normal` for the squared losses, `Laplace` for "l1" and `RadialExponential` for "l2".

        Args:
            loc: The point, `(*batch, *event)`.
            regularization: Lambda, positive.
            event_dim: Dimensions of `loc` that are the event.

        Raises:
            ValueError: if `loc` has fewer dimensions than the event, or lambda is not positive.

        Example:
            >>> noise = residual_loss("l1", "mean").noise(torch.zeros(5, 2, 3), 0.5, event_dim=2)
            >>> noise.batch_shape, noise.event_shape
            (torch.Size([5]), torch.Size([2, 3]))
        """
        event_dim = count("event_dim", event_dim)
        if tensor("loc", loc).dim() < event_dim:
            raise ValueError(
                f"Expected loc with at least event_dim = {event_dim} dimensions; got shape {tuple(loc.shape)}."
            )
        scale = self.scale(math.prod(loc.shape[-event_dim:]), regularization)
        if self.name == "l2":
            return RadialExponential(loc, scale, event_dim=event_dim)
        if self.name == "l1":
            return dist.Laplace(loc, scale).to_event(event_dim)
        return dist.Normal(loc, math.sqrt(scale / 2)).to_event(event_dim)

    def scale(self, dim: int, regularization: float) -> float:
        """Return s: the density is proportional to exp(-norm / s), for the norm, its square or the absolute sum."""
        dim, regularization = count("dim", dim), check_regularization(regularization)
        return regularization / (1.0 if self.name == "l2" else self._weight(dim))

    def log_constant(self, dim: int, regularization: float) -> float:
        """Return log C, in nats: C exp(-loss / lambda) integrates to 1 over R^dim."""
        scale = self.scale(dim, regularization)
        if self.name == "l1":
            return -dim * math.log(2 * scale)
        if self.name == "l2":
            log_sphere = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)
            return -log_sphere - math.lgamma(dim) - dim * math.log(scale)
        return -0.5 * dim * math.log(math.pi * scale)

    def _weight(self, dim: int) -> float:
        half = 0.5 if self.name == "half_squared_l2" else 1.0
        return half / dim if self.reduction == "mean" else half


def residual_loss(name: Any, reduction: str) -> ResidualLoss:
    """Return the loss with this name and this reduction.

    Raises:
        ValueError: if there is no such loss, or the reduction does not suit it.

    Example:
        >>> residual_loss("squared_l2", "sum").rows(torch.tensor([[3.0, 4.0]]))
        tensor([25.])
    """
    cure = (
        "exp(-loss / lambda) has one constant for all latents only if the loss is a function of y - G(z) on all of "
        "R^d; with a cosine or a cross-entropy the constant would depend on z, and no figure would be a likelihood."
    )
    choice("loss", name, LOSSES, cure=cure)
    choice("reduction", reduction, REDUCTIONS)
    if name == "l2" and reduction == "mean":
        raise ValueError(
            "Expected reduction='sum' with the l2 norm, which is not a sum over coordinates; got 'mean'. Divide the "
            "regularization by the event's size, or by its square root, instead."
        )
    return ResidualLoss(name, reduction)


def check_regularization(regularization: Any) -> float:
    """Return lambda as a positive, finite number, or raise."""
    hint = (
        "It is the lambda of exp(-loss / lambda): with the squared L2 loss, twice the variance of the observation "
        "noise."
    )
    return real("regularization", regularization, above=0, cure=hint)
