"""The target of a bare potential function, which does not say what is prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.targets.base import Target, value_and_grad

__all__ = ["PotentialTarget"]


class PotentialTarget(Target):
    """The target of a bare potential function.

    Args:
        potential_fn: Takes `{site: value}` and gives the potential: from `(chain, *event)` to `(chain,)` if
            `batched`, else from `(*event)` to a scalar, Pyro's convention.
        prototype: Values of one chain, for the shapes.
        batched: Which of the two the function is.
    """

    def __init__(self, potential_fn: Callable[[Params], Tensor], prototype: Params, *, batched: bool) -> None:
        super().__init__(prototype, {})
        self._potential_fn = potential_fn
        self._batched = batched

    @property
    def has_split(self) -> bool:
        """Never: a bare potential does not say what is prior."""
        return False

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""
        with torch.no_grad():
            return self._evaluate(z)

    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential energy and its gradient."""
        return value_and_grad(self._evaluate, z)

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Raise: there is no split."""
        raise self._no_split()

    def log_prior_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Raise: there is no split."""
        raise self._no_split()

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Raise: there is no split."""
        raise self._no_split()

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Raise: there is no split."""
        raise self._no_split()

    def tempered(self, beta: float | Tensor) -> Target:
        """Raise: there is no split."""
        raise self._no_split()

    def _evaluate(self, z: Tensor) -> Tensor:
        if self._batched:
            value = self._potential_fn(self.unpack(z))
            if value.shape != z.shape[:1]:
                raise ValueError(
                    f"Expected potential_fn to give one value a chain, shape {tuple(z.shape[:1])}; "
                    f"got {tuple(value.shape)}. Sum over the event dimensions only, not over the chains."
                )
            return value
        values = [self._potential_fn(self.unpack(row)) for row in z]
        if values[0].numel() != 1:
            raise ValueError(
                f"Expected potential_fn to give a scalar for one chain; got shape {tuple(values[0].shape)}. "
                "For a batched potential give the kernel num_chains."
            )
        return torch.stack([value.reshape(()) for value in values])

    @staticmethod
    def _no_split() -> ValueError:
        return ValueError(
            "A bare potential_fn does not say which part of it is the prior; this kernel needs to know. "
            "Pass a model such as LatentPosterior, or give the kernel a proposal= distribution to draw from."
        )
