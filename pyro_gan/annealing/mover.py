"""Moves particles on a rung with any batch kernel, and tunes its step size from rung to rung."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.annealing.ladder import check_ladder
from pyro_gan.annealing.path import Path
from pyro_gan.mcmc.independence import IndependenceMH
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.targets import Target

__all__ = ["KernelFactory", "Moved", "Mover", "Schedule", "check_factory"]

#: Makes a kernel of a target: `MALA`, `PCN`, or `lambda target: BatchHMC(target, num_steps=5)`.
KernelFactory = Callable[[Target], BatchKernel]

#: Nats of step size for all of acceptance. The optimum moves along the ladder and must be followed, so it does not
#: shrink; the mean over particles that it multiplies is not noisy.
GAIN = 1.0


class Schedule(NamedTuple):
    """All that a run decides on before it sees its own particles; with it the normaliser is unbiased.

    Attributes:
        betas: Powers of the weight, from 0 to 1.
        step_sizes: Of the kernel at every power, one for all particles or one a group; the first is never used. None
            for a kernel without one.
        num_moves: Transitions on a rung.
    """

    betas: tuple[float, ...]
    step_sizes: Float[Tensor, "beta group"] | None
    num_moves: int

    def reversed(self) -> Schedule:
        """Return the way back, from the target to the prior."""
        flipped = None if self.step_sizes is None else self.step_sizes.flip(0)
        return Schedule(self.betas[::-1], flipped, self.num_moves)

    def check(self) -> None:
        """Raise unless there is a step size for each power, and the powers rise from 0 to 1."""
        check_ladder(self.betas)
        if self.num_moves < 1:
            raise ValueError(f"Expected num_moves of at least 1; got {self.num_moves}.")
        if self.step_sizes is not None and len(self.step_sizes) != len(self.betas):
            raise ValueError(
                f"Expected a step size for each of {len(self.betas)} powers; got {len(self.step_sizes)}. A report's "
                "schedule has them."
            )


def check_factory(make_kernel: KernelFactory) -> None:
    """Raise unless a kernel can be made of any target, as a kernel that has its model already cannot."""
    if isinstance(make_kernel, BatchKernel) or not callable(make_kernel):
        name = type(make_kernel).__name__
        raise ValueError(
            f"Expected kernel to make a kernel of a target, for each power is another target; got {make_kernel!r}. "
            + (
                f"Pass {name}, or lambda target: {name}(target, ...), not {name}(model)."
                if isinstance(make_kernel, BatchKernel)
                else "Pass MALA, or lambda target: BatchHMC(target, num_steps=5)."
            )
        )


class Moved(NamedTuple):
    """What the moves on a rung did.

    Attributes:
        acceptance: Mean over moves and particles, but for those of weight zero; 0 if there are no others.
        step_size: That was used, one a group; while it adapts the geometric mean over the moves.
        num_invalid: Proposals that were rejected because a score or gradient was not finite.
    """

    acceptance: float
    step_size: Float[Tensor, " group"] | None
    num_invalid: int


class Mover:
    """Particles on a path, moved by a kernel.

    Args:
        make_kernel: Makes the kernel of a target. Its own step size is where adaptation starts, its own target
            acceptance what it goes for.
        path: Where the particles are.
        num_groups: Groups of particles with a step size of their own, as many rows in each and one after the other.

    Raises:
        ValueError: if the factory makes something else, or a kernel that starts at real data.
    """

    def __init__(self, make_kernel: KernelFactory, path: Path, *, num_groups: int = 1) -> None:
        check_factory(make_kernel)
        kernel = make_kernel(path)
        if not isinstance(kernel, BatchKernel):
            raise ValueError(
                f"Expected kernel to make a BatchKernel of a target, as MALA and lambda target: BatchHMC(target) do; "
                f"got {type(kernel).__name__}."
            )
        if isinstance(kernel, IndependenceMH) and kernel.initial_log_ratio is not None:
            raise ValueError(
                "Expected a kernel without initial_log_ratio: particles start at prior draws, not at real data. Leave "
                "it out."
            )
        self.path = path
        self.num_groups = num_groups
        # What a runner would have `setup` do; the target is ours, and there is no warmup.
        kernel._target = path
        self._kernel = kernel
        adaptive = kernel._adaptive
        self._log_step = None
        if adaptive is not None:
            initial = torch.tensor(
                min(adaptive.initial, adaptive.largest), dtype=path.dtype, device=path.device
            )
            self._log_step = initial.log().repeat(num_groups)

    @property
    def step_sizes(self) -> Float[Tensor, " group"] | None:
        """The step sizes that the next rung would start with."""
        return None if self._log_step is None else self._log_step.exp()

    def move(self, num_moves: int, step_size: Float[Tensor, " group"] | None) -> Moved:
        """Make some transitions of all particles at the path's power.

        Args:
            num_moves: How many.
            step_size: One a group, or None: then it adapts to these particles, and the run is not unbiased.
        """
        kernel, path = self._kernel, self.path
        adapts = step_size is None and self._log_step is not None
        if step_size is not None:
            if self._log_step is None or step_size.shape != self._log_step.shape:
                raise ValueError(self._misfit(step_size))
            self._log_step = step_size.to(path.device, path.dtype).log()
        num_rows = len(path.z)
        kernel._prepare(num_rows)
        state = kernel._evaluate(path.z)
        log_steps, acceptance = [], []
        num_invalid = torch.zeros((), dtype=torch.long, device=path.device)
        for _ in range(num_moves):
            if self._log_step is not None:
                assert kernel._adaptive is not None
                log_steps.append(self._log_step)
                kernel._adaptive.value = self._rows(self._log_step.exp(), num_rows)
            # What has no weight is rejected wherever it goes, however short the step: nothing can be learnt from it.
            alive = torch.isfinite(state.potential)
            state, info = kernel._transition(state)
            path.follow(state.z)
            state = state._replace(z=path.z)
            num_alive = alive.reshape(self.num_groups, -1).sum(1)
            accepted = torch.where(alive, info.accept_prob, 0.0).reshape(self.num_groups, -1).sum(1)
            acceptance.append(accepted.sum() / num_alive.sum().clamp(min=1))
            num_invalid = num_invalid + (info.invalid & alive).sum()
            if adapts:
                assert kernel._adaptive is not None and self._log_step is not None
                excess = accepted / num_alive.clamp(min=1) - kernel._adaptive.target_accept_prob
                log_step = self._log_step + GAIN * torch.where(num_alive > 0, excess, 0.0)
                largest = torch.as_tensor(kernel._adaptive.largest).log()
                self._log_step = torch.minimum(log_step, largest.to(log_step))
        used = torch.stack(log_steps).mean(0).exp() if log_steps else None
        return Moved(float(torch.stack(acceptance).mean()), used, int(num_invalid))

    def _misfit(self, step_size: Tensor) -> str:
        kernel = type(self._kernel).__name__
        if self._log_step is None:
            return f"Expected a schedule without step sizes, for {kernel} has none. Pass the kernel that made it."
        return (
            f"Expected a schedule with a step size for each of {len(self._log_step)} groups of particles; got "
            f"{tuple(step_size.shape)} at a power. Pass the num_groups that made it."
        )

    def _rows(self, step: Tensor, num_rows: int) -> Tensor:
        if self.num_groups == 1:
            return step[0]
        return step.repeat_interleave(num_rows // self.num_groups).unsqueeze(-1)
