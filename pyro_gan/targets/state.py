"""The state of a batch of chains: position, potential, gradient, weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Parts", "State"]


@final
class Parts(NamedTuple):
    """The parts of a potential, kept separately so that a change of the weight's power needs no evaluation.

    Attributes:
        log_prior: Log density of the prior.
        log_weight: Log of the full weight, at power 1.
        prior_grad: Gradient of the log prior; None without gradients.
        grad: Gradient of the potential at power 1; None without gradients.
    """

    log_prior: Float[Tensor, " chain"]
    log_weight: Float[Tensor, " chain"]
    prior_grad: Float[Tensor, "chain dim"] | None = None
    grad: Float[Tensor, "chain dim"] | None = None


@final
class State(NamedTuple):
    """The positions of a batch of chains, and what has been computed there.

    Attributes:
        z: Unconstrained positions.
        potential: Potential energy there.
        grad: Gradient of the potential there; None for kernels that do not need it.
        log_weight: Log of target over proposal there; None for kernels that do not need it.
        parts: The parts of the potential, for annealing; None otherwise. A kernel carries them along.
    """

    z: Float[Tensor, "chain dim"]
    potential: Float[Tensor, " chain"]
    grad: Float[Tensor, "chain dim"] | None = None
    log_weight: Float[Tensor, " chain"] | None = None
    parts: Parts | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return what is known, by field; `State(**tensors)` is the state again. Parts are left out."""
        return {name: value for name, value in self._asdict().items() if isinstance(value, Tensor)}

    def take(self, chains: Int[Tensor, " taken"] | Bool[Tensor, " chain"] | slice) -> State:
        """Return the state of some chains, by index (with repeats or without), mask or slice."""
        taken: State = _each(lambda values: values[chains], self)
        return taken

    def where(self, chains: Bool[Tensor, " chain"], other: State) -> State:
        """Return this state for the chains of a mask, and `other` for the rest. A field that either lacks is None."""
        column = chains.unsqueeze(-1)
        merged: State = _each(lambda a, b: torch.where(column if a.dim() > 1 else chains, a, b), self, other)
        return merged

    def put(self, chains: Int[Tensor, " put"], other: State) -> State:
        """Return this state with the chains of an index replaced. A field that either state lacks is None."""
        changed: State = _each(lambda a, b: a.index_copy(0, chains, b), self, other)
        return changed


def _each(function: Callable[..., Tensor], *records: Any) -> Any:
    """Apply a function to every tensor that all records hold."""
    fields = zip(*records, strict=True)
    return type(records[0])(
        *(
            None
            if any(value is None for value in values)
            else (function(*values) if isinstance(values[0], Tensor) else _each(function, *values))
            for values in fields
        )
    )
