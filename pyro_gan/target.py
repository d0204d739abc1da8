"""What is sampled: a batched potential, its gradient and, where it is known, its split into prior and weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_gan._chunks import by_chunk, chunk_rows
from pyro_gan._frozen import rng_fork
from pyro_gan._typing import BatchedPotential, Params

__all__ = ["ModelTarget", "PotentialTarget", "Target", "make_target"]


class Target(ABC):
    """A potential energy over flat unconstrained vectors, one a chain.

    Kernels see nothing else. All methods take `z` of shape `(chain, dim)`, the sites' values raveled and joined in
    the sites' order, and give one value a chain; a chain's value depends on its own row only.

    Attributes:
        shapes: Unconstrained event shape of every site.
        transforms: Constrained to unconstrained, by site (Pyro's direction).
        dim: Length of a row.
        dtype: Of the rows.
        device: Of the rows.

    Args:
        prototype: Unconstrained values of one chain, `{site: (*event)}`.
        transforms: As the attribute.
    """

    def __init__(self, prototype: Params, transforms: dict[str, Transform]) -> None:
        self.shapes = {name: value.shape for name, value in sorted(prototype.items())}
        self.transforms = transforms
        self.dim = sum(math.prod(shape) for shape in self.shapes.values())
        first = next(iter(prototype.values()))
        self.dtype, self.device = first.dtype, first.device

    @abstractmethod
    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""

    @abstractmethod
    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential energy and its gradient."""

    @abstractmethod
    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior. Raises if the target has no split."""

    @abstractmethod
    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight, `-potential - log_prior`. Raises if the target has no split."""

    @abstractmethod
    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior. Raises if the target has no split."""

    @property
    @abstractmethod
    def has_split(self) -> bool:
        """Whether prior and weight are known apart."""

    def pack(self, params: Params) -> Float[Tensor, "chain dim"]:
        """Join the sites' values, `{site: (chain, *event)}`, into rows."""
        rows = [params[name].reshape(len(params[name]), -1) for name in self.shapes]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)

    def unpack(self, z: Float[Tensor, "chain dim"]) -> dict[str, Tensor]:
        """Split rows into the sites' values, `{site: (chain, *event)}`, without copying."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        columns = z.split(sizes, dim=-1)
        return {
            name: column.reshape(z.shape[:-1] + shape)
            for (name, shape), column in zip(self.shapes.items(), columns, strict=True)
        }


class ModelTarget(Target):
    """The target of a model that has its own batched potential.

    Args:
        model: What is sampled; see `BatchedPotential`.
        context: Keyword arguments of the model, the same for all chains.
    """

    def __init__(self, model: BatchedPotential, context: dict[str, Any]) -> None:
        model.validate(**context)
        with rng_fork():
            prototype = {name: value[0] for name, value in model.sample_prior(1).items()}
        super().__init__(prototype, model.transforms)
        self._model = model
        self._context = context
        self._chunk_size = model.chunk_size

    @property
    def has_split(self) -> bool:
        """Always: the model says what its prior is."""
        return True

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""
        with torch.no_grad():
            return by_chunk(self._evaluate, z, self._chunk_size)

    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential energy and its gradient."""
        # Forward and backward a chunk at a time: its activations are still in cache when its gradient needs them.
        parts = [_value_and_grad(self._evaluate, rows) for rows in z.split(chunk_rows(self._chunk_size, z))]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([value for value, _ in parts]), torch.cat([grad for _, grad in parts])

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior in unconstrained space."""
        with torch.no_grad():
            return self._model.log_prior(self.unpack(z))

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight that turns the prior into the target."""
        with torch.no_grad():
            return by_chunk(
                lambda rows: self._model.log_weight(self.unpack(rows), **self._context), z, self._chunk_size
            )

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior, in unconstrained space."""
        return self.pack(self._model.sample_prior(num_draws))

    def _evaluate(self, z: Tensor) -> Tensor:
        return self._model.potential_fn(self.unpack(z), **self._context)


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
        return _value_and_grad(self._evaluate, z)

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Raise: there is no split."""
        raise self._no_split()

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Raise: there is no split."""
        raise self._no_split()

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
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


def make_target(
    model: Any,
    potential_fn: Callable[[Params], Tensor] | None,
    *,
    prototype: Params | None,
    batched: bool,
    context: dict[str, Any],
) -> Target:
    """Build the target of a kernel's `model` or `potential_fn`.

    Args:
        model: A model with its own batched potential, or None.
        potential_fn: A bare potential, or None.
        prototype: Values of one chain; needed for a bare potential.
        batched: Whether a bare potential takes a batch of chains.
        context: The model's keyword arguments.

    Returns:
        The target.

    Raises:
        ValueError: if the model has no batched potential, or a bare potential no starting point.
    """
    if model is not None:
        if isinstance(model, BatchedPotential):
            return ModelTarget(model, context)
        raise ValueError(
            f"Expected a model with a batched potential of its own, such as LatentPosterior; got {model!r}. "
            "Sample other Pyro models with pyro.infer.NUTS, or pass their potential as potential_fn=."
        )
    if potential_fn is None:
        raise ValueError("Expected a model or a potential_fn; got neither.")
    if not prototype:
        raise ValueError(
            "A bare potential_fn has no prior to start from: pass initial_params={site: values}."
        )
    return PotentialTarget(potential_fn, prototype, batched=batched)


def _value_and_grad(potential: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        value = potential(leaf)
        # Rows are independent, so the gradient of the sum holds every chain's own gradient.
        (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad
