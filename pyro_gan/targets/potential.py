"""The target of a bare potential function, of which no part is known to be the prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._random import own_generators
from pyro_gan._typing import Params
from pyro_gan.probes import NUM_PROBED, probe_repeats, probe_rows, unmoved
from pyro_gan.targets.base import Target
from pyro_gan.targets.rows import ValueAndGrad, values, values_and_grads

__all__ = ["PotentialTarget"]

#: Size of the steps from a chain's position to the positions tried, in units of the position plus 1.
JITTER = 0.01


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

    @property
    def functions(self) -> tuple[Any, ...]:
        """The potential function."""
        return (self._potential_fn,)

    def validate(self, z: Float[Tensor, "chain dim"]) -> None:
        """Raise if the function couples chains, draws noise, writes into its input, or moves statistics of a network.

        It is tried near the given positions, a little apart from each other, so that equal starts show a coupling too.

        Args:
            z: Positions of chains; torch's generators are left as they were.

        Raises:
            ValueError: as above. An error at the positions tried is left to those of the chains.
        """
        with own_generators(), torch.no_grad(), unmoved(self._potential_fn):
            few = z[[i % len(z) for i in range(NUM_PROBED)]]
            few = few + JITTER * (1 + few.abs()) * torch.randn_like(few)
            try:
                self._evaluate(few[:1].clone())
            except Exception:  # a user's function may raise anything
                return
            if self._batched:
                probe_rows(lambda rows: (self._evaluate(rows),), few, names=("potential",))
            else:
                # Chains are evaluated one by one and cannot be coupled.
                probe_repeats(lambda rows: (self._evaluate(rows),), few[:1], "potential")

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""
        return values(self._evaluate, z)

    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential energy and its gradient."""
        return values_and_grads(self._evaluate, z)

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
