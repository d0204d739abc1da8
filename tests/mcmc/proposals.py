"""An asymmetric proposal as a user writes it, and the same one without its ratio of densities."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gan.mcmc import State

__all__ = ["Drifting", "Unbalanced"]


class Drifting:
    """z' = 0.8 z + 0.3 + 0.6 eps, which leaves N(1.5, 1) invariant and no target of the tests."""

    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        z = self._centre(state.z) + 0.6 * torch.randn_like(state.z)
        return z, self._log_q(state.z, z) - self._log_q(z, state.z)

    def _log_q(self, to: Tensor, start: Tensor) -> Tensor:
        return -0.5 * ((to - self._centre(start)) / 0.6).square().sum(-1)

    @staticmethod
    def _centre(z: Tensor) -> Tensor:
        return 0.8 * z + 0.3


class Unbalanced(Drifting):
    """The same proposal, but it says that it is symmetric."""

    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        z, log_q_ratio = super().propose(state)
        return z, torch.zeros_like(log_q_ratio)
