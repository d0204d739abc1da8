"""Records a run step by step: draws, their statistics, and moments over all steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.moments import RunningMoments
from pyro_gan.mcmc.recorded import RecordedRun
from pyro_gan.targets import WeightedTarget
from pyro_gan.targets.base import constrained

__all__ = ["Record"]


@final
class Record:
    """Collects a kernel's states, step by step, as tensors that stay on the device.

    Args:
        transforms: Constrained to unconstrained, by site.
        copy: Whether to copy positions, because a caller holds them too and may write into them.
        only_last: Whether each draw replaces the one before.
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
        """Record a transition.

        Args:
            kernel: The kernel, just after the transition.
            keep: Whether its state is a draw. A draw counts as diverging if any step since the draw before it did; with
                `only_last`, any step of the run.
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
        # A draw counts once it is whole: an interrupt can come between two columns of a row.
        self._num_draws += 1

    def __len__(self) -> int:
        return self._num_draws

    def result(self, kernel: BatchKernel, *, save_params: Collection[str] | None, num_copies: int) -> RecordedRun:
        """Return what was recorded.

        Args:
            kernel: The kernel, after its last transition.
            save_params: Sites to keep; all if None.
            num_copies: Chains in a row that share a starting point.
        """
        chains = slice(None) if kernel.placed.all() else kernel.placed
        kept = min(self._num_draws, 1) if self._only_last else self._num_draws
        stats = {name: torch.stack(values[:kept], dim=1)[chains] for name, values in self._columns.items()}
        z = stats.pop("z")
        if isinstance(kernel.target, WeightedTarget):
            log_prior = kernel.target.log_prior(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            stats["log_ratio"] = stats["lp"] - log_prior
        samples = self._constrained(kernel, z)
        sites = [name for name in samples if save_params is None or name in save_params]
        assert self._num_diverging is not None  # there is a draw
        return RecordedRun(
            samples={name: samples[name] for name in sites},
            stats=stats,
            moments={name: self._running[name].result(chains) for name in sites},
            stat_moments={name: running.result(chains) for name, running in self._running_stats.items()},
            num_diverging=self._num_diverging[chains],
            num_draws=self._num_draws,
            superchain=kernel.placed.nonzero().flatten() // num_copies,
            num_invalid=int(kernel.diagnostics()["invalid proposals"]),
        )

    def _constrained(self, kernel: BatchKernel, z: Float[Tensor, "*batch dim"]) -> dict[str, Tensor]:
        return constrained(kernel.target.unpack(z), self._transforms)
