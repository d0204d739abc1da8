"""The shapes and protocols that the whole package speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

__all__ = [
    "BatchedPotential",
    "BoundedRatio",
    "BoundedWeight",
    "Critic",
    "Generator",
    "Params",
    "ReplicatedRatio",
    "Tempered",
    "left_shape",
    "replicates_of",
]

#: Latent values by site name. Unconstrained unless a docstring says otherwise.
Params = Mapping[str, Tensor]


class Generator(Protocol):
    """Maps latents `(batch, *latent)` to data `(batch, *event)`, row by row."""

    def __call__(self, z: Tensor, /, **context: Tensor) -> Tensor:
        """Return one data point for every latent."""


class Critic(Protocol):
    """Maps data `(batch, *event)` to one real score a row, `(batch,)` or `(batch, 1, ..., 1)`."""

    def __call__(self, x: Tensor, /, **context: Tensor) -> Tensor:
        """Return one score for every data point."""


@runtime_checkable
class BatchedPotential(Protocol):
    """A Pyro model that evaluates its own potential on a batch of chains.

    Every method takes unconstrained values `{site: (*batch, *event)}` and returns `(*batch,)`. The potential is
    `-log_prior - log_weight`: the prior can be drawn from, the weight cannot. The model splits large batches itself,
    into passes of `chunk_size` rows; gradients are asked for in passes of that size.
    """

    chunk_size: int | None
    transforms: dict[str, Transform]

    def validate(self, **context: Any) -> None:
        """Raise if the model cannot be sampled as it stands."""

    def potential_fn(self, params: Params, **context: Any) -> Tensor:
        """Return `-log_prior - log_weight`, `(*batch,)`."""

    def log_prior(self, params: Params) -> Tensor:
        """Return the log density of the prior in unconstrained space, `(*batch,)`."""

    def log_weight(self, params: Params, **context: Any) -> Tensor:
        """Return the log weight that turns prior into target, `(*batch,)`."""

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Return unconstrained prior draws, `{site: (num_draws, *event)}`."""


@runtime_checkable
class BoundedRatio(Protocol):
    """A log ratio that may know a value that it never exceeds."""

    @property
    def upper_bound(self) -> float | None:
        """The bound in nats, or None."""


@runtime_checkable
class BoundedWeight(Protocol):
    """A model that may know a value that its log weight never exceeds."""

    @property
    def log_weight_bound(self) -> float | None:
        """The bound in nats, or None."""


@runtime_checkable
class ReplicatedRatio(Protocol):
    """A log ratio that may know its own error, from replicates of it that were fitted without a part of the data."""

    @property
    def replicates(self) -> Sequence[Critic]:
        """Log ratios `(batch, *event) -> (batch,)`, two or more; none if the error is unknown."""


@runtime_checkable
class Tempered(Protocol):
    """A model whose log weight is a log ratio over a temperature."""

    @property
    def temperature(self) -> float:
        """The temperature."""


def replicates_of(log_ratio: Critic) -> Sequence[Critic]:
    """Return a log ratio's replicates, or none if it is of another kind."""
    return log_ratio.replicates if isinstance(log_ratio, ReplicatedRatio) else ()


def left_shape(value: Tensor, event_dim: int) -> torch.Size:
    """Return the batch part of a shape whose last `event_dim` dimensions are the event."""
    return value.shape[: value.dim() - event_dim]
