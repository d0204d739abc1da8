"""Endless batches from any iterable, with a position that a checkpoint can restore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor

from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.checks import count, instance, shown, tensor
from pyro_gan.training.describe import describe_data

__all__ = ["Batches"]

_END = object()


@final
class Batches:
    """Repeats an iterable of batches without end, and returns to its position when a run is resumed.

    A resumed run gets the batches of an uninterrupted one if the order of an epoch is drawn from torch's generators as
    the epoch begins, as a `DataLoader` with `shuffle=True` does.

    Args:
        data: All data as one tensor, `(datum, *event)`, from which batches are drawn with replacement, or an iterable
            of batches that can be iterated again. A batch is a tensor, or a sequence whose first entry is one.
        batch_size: Rows of a batch, for a tensor.
        device: Where batches go.

    Raises:
        ValueError: if there are no data, a tensor has no batch size, or an iterable has one.

    Example:
        >>> batches = Batches([torch.zeros(3, 2), torch.ones(1, 2)], batch_size=None, device=torch.device("cpu"))
        >>> [len(batches()) for _ in range(5)]
        [3, 1, 3, 1, 3]
    """

    def __init__(self, data: Tensor | Iterable[Any], *, batch_size: int | None, device: torch.device) -> None:
        if isinstance(data, Tensor):
            if data.dim() < 2 or not len(data):
                raise ValueError(f"Expected data of shape (datum, *event); got {tuple(data.shape)}.")
            cure = "It is the number of rows drawn from data given as a tensor."
            batch_size = count("batch_size", batch_size, cure=cure)
        else:
            instance("data", data, Iterable, cure="Pass a tensor, or batches such as a DataLoader.")
            if batch_size is not None:
                raise ValueError(
                    f"Expected no batch_size for an iterable of batches with sizes; got {shown(batch_size)}."
                )
        self._data, self._size, self._device = data, batch_size or 0, instance("device", device, torch.device)
        self._epoch: Iterator[Any] | None = None
        self._start: dict[str, Any] = rng_state()
        self._taken = 0

    @property
    def can_resume(self) -> bool:
        """Whether the data can be iterated again; a generator cannot."""
        # Asking a DataLoader for an iterator would draw from torch's generator.
        return not isinstance(self._data, Iterator)

    @property
    def settings(self) -> dict[str, str]:
        """What a checkpoint must have in common with these batches, in words; see `training.train`."""
        return {"data": describe_data(self._data), "batch_size": str(self._size or "that of the data")}

    def __call__(self) -> Tensor:
        """Return the next batch, `(batch, *event)`.

        Raises:
            ValueError: if the data end, or a batch is not a tensor.
        """
        if isinstance(self._data, Tensor):
            rows = torch.randint(len(self._data), (self._size,), device=self._data.device)
            return self._data[rows].to(self._device)
        batch = self._next()
        if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch):
            batch = batch[0]
        return tensor("batch", batch, cure="Batches are tensors, or sequences that begin with one.").to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the random state at the start of the epoch, and the batches taken since."""
        return {"start": self._start, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to this position at the next batch."""
        self._start, self._taken, self._epoch = state["start"], count("taken", state["taken"], minimum=0), None

    def _next(self) -> Any:
        if self._epoch is None and self._taken:
            # Redraw the order of this epoch from its random state, and skip the batches already taken.
            now = rng_state()
            set_rng_state(self._start)
            self._epoch = iter(self._data)
            skipped = sum(1 for _ in islice(self._epoch, self._taken))
            set_rng_state(now)
            if skipped < self._taken:
                raise ValueError(
                    f"Expected the data of the checkpoint, with at least {self._taken} batches in an epoch; got "
                    f"{skipped}. Pass the same data, or another path for the checkpoint."
                )
        for _ in range(2):
            if self._epoch is None:
                self._start, self._taken = rng_state(), 0
                self._epoch = iter(self._data)
            batch = next(self._epoch, _END)
            if batch is not _END:
                self._taken += 1
                return batch
            self._epoch = None
            if not self.can_resume:
                raise ValueError(
                    f"Expected endless batches, or an iterable that can be iterated again; it ended after "
                    f"{self._taken}. Pass the DataLoader or list itself, not iter() of it."
                )
        raise ValueError("Expected at least one batch; the iterable is empty.")
