"""What is sampled, as a kernel sees it: a potential over rows, and where known its split into prior and weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_gan._typing import Params

__all__ = ["Target", "value_and_grad"]


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
    def log_prior_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the log density of the prior and its gradient. Raises if the target has no split."""

    @abstractmethod
    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight, `-potential - log_prior`. Raises if the target has no split."""

    @abstractmethod
    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior. Raises if the target has no split."""

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw points for chains to start from: the prior's draws, unless the target knows better."""
        return self.sample_prior(num_draws)

    @property
    @abstractmethod
    def has_split(self) -> bool:
        """Whether prior and weight are known apart."""

    @abstractmethod
    def tempered(self, beta: float | Tensor) -> Target:
        """Return the target with its weight raised to a power, `-log_prior - beta log_weight`.

        Args:
            beta: From 0, the prior, to 1, the target: a number, or a tensor of shape `()` or `(chain,)`.

        Raises:
            ValueError: if the target has no split.
        """

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


def value_and_grad(potential: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return a row-by-row potential's values `(chain,)` and their gradients `(chain, dim)`."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        value = potential(leaf)
        # Rows are independent, so the gradient of the sum holds every chain's own gradient.
        (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad
