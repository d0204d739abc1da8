"""Models whose normaliser is known, a kernel that does not move, and targets that differ from row to row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_gan import LatentPosterior
from pyro_gan.mcmc import MetropolisHastings, State
from pyro_gan.targets import Target, WeightedTarget
from tests.exact_targets import ExactTarget, affine_toy

__all__ = ["GaussianRows", "Table", "affine", "model_of", "stays"]


def model_of(law: ExactTarget) -> LatentPosterior:
    return LatentPosterior(torch.nn.Identity(), law.log_weight, law.prior, chunk_size=10_000)


def affine(dim: int = 2) -> LatentPosterior:
    """Return a model with Z = 1: its ratio is exact."""
    toy = affine_toy(dim)
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=10_000)


class Table:
    """A model whose prior draws are 0, 1, 2, ... and whose log weights are given in a table."""

    chunk_size = None

    def __init__(self, log_weights: list[float]) -> None:
        self.table = torch.tensor(log_weights, dtype=torch.float64)
        self.transforms: dict[str, Any] = {}

    def validate(self) -> None:
        pass

    def potential_fn(self, params: dict[str, Tensor]) -> Tensor:
        return -self.log_weight(params)

    def log_prior(self, params: dict[str, Tensor]) -> Tensor:
        return torch.zeros_like(params["z"][:, 0])

    def log_weight(self, params: dict[str, Tensor]) -> Tensor:
        return self.table[params["z"][:, 0].long()]

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        return {"z": torch.arange(num_draws, dtype=torch.float64)[:, None]}


class _Stay:
    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        return state.z.clone(), torch.zeros_like(state.potential)


def stays(target: Target) -> MetropolisHastings:
    """Make a kernel that leaves every particle where it is."""
    return MetropolisHastings(target, proposal=_Stay())


class GaussianRows(WeightedTarget):
    """The posteriors of z ~ N(0, 1) given y_i ~ N(z, s_i^2), with adjacent rows for each data point."""

    def __init__(self, y: Tensor, sd: Tensor, num_particles: int) -> None:
        super().__init__({"z": torch.zeros(1, dtype=torch.float64)}, {})
        self.y, self.sd = (values.repeat_interleave(num_particles) for values in (y, sd))
        variance = 1 + sd.square()
        self.log_z = -0.5 * (y.square() / variance + variance.log() + math.log(2 * math.pi))

    def log_prior(self, z: Tensor) -> Tensor:
        return -0.5 * (z[:, 0].square() + math.log(2 * math.pi))

    def log_prior_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_prior(z), -z

    def log_weight(self, z: Tensor) -> Tensor:
        assert len(z) == len(self.y), "every evaluation has all rows"
        standard = (self.y - z[:, 0]) / self.sd
        return -0.5 * (standard.square() + math.log(2 * math.pi)) - self.sd.log()

    def potential(self, z: Tensor) -> Tensor:
        return -self.log_prior(z) - self.log_weight(z)

    def potential_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        grad = z[:, 0] - (self.y - z[:, 0]) / self.sd.square()
        return self.potential(z), grad[:, None]

    def sample_prior(self, num_draws: int) -> Tensor:
        return torch.randn(num_draws, 1, dtype=torch.float64)
