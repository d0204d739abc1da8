"""A user's own proposal, asymmetric, and the same without its ratio of densities."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gan.mcmc.metropolis import State

__all__ = ["Drifting", "Unbalanced"]


class Drifting:
    """z' = .8 z + .3 + .6 eps: a law of its own, N(1.5, 1), and none of the targets'."""

    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        z = self._centre(state.z) + 0.6 * torch.randn_like(state.z)
        return z, self._log_q(state.z, z) - self._log_q(z, state.z)

    def _log_q(self, to: Tensor, start: Tensor) -> Tensor:
        return -0.5 * ((to - self._centre(start)) / 0.6).square().sum(-1)

    @staticmethod
    def _centre(z: Tensor) -> Tensor:
        return 0.8 * z + 0.3


class Unbalanced(Drifting):
    """The same, taken for symmetric."""

    def propose(self, state: State) -> tuple[Tensor, Tensor]:
        z, log_q_ratio = super().propose(state)
        return z, torch.zeros_like(log_q_ratio)
