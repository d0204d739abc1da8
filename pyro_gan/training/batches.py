"""Batches without end from whatever the user iterates over, at a place that a checkpoint remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gan._random import rng_state, set_rng_state

__all__ = ["Batches"]


class Batches:
    """Goes round and round an iterable, and back to where it was when a run is resumed.

    Where the order of an epoch is drawn from torch's generators as the epoch begins, as a `DataLoader` with
    `shuffle=True` draws it, the same batches come after a resume as would have come without the break.

    Args:
        data: All data as one tensor, `(datum, *event)`, of which batches are drawn with replacement, or an iterable of
            batches that can be iterated again. A batch is a tensor, or a sequence whose first entry is one.
        batch_size: Rows of a batch, for a tensor.
        device: Where batches go.

    Raises:
        ValueError: if there is a batch size for an iterable, or none for a tensor, or no datum.
    """

    def __init__(self, data: Tensor | Iterable[Any], *, batch_size: int | None, device: torch.device) -> None:
        if isinstance(data, Tensor):
            if data.dim() < 2 or not len(data):
                raise ValueError(f"Expected data of shape (datum, *event); got {tuple(data.shape)}.")
            if batch_size is None or batch_size < 1:
                raise ValueError(
                    f"Expected a batch_size of at least 1 with data as a tensor; got {batch_size}."
                )
        elif batch_size is not None:
            raise ValueError(
                f"Expected no batch_size with an iterable of batches, which have sizes of their own; got {batch_size}."
            )
        self._data, self._size, self._device = data, batch_size, device
        self._epoch: Iterator[Any] | None = None
        self._start: dict[str, Any] = rng_state()
        self._taken = 0

    @property
    def can_resume(self) -> bool:
        """Whether the data can be iterated again, which a generator cannot."""
        # Asking a DataLoader for an iterator would draw from torch's generator.
        return not isinstance(self._data, Iterator)

    def __call__(self) -> Tensor:
        """Return the next batch, `(batch, *event)`.

        Raises:
            ValueError: if the data end, or a batch is no tensor.
        """
        if isinstance(self._data, Tensor):
            assert self._size is not None
            rows = torch.randint(len(self._data), (self._size,), device=self._data.device)
            return self._data[rows].to(self._device)
        return self._tensor(self._next())

    def state_dict(self) -> dict[str, Any]:
        """Return where in which epoch we are."""
        return {"start": self._start, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back there, at the next batch."""
        self._start, self._taken, self._epoch = state["start"], state["taken"], None

    def _next(self) -> Any:
        assert not isinstance(self._data, Tensor)
        if self._epoch is None and self._taken:
            # Draw the epoch's order anew, with the luck it had, and pass over what it has given.
            now = rng_state()
            set_rng_state(self._start)
            self._epoch = iter(self._data)
            for _ in range(self._taken):
                next(self._epoch)
            set_rng_state(now)
        for _ in range(2):
            if self._epoch is None:
                self._start, self._taken = rng_state(), 0
                self._epoch = iter(self._data)
            try:
                batch = next(self._epoch)
            except StopIteration:
                seen, self._epoch = self._taken, None
                if not self.can_resume:
                    raise ValueError(
                        f"Expected batches without end, or an iterable that can be iterated again; it ended after "
                        f"{seen}. Pass the DataLoader or list itself, not iter() of it."
                    ) from None
                continue
            self._taken += 1
            return batch
        raise ValueError("Expected at least one batch; the iterable is empty.")

    def _tensor(self, batch: Any) -> Tensor:
        if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch):
            batch = batch[0]
        if not isinstance(batch, Tensor):
            raise ValueError(
                f"Expected batches that are tensors, or sequences that begin with one; got {type(batch).__name__}."
            )
        return batch.to(self._device)
