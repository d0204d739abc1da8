"""Records a run step by step: draws, their statistics, and moments over all steps, in memory reserved once."""

from __future__ import annotations

import warnings
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

#: Numbers and draws, at most, in the positions whose prior density is computed in one pass; they are kept until then.
BLOCK_NUMBERS, BLOCK_DRAWS = 1_000_000, 1000


@final
class Record:
    """Collects a kernel's states, step by step, as tensors that stay on the device.

    Every draw is written to its place in tensors of the size of the whole run: nothing is joined or copied at the end.

    Args:
        transforms: Constrained to unconstrained, by site; the target's if None.
        num_draws: Draws of each chain that there will be; 1 makes each draw replace the one before.
        save_params: Sites to keep; all if None.
        num_copies: Chains in a row that share a starting point.
        copy: Whether to copy positions, because a caller holds them too and may write into them.
        only_last: Whether each draw replaces the one before.
    """

    def __init__(
        self,
        transforms: Mapping[str, Any] | None,
        num_draws: int,
        *,
        save_params: Collection[str] | None,
        num_copies: int,
        copy: bool,
        only_last: bool,
    ) -> None:
        self._transforms = transforms
        self._capacity = 1 if only_last else num_draws
        self._save_params = save_params
        self._num_copies = num_copies
        self._copy = copy
        self._only_last = only_last
        self._samples: dict[str, Tensor] = {}
        self._stats: dict[str, Tensor] = {}
        self._num_draws = 0
        #: Rows of the last draws, whose prior density is not known yet.
        self._rows: list[Tensor] = []
        self._result: RecordedRun | None = None
        self._diverging: Tensor | None = None
        self._num_diverging: Tensor | None = None
        self._num_invalid: Tensor | None = None
        self._placed: Tensor | None = None
        self._target: WeightedTarget | None = None
        self._running: dict[str, RunningMoments] = {}
        self._running_stats: dict[str, RunningMoments] = {}

    def step(self, kernel: BatchKernel, *, keep: bool) -> None:
        """Record a transition.

        Args:
            kernel: The kernel, just after the transition.
            keep: Whether its state is a draw. A draw counts as diverging if any step since the draw before it did; with
                `only_last`, any step of the run.
        """
        state, info, self._result = kernel.state, kernel.info, None
        if self._num_diverging is None or self._num_invalid is None:
            self._num_diverging = torch.zeros_like(info.diverging, dtype=torch.long)
            self._num_invalid = torch.zeros_like(info.invalid, dtype=torch.long).sum()
            self._placed = kernel.placed
        self._target = kernel.target if isinstance(kernel.target, WeightedTarget) else None
        self._num_diverging = self._num_diverging + info.diverging
        self._num_invalid = self._num_invalid + info.invalid.sum()
        self._diverging = info.diverging if self._diverging is None else self._diverging | info.diverging
        transforms = kernel.target.transforms if self._transforms is None else self._transforms
        values = constrained(kernel.target.unpack(state.z), transforms)
        values = {name: v for name, v in values.items() if self._save_params is None or name in self._save_params}
        for name, value in values.items():
            self._running.setdefault(name, RunningMoments()).update(value)
        for name, value in {"lp": -state.potential, "accept_prob": info.accept_prob}.items():
            self._running_stats.setdefault(name, RunningMoments()).update(value)
        if not keep:
            return
        stats = {
            "lp": -state.potential,
            "energy": info.energy,
            "accept_prob": info.accept_prob,
            "diverging": self._diverging,
            "moved": kernel.moved,
        }
        if kernel.step_size is not None:
            stats["step_size"] = kernel.step_size.expand_as(state.potential)
        for columns, row in ((self._samples, values), (self._stats, stats)):
            for name, value in row.items():
                if name not in columns:
                    columns[name] = value.new_empty((len(value), self._capacity, *value.shape[1:]))
                columns[name][:, self._place] = value
        if not self._only_last:
            self._diverging = None
        # A draw counts once it is whole.
        self._num_draws += 1
        self._weigh(state.z.clone() if self._copy else state.z)

    def __len__(self) -> int:
        return self._num_draws

    def result(self) -> RecordedRun:
        """Return what was recorded so far, as views; there must be a draw."""
        if self._result is not None:
            return self._result
        assert self._num_diverging is not None and self._num_invalid is not None and self._placed is not None
        self._write_log_ratio()
        kept = min(self._num_draws, self._capacity)
        chains = slice(None) if self._placed.all() else self._placed
        self._result = RecordedRun(
            samples={name: column[:, :kept][chains] for name, column in self._samples.items()},
            stats={name: column[:, :kept][chains] for name, column in self._stats.items()},
            moments={name: running.result(chains) for name, running in self._running.items()},
            stat_moments={name: running.result(chains) for name, running in self._running_stats.items()},
            num_diverging=self._num_diverging[chains],
            num_draws=self._num_draws,
            superchain=self._placed.nonzero().flatten() // self._num_copies,
            num_invalid=int(self._num_invalid),
        )
        return self._result

    @property
    def num_chains(self) -> int:
        """Number of chains that have a position; there must be a draw."""
        assert self._placed is not None
        return int(self._placed.sum())

    def counts(self) -> dict[str, Any]:
        """Return everything but the draws; later steps do not change what was returned."""
        return {
            "num_draws": self._num_draws,
            "rows": self._rows,
            "diverging": self._diverging,
            "num_diverging": self._num_diverging,
            "num_invalid": self._num_invalid,
            "placed": self._placed,
            "moments": {name: running.state_dict() for name, running in self._running.items()},
            "stat_moments": {name: running.state_dict() for name, running in self._running_stats.items()},
        }

    def state_dict(self, counts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the draws up to earlier counts, and these counts."""
        self._write_log_ratio()
        kept = slice(min(counts["num_draws"], self._capacity))
        return {
            "samples": {name: column[:, kept] for name, column in self._samples.items()},
            "stats": {name: column[:, kept] for name, column in self._stats.items()},
            "counts": {**counts, "rows": torch.stack(counts["rows"]) if counts["rows"] else []},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: if there is no room for as many draws.
        """
        counts = state["counts"]
        if counts["num_draws"] > self._capacity and not self._only_last:
            raise ValueError(
                f"Expected a run of at most num_samples={self._capacity} draws; got one of {counts['num_draws']}. "
                "Build the runner with at least as many."
            )
        for columns, loaded in ((self._samples, state["samples"]), (self._stats, state["stats"])):
            columns.clear()
            for name, values in loaded.items():
                columns[name] = values.new_empty((len(values), self._capacity, *values.shape[2:]))
                columns[name][:, : values.shape[1]] = values
        self._result = None
        self._num_draws, self._rows = counts["num_draws"], list(counts["rows"])
        self._diverging, self._num_diverging = counts["diverging"], counts["num_diverging"]
        self._num_invalid, self._placed = counts["num_invalid"], counts["placed"]
        for running, loaded in ((self._running, counts["moments"]), (self._running_stats, counts["stat_moments"])):
            running.clear()
            for name, moments in loaded.items():
                running[name] = RunningMoments()
                running[name].load_state_dict(moments)

    @property
    def _place(self) -> int:
        """Where the next draw is written."""
        return 0 if self._only_last else self._num_draws

    def _weigh(self, z: Float[Tensor, "chain dim"]) -> None:
        """Remember a draw's rows until there is a block of them, then compute their prior densities and drop them."""
        if self._target is None:
            return
        self._rows = [z] if self._only_last else [*self._rows, z]
        is_block = len(self._rows) == BLOCK_DRAWS or len(self._rows) * z.numel() >= BLOCK_NUMBERS
        if is_block and not self._only_last:
            self._write_log_ratio()
            self._rows = []

    def _write_log_ratio(self) -> None:
        """Write the log weights of the draws whose rows are still here."""
        if not self._rows or self._target is None:
            return
        kept, lp = min(self._num_draws, self._capacity), self._stats["lp"]
        block = slice(kept - len(self._rows), kept)
        try:
            log_prior = self._target.log_prior(torch.cat(self._rows)).unflatten(0, (len(self._rows), -1)).T
        except Exception as error:  # a model may raise anything, and must not take the draws with it
            warnings.warn(f"No log_ratio of the last {len(self._rows)} draws, NaN instead: {error}", stacklevel=2)
            log_prior = torch.full_like(lp[:, block], torch.nan)
        if "log_ratio" not in self._stats:
            self._stats["log_ratio"] = torch.empty_like(lp)
        self._stats["log_ratio"][:, block] = lp[:, block] - log_prior
