"""Watches the weights of the networks behind a target: a chain samples one target, so they must stay as they are."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from pyro_gan.probes import weights_behind

__all__ = ["Weights"]

#: Whole numbers of the same size, to add up the bits of a weight: such a sum is exact, in any order.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

#: Checks between two that read the weights themselves and not only the counts of their changes.
READ_EVERY = 50


@final
class Weights:
    """The weights of networks, as they were when a run began.

    A change in place raises the count that torch keeps of a tensor's changes, and reading it costs next to nothing. A
    change through `.data` (as averages of weights are often written) does not: so the weights are read too, now and
    then.

    Args:
        *functions: Networks, or functions that hold some.

    Example:
        >>> network = torch.nn.Linear(2, 1)
        >>> weights = Weights(network)
        >>> weights.check("step 1")
        >>> with torch.no_grad():
        ...     _ = network.weight.add_(1.0)
        >>> weights.check("step 2")
        Traceback (most recent call last):
        RuntimeError: The weights of a network have changed at step 2, ...
    """

    def __init__(self, *functions: Any) -> None:
        # By address: a network and its frozen twin share their weights.
        found = {id(weight): weight for function in functions for weight in weights_behind(function)}
        self._weights = [weight for weight in found.values() if weight.element_size() in _BITS]
        self._counts = self._count()
        self._sums = self._sum()
        self._num_checks = 0

    def check(self, where: str, *, read: bool = False) -> None:
        """Raise if a weight has changed.

        Args:
            where: What the error calls this moment.
            read: Whether to read the weights in any case, and not only at each 50th check.

        Raises:
            RuntimeError: with the cure.
        """
        self._num_checks += 1
        counts = self._count()
        if counts == self._counts and not read and self._num_checks % READ_EVERY:
            return
        # A state that is loaded again raises the counts and changes nothing.
        self._counts = counts
        if not torch.equal(self._sum(), self._sums):
            raise RuntimeError(
                f"The weights of a network have changed at {where}, in the middle of a run: its draws would be of no "
                "one target. Something trains it, or writes into it, beside the run. Let the training end first, or "
                "sample a copy: LatentPosterior(copy.deepcopy(generator), copy.deepcopy(log_ratio), prior)."
            )

    def _count(self) -> list[int]:
        return [0 if weight.is_inference() else weight._version for weight in self._weights]

    def _sum(self) -> Tensor:
        sums = [_bits(weight).sum(dtype=torch.int64).cpu() for weight in self._weights]
        return torch.stack(sums) if sums else torch.zeros(0, dtype=torch.int64)


def _bits(weight: Tensor) -> Tensor:
    weight = weight.detach()
    if weight.dtype.is_complex:
        weight = torch.view_as_real(weight)
    return weight.view(_BITS[weight.element_size()])
