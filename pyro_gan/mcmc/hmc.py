"""Hamiltonian Monte Carlo with every chain on its own trajectory and its own coin.

Leaves invariant: the target `exp(-U(z))`.
Proposal: `num_steps` leapfrog steps of `step_size (1 - jitter h)` with a fresh momentum `p ~ N(0, I)`; `h` in (0, 1)
is the transition's, the same for all chains.
Paper: MCMC using Hamiltonian dynamics, Neal, 2011, https://arxiv.org/abs/1206.1901.
Cost of a step: `num_steps` values and gradients of the potential a chain; the old state's are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc._halton import halton
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import Info, State, metropolis
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.targets import Target

__all__ = ["BatchHMC", "accept_trajectory", "hmc_step", "leapfrog"]


class BatchHMC(BatchKernel):
    """Hamiltonian Monte Carlo for a batch of chains, with one step size and unit mass.

    Unlike a sum of the chains' potentials under one Hamiltonian, chains here are accepted or rejected alone.

    Trajectories of one length bring some coordinate back to where it was, or to its mirror image, again and again: its
    draws, or their squares, then stay alike for hundreds of steps. So the step size of a transition is drawn back by a
    share of up to `jitter`, which follows a Halton sequence and never looks at the chains. `ChEES` finds the length of
    trajectories, and a scale for each coordinate, by itself.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial leapfrog step size, latent units.
        num_steps: Leapfrog steps of a trajectory.
        jitter: Largest share, in [0, 1), by which a trajectory's steps are shorter than `step_size`; 0 for one length.
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

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        step_size: float = 0.1,
        num_steps: int = 10,
        jitter: float = 0.5,
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.8,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"Expected num_steps of at least 1; got {num_steps}.")
        if not 0 <= jitter < 1:
            raise ValueError(f"Expected jitter inside [0, 1); got {jitter}. 0 switches it off.")
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)
        self.num_steps = num_steps
        self.jitter = jitter
        self._moves = 0

    def _prepare(self, num_chains: int) -> None:
        self._moves = 0

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, *self.target.potential_and_grad(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        assert self.step_size is not None
        self._moves += 1
        step_size = self.step_size * (1.0 - self.jitter * halton(self._moves))
        return hmc_step(state, self.target, step_size, self.num_steps)


def hmc_step(state: State, target: Target, step_size: Tensor, num_steps: int) -> tuple[State, Info]:
    """Make one HMC transition.

    Args:
        state: Positions with potential and gradient.
        target: Gives potential and gradient, once a leapfrog step.
        step_size: Leapfrog step size, a scalar, or `(dim,)` for a step size a coordinate.
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

    Momenta have unit variance. A step size a coordinate, `step_size * scale`, is the same as a diagonal mass of
    `1 / scale**2` with momenta in units of their standard deviation.

    Args:
        state: Positions with potential and gradient.
        target: Gives potential and gradient, once a step.
        step_size: A scalar or `(dim,)`.
        num_steps: Number of steps.
        momentum: Momenta to start with.

    Returns:
        Where the trajectories end, and the momenta there.
    """
    assert state.grad is not None
    z, potential, grad = state.z, state.potential, state.grad
    momentum = momentum - 0.5 * step_size * grad
    for step in range(num_steps):
        z = z + step_size * momentum
        potential, grad = target.potential_and_grad(z)
        momentum = momentum - (step_size if step < num_steps - 1 else 0.5 * step_size) * grad
    return State(z, potential, grad), momentum


def accept_trajectory(
    state: State, proposal: State, start: Float[Tensor, "chain dim"], end: Float[Tensor, "chain dim"]
) -> tuple[State, Info]:
    """Accept or reject the ends of trajectories by their total energies.

    Args:
        state: Where they start.
        proposal: Where they end.
        start: Momenta at the start.
        end: Momenta at the end.

    Returns:
        The next state and what happened; the energy is potential plus kinetic.
    """
    kinetic, kinetic_start = 0.5 * end.square().sum(-1), 0.5 * start.square().sum(-1)
    log_accept = state.potential + kinetic_start - proposal.potential - kinetic
    new, info = metropolis(state, proposal, log_accept)
    return new, info._replace(energy=new.potential + torch.where(info.accepted, kinetic, kinetic_start))
