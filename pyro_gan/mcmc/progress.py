"""Where a run stands after its last whole step: enough to read its draws, and to go on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from pyro_gan._random import rng_state, set_rng_state
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.record import Record
from pyro_gan.mcmc.tally import HandedOut
from pyro_gan.targets import State

__all__ = ["Progress"]

#: A potential is that of the run before if it differs by less than this share, or this many nats: other hardware
#: rounds in another way.
TOLERANCE = 1e-3


@final
class Progress:
    """A run that has begun.

    Args:
        record: What was recorded of it; the runner adds to it.
        initial_params: Starting points that were given, or None.

    Attributes:
        record: See above.
        initial_params: See above.
        num_steps: Whole steps made, those of warmup included.
    """

    def __init__(self, record: Record, initial_params: dict[str, Tensor] | None) -> None:
        self.record = record
        self.initial_params = initial_params
        self.num_steps = 0
        # Torch's generators now, before the setup: it is repeated with them when the run goes on.
        self._rng = self._rng_at_setup = rng_state()
        self._counts: dict[str, Any] = record.counts()
        self._kernel: dict[str, Any] = {}
        self._state: State | None = None
        self._positions = HandedOut({})
        self._placed = torch.zeros(0, dtype=torch.bool)

    def mark(self, kernel: BatchKernel, params: dict[str, Tensor], num_steps: int) -> None:
        """Remember where the run stands, after a whole step that returned `params`."""
        self._state, self._kernel, self._positions = kernel.state, kernel.state_dict(), HandedOut(params)
        self._placed, self._counts = kernel.placed, self.record.counts()
        self.mark_rng()
        self.num_steps = num_steps

    def mark_rng(self) -> None:
        """Remember torch's generators, which a hook may have moved after the step."""
        self._rng = rng_state()

    @property
    def params(self) -> dict[str, Tensor]:
        """The positions by site, as the kernel returned them or a hook left them."""
        return self._positions.params.copy()

    @property
    def last_params(self) -> dict[str, Tensor]:
        """The last positions of the chains that have one, unconstrained, copied."""
        return {name: value[self._placed].clone() for name, value in self._positions.params.items()}

    def kept(self, num_samples: int, num_steps: int) -> str:
        """Return what is kept of a run that has ended early, of so many draws and steps."""
        draws = len(self.record)
        read = f"{draws} of {num_samples} draws of each chain (get_samples), " if draws else ""
        return (
            f"Kept: {read}the positions after step {self.num_steps} of {num_steps} (last_params), and what the kernel "
            "has learnt. resume() goes on; save() writes it to a file."
        )

    def rewind(self) -> None:
        """Set torch's generators to where they were before the setup."""
        set_rng_state(self._rng_at_setup)

    def restore(self, kernel: BatchKernel) -> None:
        """Put a kernel that has been set up, and torch's generators, where the run stood.

        Raises:
            ValueError: if the target is another one.
        """
        device = kernel.target.device
        self.record.load_state_dict(_on(device, self.record.state_dict(self._counts)))
        state = State(**_on(device, self._state.tensors() if self._state is not None else {}))
        positions = _on(device, self._positions.params)
        is_changed = not self._positions.is_unchanged(self._positions.params)
        _check_same_target(kernel, state, positions if is_changed else None)
        kernel.load_state_dict(_on(device, self._kernel))
        params = kernel.place(state)
        set_rng_state(self._rng)
        # Positions that a hook has changed are not the kernel's own: it sees that, and evaluates them.
        self._positions = HandedOut({k: v.clone() for k, v in positions.items()} if is_changed else params)
        if is_changed:
            self._positions.forget()

    def teach(self, kernel: BatchKernel) -> None:
        """Give a kernel what was learnt, without placing its chains."""
        kernel.load_state_dict(self._kernel)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as tensors, numbers, strings and containers of them."""
        return {
            "record": self.record.state_dict(self._counts),
            "initial_params": self.initial_params,
            "num_steps": self.num_steps,
            "rng_at_setup": self._rng_at_setup,
            "rng": self._rng,
            "kernel": self._kernel,
            "state": None if self._state is None else self._state.tensors(),
            "positions": self._positions.params,
            "is_changed": not self._positions.is_unchanged(self._positions.params),
            "placed": self._placed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.record.load_state_dict(state["record"])
        self._counts = self.record.counts()
        self.initial_params, self.num_steps = state["initial_params"], state["num_steps"]
        self._rng_at_setup, self._rng, self._kernel = state["rng_at_setup"], state["rng"], state["kernel"]
        self._state = None if state["state"] is None else State(**state["state"])
        self._positions, self._placed = HandedOut(state["positions"]), state["placed"]
        if state["is_changed"]:
            self._positions.forget()


def _check_same_target(kernel: BatchKernel, state: State, changed: Mapping[str, Tensor] | None) -> None:
    """Raise unless the potential at the chains' positions is the one that the run has seen there."""
    if state.z.shape[1:] != (kernel.target.dim,):
        raise ValueError(
            f"Expected the target of the run before, of {state.z.shape[1]} numbers; got one of {kernel.target.dim}. "
            "Build the kernel of the same model."
        )
    if changed is not None:
        return
    there, here = state.potential, kernel.target.potential(state.z)
    same = torch.isclose(here, there, rtol=TOLERANCE, atol=TOLERANCE) | torch.isnan(there)
    if not same.all():
        worst = int((here - there).abs().nan_to_num(torch.inf).argmax())
        raise ValueError(
            f"Expected the target of the run before; got one whose potential at the position of chain {worst} is "
            f"{float(here[worst]):.6g}, where it was {float(there[worst]):.6g}. Use the same networks, prior, "
            "temperature and arguments, or start a new run from last_params."
        )


def _on(device: torch.device, value: Any) -> Any:
    """Return a tree of containers with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _on(device, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on(device, item) for item in value]
    return value
