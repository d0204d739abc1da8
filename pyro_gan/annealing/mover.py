"""Moves particles on a rung with any batch kernel, and adapts its step size from rung to rung."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.annealing.ladder import check_ladder
from pyro_gan.annealing.path import Path
from pyro_gan.mcmc import BatchKernel, IndependenceMH, StepSize
from pyro_gan.targets import State, Target
from pyro_gan.targets.gradient import target_gradient_fault

__all__ = ["KernelFactory", "Moved", "Mover", "Schedule", "check_factory", "warn_of_gradient"]

#: Makes a kernel of a target: `MALA`, `PCN`, or `lambda target: BatchHMC(target, num_steps=5)`.
KernelFactory = Callable[[Target], BatchKernel]

#: Change of the log step size for a difference of 1 in acceptance. It does not shrink, because the optimum moves on the
#: ladder; the mean acceptance over the particles has little noise.
GAIN = 1.0


@final
class Schedule(NamedTuple):
    """The settings of a run that may depend on particles; the normaliser is unbiased if they are fixed before it.

    Attributes:
        betas: Powers of the weight, from 0 to 1.
        step_sizes: Step size of the kernel at each power, one for all particles or one for each group; the first one is
            never used. None for a kernel without a step size.
        num_moves: Transitions on each rung.
    """

    betas: tuple[float, ...]
    step_sizes: Float[Tensor, "beta group"] | None
    num_moves: int

    def reversed(self) -> Schedule:
        """Return the schedule of the way down, from the target to the prior."""
        flipped = None if self.step_sizes is None else self.step_sizes.flip(0)
        return Schedule(self.betas[::-1], flipped, self.num_moves)

    def check(self) -> Schedule:
        """Return the schedule, or raise unless `check_steps` passes and the powers rise from 0 to 1."""
        self.check_steps()
        return self._replace(betas=check_ladder(self.betas))

    def check_steps(self) -> None:
        """Raise unless there are moves, and step sizes for each power if there are any."""
        checks.numbers("betas", self.betas, minimum=0, maximum=1)
        checks.count("num_moves", self.num_moves)
        if self.step_sizes is not None:
            cure = "It has one row for each power; the schedule of a report has them."
            checks.shaped("step_sizes", self.step_sizes, (len(self.betas), "group"), cure=cure)


def check_factory(make_kernel: KernelFactory) -> None:
    """Raise unless a kernel can be made of any target: a kernel that has its model already is of no use."""
    made = isinstance(make_kernel, BatchKernel)
    other = isinstance(make_kernel, type) and not issubclass(make_kernel, BatchKernel)
    if made or other or not callable(make_kernel):
        name = type(make_kernel).__name__ if made else "MALA"
        raise ValueError(
            "Expected kernel to make a kernel of a target, because each power is another target; got "
            f"{checks.shown(make_kernel)}. Pass {name}, or lambda target: {name}(target, ...), not {name}(model)."
        )


def warn_of_gradient(make_kernel: KernelFactory, model: Any, target: Target) -> None:
    """Warn if the kernel uses gradients, and that of the weight does not lead to the target of a model."""
    kernel = make_kernel(target)
    # A target in place of a model may have one potential for each row, and then takes all rows or none.
    if isinstance(model, Target) or not isinstance(kernel, BatchKernel) or not kernel.uses_gradient:
        return
    if (fault := target_gradient_fault(target, None)) is not None:
        warnings.warn(
            f"{fault.text} {fault.consequence} Make the weight differentiable, or pass PCN or RandomWalk as kernel.",
            stacklevel=4,
        )


@final
class Moved(NamedTuple):
    """What the moves on a rung did.

    Attributes:
        acceptance: Mean over moves and over the particles whose weight is above zero; 0 without such particles.
        step_size: The step size of each group; while it adapts, its geometric mean over the moves.
        num_invalid: Proposals that were rejected because a score or gradient was not finite.
    """

    acceptance: float
    step_size: Float[Tensor, " group"] | None
    num_invalid: int


@final
class Mover:
    """Particles on a path, moved by a kernel.

    Args:
        make_kernel: Makes the kernel of a target. Adaptation starts from the kernel's step size and aims at the
            kernel's target acceptance.
        path: The path from the prior to the target.
        z: Positions at the start.
        num_groups: Groups of particles, each with its own step size, in adjacent blocks of one size.

    Attributes:
        state: The state of the particles, with the parts of their potential.

    Raises:
        ValueError: if `make_kernel` returns no kernel, a kernel that starts at real data, or one that is not exact.
    """

    def __init__(
        self, make_kernel: KernelFactory, path: Path, z: Float[Tensor, "particle dim"], *, num_groups: int = 1
    ) -> None:
        check_factory(make_kernel)
        cure = "Pass MALA, or lambda target: BatchHMC(target, num_steps=5)."
        kernel = checks.instance("what kernel(target) returns", make_kernel(path), BatchKernel, cure=cure)
        if isinstance(kernel, IndependenceMH) and kernel.initial_log_ratio is not None:
            raise ValueError(
                "Expected a kernel without initial_log_ratio: particles start at prior draws, not at real data. "
                "Leave it out."
            )
        if not kernel.is_exact:
            raise ValueError(
                f"Expected a kernel that leaves the distribution at each power invariant; got {type(kernel).__name__}, "
                "which does not: weights and normaliser would be biased. Pass MALA, which costs the same."
            )
        self.path = path
        self.num_groups = num_groups
        self._kernel = kernel
        self.state: State = path.evaluate(z, gradient=False)
        self._log_step = None
        if (adaptation := kernel.adaptation) is not None:
            initial = torch.tensor(min(adaptation.initial, adaptation.largest), dtype=path.dtype, device=path.device)
            self._log_step = initial.log().repeat(num_groups)

    @property
    def step_sizes(self) -> Float[Tensor, " group"] | None:
        """The step sizes of the next move."""
        return None if self._log_step is None else self._log_step.exp()

    @property
    def log_weights(self) -> Float[Tensor, " particle"]:
        """Log of the particles' full weights, nats."""
        assert self.state.parts is not None
        return self.state.parts.log_weight

    def keep(self, index: Tensor) -> None:
        """Keep some particles, by index; an index that occurs twice makes a copy."""
        self.state = self.state.take(index)

    def move(self, num_moves: int, step_size: Float[Tensor, " group"] | None) -> Moved:
        """Make some transitions of all particles at the path's power.

        Args:
            num_moves: Number of transitions.
            step_size: One for each group; None to adapt it to these particles, which makes the run biased.
        """
        kernel, state = self._kernel, self.state
        adaptation = kernel.adaptation
        adapts = step_size is None and adaptation is not None
        if step_size is not None:
            if self._log_step is None:
                raise ValueError(
                    f"Expected a schedule without step sizes, because {type(kernel).__name__} has none; got some. "
                    "Pass the kernel that made it."
                )
            cure = "There is one for each group of particles: pass the num_groups that made it."
            checks.shaped("step sizes at a power", step_size, self._log_step.shape, cure=cure)
            self._log_step = step_size.to(self.path.device, self.path.dtype).log()
        kernel.attach(self.path, num_chains=len(state.z))
        assert state.parts is not None
        state = kernel.complete(self.path.at_power(state.z, state.parts))
        log_steps, acceptance = [], []
        num_invalid = torch.zeros((), dtype=torch.long, device=self.path.device)
        for _ in range(num_moves):
            if adaptation is not None and self._log_step is not None:
                log_steps.append(self._log_step)
                adaptation.value = self._rows(self._log_step.exp(), len(state.z))
            # The acceptance of a particle of weight zero does not depend on the step size, so it must not count.
            alive = torch.isfinite(state.potential)
            state, info = kernel.transition(state)
            num_alive = alive.reshape(self.num_groups, -1).sum(1)
            accepted = torch.where(alive, info.accept_prob, 0.0).reshape(self.num_groups, -1).sum(1)
            acceptance.append(accepted.sum() / num_alive.sum().clamp(min=1))
            num_invalid = num_invalid + (info.invalid & alive).sum()
            if adapts:
                assert adaptation is not None
                self._adapt(adaptation, accepted, num_alive)
        # If a kernel drops the parts of a state, they are evaluated once more.
        self.state = state if state.parts is not None else self.path.evaluate(state.z, gradient=kernel.uses_gradient)
        used = torch.stack(log_steps).mean(0).exp() if log_steps else None
        return Moved(float(torch.stack(acceptance).mean()), used, int(num_invalid))

    def _adapt(self, adaptation: StepSize, accepted: Tensor, num_alive: Tensor) -> None:
        assert self._log_step is not None
        excess = accepted / num_alive.clamp(min=1) - adaptation.target_accept_prob
        log_step = self._log_step + GAIN * torch.where(num_alive > 0, excess, 0.0)
        self._log_step = torch.minimum(log_step, torch.as_tensor(adaptation.largest).log().to(log_step))

    def _rows(self, step: Tensor, num_rows: int) -> Tensor:
        if self.num_groups == 1:
            return step[0]
        return step.repeat_interleave(num_rows // self.num_groups).unsqueeze(-1)
