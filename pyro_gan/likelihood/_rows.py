"""The posteriors of many data as one target: a row is a particle of a datum, and each datum has its rows together."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._networks import chunk_rows
from pyro_gan._random import rng_fork
from pyro_gan.likelihood.estimator import LatentLikelihood
from pyro_gan.targets import Target, TemperedTarget
from pyro_gan.targets.base import value_and_grad

__all__ = ["RowsTarget"]


class RowsTarget(Target):
    """Prior times likelihood, `p0(z) f(y_i | z)`, with row `r` belonging to datum `r // num_particles`.

    Every evaluation takes all rows, in order.

    Args:
        model: The model.
        y: Data, `(datum, *event)`.
        num_particles: Rows of a datum.
    """

    def __init__(self, model: LatentLikelihood, y: Tensor, num_particles: int) -> None:
        with rng_fork():
            prototype = {name: value[0] for name, value in model.sample_prior(1).items()}
        super().__init__(prototype, model.transforms)
        self._model, self._y, self._num_particles = model, y, num_particles
        self.num_rows = len(y) * num_particles

    @property
    def has_split(self) -> bool:
        """Always."""
        return True

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return minus log prior minus log likelihood."""
        return -self.log_prior(z) - self.log_weight(z)

    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential energy and its gradient."""
        parts = [value_and_grad(partial(self._energy, start=start), rows) for start, rows in self._chunks(z)]
        return torch.cat([value for value, _ in parts]), torch.cat([grad for _, grad in parts])

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior in unconstrained space."""
        with torch.no_grad():
            return self._log_prior(z)

    def log_prior_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the log density of the prior and its gradient."""
        return value_and_grad(self._log_prior, z)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log likelihood."""
        with torch.no_grad():
            return torch.cat([self._log_likelihood(rows, start) for start, rows in self._chunks(z)])

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior."""
        return self.pack(self._model.sample_prior(num_draws))

    def tempered(self, beta: float | Tensor) -> Target:
        """Return the rows with their likelihood raised to a power."""
        return TemperedTarget(self, beta)

    def refuse_nan(self, z: Float[Tensor, "chain dim"], log_weights: Float[Tensor, " chain"]) -> Tensor:
        """Return the log weights of particles that started at `z`, or raise if some started where f is NaN."""
        lost = torch.isneginf(log_weights)
        if bool(lost.any()) and bool(torch.isnan(self.log_weight(z)).any()):
            # Annealing counts such particles as of no weight; here they are a fault of the generator.
            return log_weights.masked_fill(lost, torch.nan)
        return log_weights

    def _chunks(self, z: Tensor) -> list[tuple[int, Tensor]]:
        size = chunk_rows(self._model.chunk_size, z)
        return [(start, z[start : start + size]) for start in range(0, len(z), size)]

    def _energy(self, z: Tensor, *, start: int) -> Tensor:
        return -self._log_prior(z) - self._log_likelihood(z, start)

    def _log_prior(self, z: Tensor) -> Tensor:
        return self._model.log_prior(self.unpack(z))

    def _log_likelihood(self, z: Tensor, start: int) -> Tensor:
        owner = torch.arange(start, start + len(z), device=z.device) // self._num_particles
        return self._model.log_weight(self.unpack(z), y=self._y[owner])
