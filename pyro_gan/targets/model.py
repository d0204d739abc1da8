"""The target of a model that evaluates its own potential on a batch of chains."""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._networks import chunk_rows
from pyro_gan._random import own_generators
from pyro_gan._typing import BatchedPotential
from pyro_gan.targets.base import WeightedTarget
from pyro_gan.targets.rows import ValueAndGrad, values, values_and_grads

__all__ = ["ModelTarget"]


@final
class ModelTarget(WeightedTarget):
    """The target of a model that has its own batched potential and splits rows into chunks itself.

    Args:
        model: What is sampled; see `BatchedPotential`.
        context: Keyword arguments of the model, the same for all chains.
    """

    def __init__(self, model: BatchedPotential, context: dict[str, Any]) -> None:
        checks.instance("model", model, BatchedPotential).validate(**context)
        with own_generators():
            prototype = {name: value[0] for name, value in model.sample_prior(1).items()}
        super().__init__(prototype, model.transforms)
        self._model = model
        self._context = context
        self._chunk_size = model.chunk_size

    @property
    def functions(self) -> tuple[Any, ...]:
        """The model and its keyword arguments."""
        return (self._model, *self._context.values())

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""
        return values(self._evaluate, z)

    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential energy and its gradient."""
        return values_and_grads(self._evaluate, z, num_rows=chunk_rows(self._chunk_size, z))

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior in unconstrained space."""
        return values(lambda rows: self._model.log_prior(self.unpack(rows)), z)

    def log_prior_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the log density of the prior in unconstrained space, and its gradient."""
        return values_and_grads(lambda rows: self._model.log_prior(self.unpack(rows)), z)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight that turns the prior into the target."""
        return values(lambda rows: self._model.log_weight(self.unpack(rows), **self._context), z)

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior, in unconstrained space."""
        return self.pack(self._model.sample_prior(num_draws))

    def _evaluate(self, z: Tensor) -> Tensor:
        return self._model.potential_fn(self.unpack(z), **self._context)
