"""Losses of the residual `y - G(z)`, and the constants that make `exp(-loss / lambda)` a density on all of R^d."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ResidualLoss", "check_regularization", "residual_loss"]

LOSSES = ("squared_l2", "half_squared_l2", "l1", "l2")
REDUCTIONS = ("sum", "mean")


class ResidualLoss(NamedTuple):
    """One of the four losses, with what it is divided by; `residual_loss` builds it and checks the names.

    Attributes:
        name: "squared_l2", "half_squared_l2", "l1" or "l2" (the norm, not squared).
        reduction: "sum" over the event, or "mean": the sum divided by the event's size d. A mean at lambda is the sum
            at lambda times d.
    """

    name: str
    reduction: str

    def rows(self, residual: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Return the loss of every residual, whose event is one flat dimension."""
        if self.name == "l2":
            return torch.linalg.vector_norm(residual, dim=-1)
        total = residual.abs().sum(-1) if self.name == "l1" else residual.square().sum(-1)
        return self._weight(residual.shape[-1]) * total

    def pairwise(
        self, y: Float[Tensor, "datum dim"], x: Float[Tensor, "row dim"]
    ) -> Float[Tensor, "datum row"]:
        """Return the loss of every datum against every generated row, without a tensor of all residuals."""
        # Matrix products would be faster, and lose the small distances between points far from the origin.
        mode = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(y, x, p=1.0 if self.name == "l1" else 2.0, compute_mode=mode)
        if self.name == "l2":
            return distance
        return self._weight(y.shape[-1]) * (distance if self.name == "l1" else distance.square())

    def scale(self, dim: int, regularization: float) -> float:
        """Return s where the density is proportional to exp(-norm / s), of the norm, its square or the sum of |.|."""
        return regularization / (1.0 if self.name == "l2" else self._weight(dim))

    def log_constant(self, dim: int, regularization: float) -> float:
        """Return log C, with which C exp(-loss / lambda) integrates to 1 over R^dim."""
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
    """Return the loss of that name.

    Raises:
        ValueError: if there is none, or the reduction does not suit it.
    """
    if not (isinstance(name, str) and name in LOSSES):
        raise ValueError(
            f"Expected a loss out of {', '.join(LOSSES)}; got {name!r}. Any other is refused, since "
            "exp(-loss / lambda) has one constant for all latents only if the loss is a function of y - G(z) on all of "
            "R^d; with a cosine or a cross-entropy the constant would depend on z, and no figure would be a likelihood."
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"Expected a reduction out of {', '.join(REDUCTIONS)}; got {reduction!r}.")
    if name == "l2" and reduction == "mean":
        raise ValueError(
            "Expected reduction='sum' with the l2 norm, which is no sum over coordinates; got 'mean'. Divide by what "
            "you mean, the event's size or its square root, through the regularization."
        )
    return ResidualLoss(name, reduction)


def check_regularization(regularization: float) -> None:
    """Raise unless lambda is positive and finite."""
    if not (regularization > 0 and math.isfinite(regularization)):
        raise ValueError(
            f"Expected a positive, finite regularization; got {regularization}. It is the lambda of "
            "exp(-loss / lambda): with the squared L2 loss, twice the variance of the observation noise."
        )
