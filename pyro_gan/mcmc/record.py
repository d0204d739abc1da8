"""What is kept of a run: draws, their statistics, and moments over all steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.moments import Moments, RunningMoments

__all__ = ["Record", "RecordedRun"]


class RecordedRun(NamedTuple):
    """A run as it was recorded, of the chains that have a position.

    Attributes:
        samples: Constrained draws by site, `(chain, draw, *event)`.
        stats: Statistics of the draws, `(chain, draw)`. `log_ratio` is the log weight: `lp` less the log density of
            the prior, where that is known.
        moments: Of every step, kept or not, by site.
        stat_moments: Of `lp` and `accept_prob`, likewise.
        num_diverging: Diverging steps of each chain, kept or not, `(chain,)`.
        num_draws: Draws made of each chain, whether or not more than the last is there.
    """

    samples: dict[str, Tensor]
    stats: dict[str, Tensor]
    moments: dict[str, Moments]
    stat_moments: dict[str, Moments]
    num_diverging: Tensor
    num_draws: int


class Record:
    """Collects a kernel's states, step by step, as tensors that nobody has yet read back from the device.

    Args:
        transforms: Constrained to unconstrained, by site.
        copy: Whether to copy positions, for somebody else holds them too and may write into them.
        only_last: Whether each draw takes the place of the one before.
    """

    def __init__(self, transforms: Mapping[str, Any], *, copy: bool, only_last: bool) -> None:
        self._transforms = transforms
        self._copy = copy
        self._only_last = only_last
        self._columns: dict[str, list[Tensor]] = {}
        self._num_draws = 0
        self._diverging: Tensor | None = None
        self._num_diverging: Tensor | None = None
        self._running: dict[str, RunningMoments] = {}
        self._running_stats: dict[str, RunningMoments] = {}

    def step(self, kernel: BatchKernel, *, keep: bool) -> None:
        """Take note of a transition.

        Args:
            kernel: The kernel, just after it.
            keep: Whether its state is a draw. A draw answers for the divergences of all steps since the one
                before it, where that is still there.
        """
        state, info = kernel.state, kernel.info
        if self._num_diverging is None:
            self._num_diverging = torch.zeros_like(info.diverging, dtype=torch.long)
        self._num_diverging += info.diverging
        self._diverging = info.diverging if self._diverging is None else self._diverging | info.diverging
        for name, value in self._constrained(kernel, state.z).items():
            self._running.setdefault(name, RunningMoments()).update(value)
        for name, value in {"lp": -state.potential, "accept_prob": info.accept_prob}.items():
            self._running_stats.setdefault(name, RunningMoments()).update(value)
        if not keep:
            return
        row = {
            "z": state.z.clone() if self._copy else state.z,
            "lp": -state.potential,
            "energy": info.energy,
            "accept_prob": info.accept_prob,
            "diverging": self._diverging,
            "moved": kernel.moved,
        }
        if kernel.step_size is not None:
            row["step_size"] = kernel.step_size.expand_as(state.potential)
        if self._only_last:
            self._columns = {name: [value] for name, value in row.items()}
        else:
            self._diverging = None
            for name, value in row.items():
                self._columns.setdefault(name, []).append(value)
        # Counted when whole: an interrupt can come between two columns of a row.
        self._num_draws += 1

    def __len__(self) -> int:
        return self._num_draws

    def result(self, kernel: BatchKernel) -> RecordedRun:
        """Return what was recorded."""
        chains = slice(None) if kernel.placed.all() else kernel.placed
        kept = min(self._num_draws, 1) if self._only_last else self._num_draws
        stats = {name: torch.stack(values[:kept], dim=1)[chains] for name, values in self._columns.items()}
        z = stats.pop("z")
        if kernel.target.has_split:
            log_prior = kernel.target.log_prior(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            stats["log_ratio"] = stats["lp"] - log_prior
        moments, stat_moments = (
            {name: running.result(chains) for name, running in columns.items()}
            for columns in (self._running, self._running_stats)
        )
        assert self._num_diverging is not None  # there is a draw
        samples, num_diverging = self._constrained(kernel, z), self._num_diverging[chains]
        return RecordedRun(samples, stats, moments, stat_moments, num_diverging, self._num_draws)

    def _constrained(self, kernel: BatchKernel, z: Float[Tensor, "*batch dim"]) -> dict[str, Tensor]:
        return {
            name: self._transforms[name].inv(value) if name in self._transforms else value
            for name, value in kernel.target.unpack(z).items()
        }
