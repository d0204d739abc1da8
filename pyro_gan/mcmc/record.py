"""What is kept of a run: draws, their statistics, and which chains stood still."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel

__all__ = ["Record", "stood_still"]


class Record:
    """Collects a kernel's states, draw by draw, as tensors that nobody has yet read back from the device.

    Args:
        copy: Whether to copy positions, for somebody else holds them too and may write into them.
    """

    def __init__(self, *, copy: bool) -> None:
        self._copy = copy
        self._columns: dict[str, list[Tensor]] = {}

    def keep(self, kernel: BatchKernel, diverging: Bool[Tensor, " chain"]) -> None:
        """Keep the kernel's state as a draw.

        Args:
            kernel: The kernel, just after a transition.
            diverging: Whether a chain diverged in any of the steps that the draw stands for.
        """
        state, info = kernel.state, kernel.info
        row = {
            "z": state.z.clone() if self._copy else state.z,
            "lp": -state.potential,
            "energy": info.energy,
            "accept_prob": info.accept_prob,
            "diverging": diverging,
            "moved": kernel.moved,
        }
        if kernel.step_size is not None:
            row["step_size"] = kernel.step_size.expand_as(state.potential)
        for name, value in row.items():
            self._columns.setdefault(name, []).append(value)

    def __len__(self) -> int:
        # An interrupt can come between two columns of a row.
        return min((len(values) for values in self._columns.values()), default=0)

    def stack(self, kernel: BatchKernel) -> tuple[Float[Tensor, "chain draw dim"], dict[str, Tensor]]:
        """Return unconstrained draws and their statistics, `(chain, draw)` each.

        The statistic `log_ratio` is the log weight: `lp` less the log density of the prior, where that is known.
        """
        stats = {name: torch.stack(values[: len(self)], dim=1) for name, values in self._columns.items()}
        z = stats.pop("z")
        if kernel.target.has_split:
            log_prior = kernel.target.log_prior(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            stats["log_ratio"] = stats["lp"] - log_prior
        return z, stats


def stood_still(samples: Params) -> Bool[Tensor, " chain"]:
    """Return which chains' draws, `{site: (chain, draw, *event)}`, are all one point."""
    still = [(value == value[:, :1]).flatten(1).all(1) for value in samples.values()]
    return torch.stack(still).all(0)
