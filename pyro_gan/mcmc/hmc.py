"""Hamiltonian Monte Carlo in which each chain has its own trajectory and its own accept or reject.

Leaves invariant: the target `exp(-U(z))`.
Proposal: `num_steps` leapfrog steps of `step_size (1 - jitter h)` with a fresh momentum `p ~ N(0, I)`; `h` in (0, 1)
changes from transition to transition and is the same for all chains.
Paper: MCMC using Hamiltonian dynamics, Neal, 2011, https://arxiv.org/abs/1206.1901.
Cost of a step: `num_steps` values and gradients of the potential a chain; the old state's are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc._halton import halton
from pyro_gan.mcmc.accept import Info, metropolis
from pyro_gan.mcmc.stepped import StepOptions, SteppedKernel
from pyro_gan.targets import State, Target

__all__ = ["BatchHMC", "accept_trajectory", "hmc_step", "leapfrog"]


@final
class BatchHMC(SteppedKernel):
    """Hamiltonian Monte Carlo for a batch of chains, with one step size and unit mass.

    Each chain is accepted or rejected on its own, unlike chains whose potentials are summed under one Hamiltonian.

    Trajectories of one fixed length can return some coordinate to its old value, or to its mirror image, in each step:
    its draws, or their squares, then stay correlated for hundreds of steps. So the step size of a transition is shorter
    by a share of up to `jitter`, which follows a Halton sequence and does not depend on the chains. `ChEES` also learns
    the length of trajectories and a scale for each coordinate.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial leapfrog step size, latent units.
        num_steps: Leapfrog steps in a trajectory.
        jitter: Largest share, in [0, 1), by which steps are shorter than `step_size`; 0 for one fixed length.
        adapt_step_size: Whether to adapt the step size during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to.

    Raises:
        ValueError: if the step size is not positive and finite, `num_steps` not positive, `jitter` outside [0, 1), or
            the target acceptance outside (0, 1).

    Example:
        >>> kernel = BatchHMC(potential_fn=lambda p: p["z"].square().sum(-1) / 2, num_chains=3)
        >>> kernel.bind(3)
        >>> kernel.initial_params = {"z": torch.zeros(3, 2)}
        >>> kernel.setup(warmup_steps=0)
        >>> kernel.sample(kernel.initial_params)["z"].shape
        torch.Size([3, 2])
    """

    uses_gradient = True
    optimal_accept_prob = 0.8

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_steps: int = 10,
        jitter: float = 0.5,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(model, potential_fn, **options)
        self.num_steps = checks.count("num_steps", num_steps)
        self.jitter = checks.real("jitter", jitter, minimum=0, below=1, cure="0 switches it off.")
        self._moves = 0

    def prepare(self, num_chains: int) -> None:
        """Start the sequence of trajectory lengths again."""
        self._moves = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what every kernel keeps, and the place in the sequence of trajectory lengths."""
        return super().state_dict() | {"moves": self._moves}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self._moves = state["moves"]

    def transition(self, state: State) -> tuple[State, Info]:
        """Follow a trajectory, and accept or reject its end."""
        self._moves += 1
        step_size = self.step_size * (1.0 - self.jitter * halton(self._moves))
        return hmc_step(state, self.target, step_size, self.num_steps)


def hmc_step(state: State, target: Target, step_size: Tensor, num_steps: int) -> tuple[State, Info]:
    """Make one HMC transition.

    Args:
        state: Positions with potential and gradient.
        target: Evaluated with its gradient once in each leapfrog step.
        step_size: Leapfrog step size, a scalar, or `(dim,)` for one step size for each coordinate.
        num_steps: Leapfrog steps.

    Returns:
        The next state and what happened; the energy is potential plus kinetic.
    """
    start = torch.randn_like(state.z)
    proposal, end = leapfrog(state, target, step_size, num_steps, start)
    return accept_trajectory(state, proposal, start, end)


def leapfrog(
    state: State, target: Target, step_size: Tensor, num_steps: int, momentum: Float[Tensor, "chain dim"]
) -> tuple[State, Float[Tensor, "chain dim"]]:
    """Follow Hamilton's equations for `num_steps` steps.

    Momenta have unit variance. One step size for each coordinate, `step_size * scale`, is the same as a diagonal mass
    of `1 / scale**2` with momenta in units of their standard deviation.

    Args:
        state: Positions with potential and gradient.
        target: Evaluated with its gradient once in each step.
        step_size: A scalar or `(dim,)`.
        num_steps: Number of steps.
        momentum: Momenta at the start.

    Returns:
        The state at the ends of the trajectories, and the momenta there.
    """
    assert state.grad is not None
    momentum = momentum - 0.5 * step_size * state.grad
    for step in range(num_steps):
        state = target.evaluate(target.wrap(state.z + step_size * momentum), gradient=True)
        assert state.grad is not None
        momentum = momentum - (step_size if step < num_steps - 1 else 0.5 * step_size) * state.grad
    return state, momentum


def accept_trajectory(
    state: State, proposal: State, start: Float[Tensor, "chain dim"], end: Float[Tensor, "chain dim"]
) -> tuple[State, Info]:
    """Accept or reject the ends of trajectories by their total energies.

    Args:
        state: State at the starts of the trajectories.
        proposal: State at their ends.
        start: Momenta at the starts.
        end: Momenta at the ends.

    Returns:
        The next state and what happened; the energy is potential plus kinetic.
    """
    kinetic, kinetic_start = 0.5 * end.square().sum(-1), 0.5 * start.square().sum(-1)
    log_accept = state.potential + kinetic_start - proposal.potential - kinetic
    new, info = metropolis(state, proposal, log_accept)
    return new, info._replace(energy=new.potential + torch.where(info.accepted, kinetic, kinetic_start))
