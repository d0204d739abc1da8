"""The posteriors of many data points as one target: a row is one particle of one data point."""

from __future__ import annotations

from functools import partial
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import chunk_rows
from pyro_gan._random import own_generators
from pyro_gan.likelihood.estimator import LatentLikelihood
from pyro_gan.targets import WeightedTarget
from pyro_gan.targets.rows import value_and_grad

__all__ = ["PosteriorsTarget"]


@final
class PosteriorsTarget(WeightedTarget):
    """Prior times likelihood, `p0(z) f(y_i | z)`: row `r` belongs to data point `i = r // num_particles`.

    Every evaluation takes all rows, in order.

    Attributes:
        num_rows: Particles of all data points.

    Args:
        model: The model.
        y: Data, `(datum, *event)`.
        num_particles: Rows of a data point.
    """

    def __init__(self, model: LatentLikelihood, y: Tensor, num_particles: int) -> None:
        with own_generators():
            prototype = {name: value[0] for name, value in model.sample_prior(1).items()}
        super().__init__(prototype, model.transforms)
        self._model, self._y = model, y
        self.num_rows = len(y) * num_particles
        self._owner = torch.arange(len(y), device=y.device).repeat_interleave(num_particles)

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return minus log prior minus log likelihood."""
        return -self.log_prior(z) - self.log_weight(z)

    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential energy and its gradient, forward and backward a chunk at a time."""
        size = chunk_rows(self._model.chunk_size, z)
        parts = [
            value_and_grad(partial(self._energy, y=self._y[owner]), rows)
            for rows, owner in zip(z.split(size), self._owner.split(size), strict=True)
        ]
        return torch.cat([value for value, _ in parts]), torch.cat([grad for _, grad in parts])

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior in unconstrained space."""
        with torch.no_grad():
            return self._model.log_prior(self.unpack(z))

    def log_prior_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the log density of the prior and its gradient."""
        return value_and_grad(lambda rows: self._model.log_prior(self.unpack(rows)), z)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log likelihood."""
        latents = self.constrained(z)[self._model.site]
        with torch.no_grad():
            return self._model.log_likelihood(latents.unflatten(0, (len(self._y), -1)), self._y).flatten()

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior."""
        return self.pack(self._model.sample_prior(num_draws))

    def nan_restored(self, z: Float[Tensor, "chain dim"], log_weights: Float[Tensor, " chain"]) -> Tensor:
        """Return the weights of particles that started at `z`, as NaN where they vanish and some likelihood was NaN."""
        lost = torch.isneginf(log_weights)
        if bool(lost.any()) and bool(torch.isnan(self.log_weight(z)).any()):
            # Annealing gives such particles no weight; here they show a fault of the generator.
            return log_weights.masked_fill(lost, torch.nan)
        return log_weights

    def _energy(self, z: Tensor, *, y: Tensor) -> Tensor:
        return -self._model.log_prior(self.unpack(z)) - self._model.log_weight(self.unpack(z), y=y)
