"""Hamiltonian Monte Carlo with every chain on its own trajectory and its own coin.

Leaves invariant: the target `exp(-U(z))`.
Proposal: `num_steps` leapfrog steps of `step_size` with a fresh momentum `p ~ N(0, I)`.
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
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import Info, State, metropolis
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.target import Target

__all__ = ["BatchHMC", "hmc_step"]


class BatchHMC(BatchKernel):
    """Hamiltonian Monte Carlo for a batch of chains, with one step size and unit mass.

    Unlike a sum of the chains' potentials under one Hamiltonian, chains here are accepted or rejected alone.

    Args:
        model: A model with a batched potential, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial leapfrog step size, latent units.
        num_steps: Leapfrog steps of a trajectory.
        adapt_step_size: Whether to adapt the step size during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to.

    Raises:
        ValueError: if the step size is not positive and finite, `num_steps` not positive, or the target acceptance
            outside (0, 1).

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
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.8,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"Expected num_steps of at least 1; got {num_steps}.")
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)
        self.num_steps = num_steps

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, *self.target.potential_and_grad(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        assert self.step_size is not None
        return hmc_step(state, self.target, self.step_size, self.num_steps)


def hmc_step(state: State, target: Target, step_size: Tensor, num_steps: int) -> tuple[State, Info]:
    """Make one HMC transition.

    Args:
        state: Positions with potential and gradient.
        target: Gives potential and gradient, once a leapfrog step.
        step_size: Scalar leapfrog step size.
        num_steps: Leapfrog steps.

    Returns:
        The next state and what happened; the energy is potential plus kinetic.
    """
    assert state.grad is not None
    start = torch.randn_like(state.z)
    z, potential, grad = state.z, state.potential, state.grad
    momentum = start - 0.5 * step_size * grad
    for step in range(num_steps):
        z = z + step_size * momentum
        potential, grad = target.potential_and_grad(z)
        momentum = momentum - (step_size if step < num_steps - 1 else 0.5 * step_size) * grad
    kinetic, kinetic_start = 0.5 * momentum.square().sum(-1), 0.5 * start.square().sum(-1)
    log_accept = state.potential + kinetic_start - potential - kinetic
    new, info = metropolis(state, State(z, potential, grad), log_accept)
    return new, info._replace(energy=new.potential + torch.where(info.accepted, kinetic, kinetic_start))
