"""What a kernel counts while it runs, and the positions that it returned last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.accept import Info

__all__ = ["HandedOut", "Tally"]


@final
class Tally:
    """Counts of the transitions after warmup, kept on the chains' device until they are read."""

    def __init__(self) -> None:
        self._accept_sum = torch.zeros(())
        self._num_invalid = torch.zeros((), dtype=torch.long)
        self._num_steps = 0
        self._diverged = torch.zeros(0, dtype=torch.bool)

    def add(self, info: Info) -> None:
        """Count one transition."""
        self._accept_sum = info.accept_prob.mean() + self._accept_sum
        self._num_invalid = info.invalid.sum() + self._num_invalid
        if self._num_steps == len(self._diverged):
            more = info.diverging.new_zeros(self._num_steps + 1000)
            self._diverged = torch.cat([self._diverged.to(more), more])
        self._diverged[self._num_steps] = info.diverging.any()
        self._num_steps += 1

    def __len__(self) -> int:
        return self._num_steps

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counts; later transitions do not change what was returned."""
        diverged = self._diverged[: self._num_steps]
        return {"accept_sum": self._accept_sum, "num_invalid": self._num_invalid, "diverged": diverged}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over counts that `state_dict` returned."""
        self._accept_sum, self._num_invalid = state["accept_sum"], state["num_invalid"]
        self._num_steps, self._diverged = len(state["diverged"]), state["diverged"].clone()

    @property
    def acceptance_rate(self) -> float:
        """Mean acceptance probability over transitions and chains."""
        return float(self._accept_sum) / max(len(self), 1)

    @property
    def num_invalid(self) -> int:
        """Proposals rejected because a score or a gradient was not finite."""
        return int(self._num_invalid)

    @property
    def divergences(self) -> list[int]:
        """Indices of the transitions in which any chain diverged."""
        return self._diverged[: self._num_steps].nonzero().flatten().tolist()


@final
class HandedOut:
    """Positions as they were returned to the caller, so that a later change is noticed.

    The identity and the in-place version of each tensor show it without reading a number from the device.
    """

    def __init__(self, params: Params) -> None:
        self.params = dict(params)
        self._versions = {name: value._version for name, value in params.items()}

    def forget(self) -> None:
        """Count these positions as changed."""
        self._versions = dict.fromkeys(self.params, -1)

    def is_unchanged(self, params: Params) -> bool:
        """Whether these are the tensors that were returned, and none has been changed in place since."""
        if not isinstance(params, Mapping) or params.keys() != self.params.keys():
            return False
        return all(
            params[name] is value and value._version == self._versions[name] for name, value in self.params.items()
        )
