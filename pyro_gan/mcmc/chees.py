"""Hamiltonian Monte Carlo that learns its step size, trajectory length and scales from all chains together.

Leaves invariant: the target `exp(-U(z))`, once warmup is over.
Proposal: leapfrog steps of `step_size * scale` with a fresh momentum `p ~ N(0, I)` for a time `h * trajectory_length`;
`h` in (0, 1) changes from transition to transition and is the same for all chains.
Paper: An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian Monte Carlo, Hoffman, Radul and Sountsov,
2021, https://proceedings.mlr.press/v130/hoffman21a.html.
Cost of a step: `ceil(h * trajectory_length / step_size)` values and gradients of the potential a chain.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc._halton import halton
from pyro_gan.mcmc.accept import Info
from pyro_gan.mcmc.hmc import accept_trajectory, leapfrog
from pyro_gan.mcmc.scale import RunningScale
from pyro_gan.mcmc.stepped import StepOptions, SteppedKernel
from pyro_gan.mcmc.trajectory import TrajectoryLength, chees_gradient
from pyro_gan.targets import State

__all__ = ["ChEES"]

#: Warn if the longest trajectories take more than this share of `max_num_steps`: the limit then held them back. At the
#: limit lengths rise and fall by chance and their average is kept, so the share is below 1.
NEAR_LIMIT = 0.5

#: In the harmonic mean an acceptance is at least this number divided by the number of chains.
STUCK = 0.1


@final
class ChEES(SteppedKernel):
    """Hamiltonian Monte Carlo whose settings all chains learn together during warmup, and keep afterwards.

    The step size adapts to a harmonic mean of the chains' acceptance. A chain that is stuck where the target is narrow
    lowers that mean a lot; a plain mean would hardly change. Proposals outside the support lower it only by their
    share, because no step size avoids them. The scale of each coordinate, a diagonal mass, is its standard deviation.
    The trajectory length, in units of those scales, climbs the ChEES criterion: trajectories should change the squared
    distance from the centre as much as possible. All chains take the same number of leapfrog steps, so no chain waits
    for another one, as it would with trees of different depths.

    Many chains learn fast: a hundred warmup steps are enough for a thousand chains. A single chain learns from its own
    past and needs several hundred; `pyro.infer.NUTS` suits it better.

    During warmup the number of leapfrog steps depends on what has been learnt, so the host reads one number from the
    device in each transition. After warmup it reads no numbers.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial leapfrog step size, in units of the scales, which start at the starting points' spread.
        trajectory_length: Initial length of the longest trajectories, step size times steps, in the same units. Start
            with a short one: the criterion has more maxima beyond the best length, and adaptation climbs the nearest.
        max_num_steps: Largest number of leapfrog steps in a trajectory.
        adapt_step_size: Whether to adapt the step size during warmup; afterwards it is fixed.
        adapt_trajectory_length: Whether to adapt the trajectory length during warmup.
        adapt_mass_matrix: Whether to adapt the scales during warmup; otherwise they stay 1.
        target_accept_prob: Harmonic mean of the acceptance to adapt to; the plain mean will be higher.

    Warns:
        UserWarning: when warmup ends, if `max_num_steps` has kept trajectories from growing.

    Raises:
        ValueError: if the step size or trajectory length is not positive and finite, `max_num_steps` not positive, or
            the target acceptance outside (0, 1).

    Example:
        >>> kernel = ChEES(potential_fn=lambda p: p["z"].square().sum(-1) / 2, num_chains=3)
        >>> kernel.bind(3)
        >>> kernel.initial_params = {"z": torch.randn(3, 2)}
        >>> kernel.setup(warmup_steps=0)
        >>> kernel.sample(kernel.initial_params)["z"].shape
        torch.Size([3, 2])
    """

    uses_gradient = True
    optimal_accept_prob = 0.65

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        trajectory_length: float = 1.0,
        max_num_steps: int = 1000,
        adapt_trajectory_length: bool = True,
        adapt_mass_matrix: bool = True,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(model, potential_fn, **options)
        self.max_num_steps = checks.count("max_num_steps", max_num_steps)
        self._length = TrajectoryLength(trajectory_length, adapt_trajectory_length)
        self._scale = RunningScale(adapt_mass_matrix)
        self._learning = False
        self._inside = torch.zeros(0, dtype=torch.bool)
        self._longest: float | None = None
        self._moves = self._num_steps = 0

    @property
    def trajectory_length(self) -> Tensor:
        """The current length of the longest trajectories, in units of the scales; a scalar."""
        return self._length.value

    @property
    def scale(self) -> Float[Tensor, " dim"]:
        """The current scale of every coordinate, the inverse square root of its mass."""
        return self._scale.value

    @property
    def num_steps(self) -> int:
        """Leapfrog steps of the last transition."""
        return self._num_steps

    def logging(self) -> OrderedDict[str, str]:
        """Return step size, mean acceptance and the last trajectory's steps for the progress bar."""
        entries = super().logging()
        entries["leapfrog steps"] = str(self._num_steps)
        return entries

    def diagnostics(self) -> dict[str, Any]:
        """Return the diagnostics of every kernel, and the trajectory length."""
        return super().diagnostics() | {"trajectory length": float(self.trajectory_length)}

    def state_dict(self) -> dict[str, Any]:
        """Return what every kernel keeps, and trajectory length, scales and the place in the sequence of lengths."""
        return super().state_dict() | {
            "moves": self._moves,
            "learning": self._learning,
            "length": self._length.state_dict(),
            "scale": self._scale.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self._moves, self._learning, self._longest = state["moves"], state["learning"], None
        self._length.load_state_dict(state["length"])
        self._scale.load_state_dict(state["scale"])

    def prepare(self, num_chains: int) -> None:
        """Forget what earlier runs have learnt, unless there is no warmup to learn it anew."""
        self._moves = self._num_steps = 0
        self._learning, self._longest = self._warmup_steps > 0, None
        like = torch.zeros(self.target.dim, dtype=self.target.dtype, device=self.target.device)
        self._length.reset(like, adapting=self._learning)
        self._scale.reset(like, adapting=self._learning)

    def transition(self, state: State) -> tuple[State, Info]:
        """Follow a trajectory, accept or reject its end, and learn from it during warmup."""
        step_size = self.step_size
        if self._learning and self._moves == 0:
            self._scale.update(state.z)
        self._moves += 1
        share, scale = halton(self._moves), self._scale.value
        self._num_steps = min(max(math.ceil(share * self._longest_steps(step_size)), 1), self.max_num_steps)
        start = torch.randn_like(state.z)
        proposal, end = leapfrog(state, self.target, step_size * scale, self._num_steps, start)
        new, info = accept_trajectory(state, proposal, start, end)
        self._inside = torch.isfinite(proposal.potential) & ~info.invalid
        if self._learning:
            centre = self._scale.centre
            before, after = (state.z - centre) / scale, (proposal.z - centre) / scale
            gradient = chees_gradient(before, after, end, info.accept_prob, share)
            self._length.update(gradient, step_size, self.max_num_steps * step_size)
            self._scale.update(new.z)
        return new, info

    def adaptation_statistic(self, info: Info) -> Tensor:
        """Return the harmonic mean of the acceptance, which one stuck chain lowers a lot."""
        inside = self._inside.to(info.accept_prob)
        # One stuck chain counts as much as ten times all the others, whatever their number, and no more than that.
        worst = STUCK / len(inside)
        inverse = (inside / info.accept_prob.clamp(min=worst)).sum() / inside.sum().clamp(min=1)
        return torch.where(inside.any(), inside.mean() / inverse, 0.0)

    def finish_warmup(self, state: State) -> State:
        """Keep the average trajectory length, and warn if `max_num_steps` held it back."""
        self._length.freeze()
        self._learning = False
        steps = self._longest_steps(self.step_size)
        if steps > NEAR_LIMIT * self.max_num_steps:
            warnings.warn(
                f"The longest trajectories take {math.ceil(steps)} leapfrog steps, and max_num_steps="
                f"{self.max_num_steps} has kept them from growing: draws will be more correlated. Allow more steps, or "
                "rescale the latents.",
                stacklevel=4,
            )
        return state

    def _longest_steps(self, step_size: Tensor) -> float:
        """Return the leapfrog steps of the longest trajectories, unrounded. The host waits for it during warmup."""
        if self._longest is not None:
            return self._longest
        longest = float(self.trajectory_length / step_size)
        self._longest = None if self._learning else longest
        return longest
