"""Hamiltonian Monte Carlo that finds its own step size, trajectory length and scales, from all chains together.

Leaves invariant: the target `exp(-U(z))`, once warmup is over.
Proposal: leapfrog steps of `step_size * scale` with a fresh momentum `p ~ N(0, I)` for a time `h * trajectory_length`,
`h` in (0, 1) the transition's, the same for all chains.
Paper: An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian Monte Carlo, Hoffman, Radul and Sountsov,
2021, https://proceedings.mlr.press/v130/hoffman21a.html.
Cost of a step: `ceil(h * trajectory_length / step_size)` values and gradients of the potential a chain.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc._halton import halton
from pyro_gan.mcmc.hmc import accept_trajectory, leapfrog
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import Info, State
from pyro_gan.mcmc.scale import RunningScale
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.mcmc.trajectory import TrajectoryLength, chees_gradient

__all__ = ["ChEES"]

#: Share of `max_num_steps` from which on a run says that it holds trajectories back. At the limit lengths rise and
#: fall by chance, and what is learnt is their average.
NEAR_LIMIT = 0.5

#: Least acceptance that a chain counts with in the harmonic mean, for one chain; with more of them less.
STUCK = 0.1


class ChEES(BatchKernel):
    """Hamiltonian Monte Carlo whose settings all chains learn together during warmup, and keep afterwards.

    The step size meets a harmonic mean of the chains' acceptance, so that no chain stays stuck where the target is
    narrower than elsewhere; a plain mean does not see it. Proposals outside the support count as their share, for no
    step size avoids them. The scale of every coordinate, a diagonal mass, is its standard deviation. The trajectory
    length, in units of those scales, climbs the ChEES criterion: trajectories should change the squared distance from
    the centre as much as they can. All chains take the same number of leapfrog steps, so none waits for another, as
    trees of different depth would.

    Many chains learn fast: a hundred warmup steps do for a thousand chains. One chain alone learns from its own past,
    which needs some hundreds; there `pyro.infer.NUTS` is at home.

    While warmup lasts the number of leapfrog steps depends on what has been learnt, so the host reads a number from the
    device each transition; afterwards none.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial leapfrog step size, in units of the scales, which start at the starting points' spread.
        trajectory_length: Initial length of the longest trajectories, step size times steps, in the same units. Begin
            short: beyond the best length the criterion has more maxima, and it climbs the nearest.
        max_num_steps: Leapfrog steps that no trajectory exceeds.
        adapt_step_size: Whether to adapt the step size during warmup; afterwards it is fixed.
        adapt_trajectory_length: Whether to adapt the trajectory length, likewise.
        adapt_mass_matrix: Whether to adapt the scales, likewise; they stay 1 otherwise.
        target_accept_prob: Harmonic mean of the acceptance to adapt to; the plain mean comes out higher.

    Warns:
        UserWarning: when warmup ends, if `max_num_steps` keeps trajectories from growing.

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

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        step_size: float = 0.1,
        trajectory_length: float = 1.0,
        max_num_steps: int = 1000,
        adapt_step_size: bool = True,
        adapt_trajectory_length: bool = True,
        adapt_mass_matrix: bool = True,
        target_accept_prob: float = 0.65,
    ) -> None:
        if max_num_steps < 1:
            raise ValueError(f"Expected max_num_steps of at least 1; got {max_num_steps}.")
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)
        self.max_num_steps = max_num_steps
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
        """Return what every kernel does, and the trajectory length."""
        return super().diagnostics() | {"trajectory length": float(self.trajectory_length)}

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, *self.target.potential_and_grad(z))

    def _prepare(self, num_chains: int) -> None:
        self._moves = self._num_steps = 0
        self._learning, self._longest = self._warmup_steps > 0, None
        like = torch.zeros(self.target.dim, dtype=self.target.dtype, device=self.target.device)
        self._length.reset(like, adapting=self._learning)
        self._scale.reset(like)

    def _transition(self, state: State) -> tuple[State, Info]:
        step_size = self.step_size
        assert step_size is not None
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

    def _acceptance(self, info: Info) -> Tensor:
        inside = self._inside.to(info.accept_prob)
        # One stuck chain, however many there are, outweighs the others ten to one, and not without end.
        worst = STUCK / len(inside)
        inverse = (inside / info.accept_prob.clamp(min=worst)).sum() / inside.sum().clamp(min=1)
        return torch.where(inside.any(), inside.mean() / inverse, 0.0)

    def _end_warmup(self, state: State) -> State:
        self._length.freeze()
        self._learning = False
        assert self.step_size is not None
        steps = self._longest_steps(self.step_size)
        if steps > NEAR_LIMIT * self.max_num_steps:
            warnings.warn(
                f"The longest trajectories take {math.ceil(steps)} leapfrog steps, and max_num_steps="
                f"{self.max_num_steps} keeps them from growing: draws will be more alike. Allow more steps, or rescale "
                "the latents.",
                stacklevel=4,
            )
        return state

    def _longest_steps(self, step_size: Tensor) -> float:
        """Return the leapfrog steps of the longest trajectories, unrounded. While they are learnt the host waits."""
        if self._longest is not None:
            return self._longest
        longest = float(self.trajectory_length / step_size)
        self._longest = None if self._learning else longest
        return longest
