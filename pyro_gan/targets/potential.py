"""The target of a bare potential function, of which no part is known to be the prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.targets.base import Target, ValueAndGrad, value_and_grad

__all__ = ["PotentialTarget"]


@final
class PotentialTarget(Target):
    """The target of a bare potential function.

    Args:
        potential_fn: Maps `{site: value}` to the potential: `(chain, *event)` to `(chain,)` if `batched`, otherwise
            `(*event)` to a scalar, as in Pyro.
        prototype: Values of one chain, for the shapes.
        batched: Whether the function takes a batch of chains.
    """

    def __init__(self, potential_fn: Callable[[Params], Tensor], prototype: Params, *, batched: bool) -> None:
        super().__init__(prototype, {})
        self._potential_fn = checks.function("potential_fn", potential_fn)
        self._batched = batched

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""
        with torch.no_grad():
            return self._evaluate(z)

    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential energy and its gradient."""
        return value_and_grad(self._evaluate, z)

    def _evaluate(self, z: Tensor) -> Tensor:
        if self._batched:
            return checks.shaped(
                "what potential_fn returns",
                self._potential_fn(self.unpack(z)),
                (len(z),),
                cure="Return one value for each chain: sum over the event dimensions, and not over the chains.",
            )
        values = [checks.tensor("what potential_fn returns", self._potential_fn(self.unpack(row))) for row in z]
        if values[0].numel() != 1:
            raise ValueError(
                f"Expected potential_fn to return a scalar for one chain; got shape {tuple(values[0].shape)}. "
                "For a batched potential give the kernel num_chains."
            )
        return torch.stack([value.reshape(()) for value in values])
