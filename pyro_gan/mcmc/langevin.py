"""Langevin proposals in the latent space: corrected by Metropolis-Hastings (MALA, REP-GAN's kernel) or not (ULA, DDLS).

Leaves invariant: MALA the target `exp(-U(z))`; ULA a law that differs from it by an amount of the order of the step.
Proposal: `z' = z - (step_size / 2) grad U(z) + sqrt(step_size) eps`, `eps ~ N(0, I)`.
Papers: Exponential convergence of Langevin distributions and their discrete approximations, Roberts and Tweedie, 1996;
Reparameterized Sampling for Generative Adversarial Networks, Wang et al., 2021, https://arxiv.org/abs/2107.00352;
Your GAN is Secretly an Energy-based Model, Che et al., 2020, https://arxiv.org/abs/2003.06060.
Cost of a step: one value and gradient of the potential a chain; the old state's is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import MAX_ENERGY_CHANGE, Info, State, metropolis
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.targets import Target

__all__ = ["MALA", "ULA", "mala_step", "ula_step"]


class MALA(BatchKernel):
    """The Metropolis-adjusted Langevin algorithm, all chains at once.

    The step size is the square of the noise's standard deviation, as REP-GAN and DDLS write it. Papers that write
    `z - gamma grad U + sqrt(2 gamma) eps` have `gamma = step_size / 2`. Local steps do not cross between well
    separated modes, whatever their acceptance.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size, squared latent units.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to; .574 is the optimum for many dimensions.

    Raises:
        ValueError: if the step size is not positive and finite, or the target acceptance outside (0, 1).

    Example:
        >>> kernel = MALA(potential_fn=lambda p: p["z"].square().sum(-1) / 2, num_chains=3, step_size=0.5)
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
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.574,
    ) -> None:
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, *self.target.potential_and_grad(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        assert self.step_size is not None
        return mala_step(state, self.target, self.step_size)


class ULA(BatchKernel):
    """The unadjusted Langevin algorithm: every proposal is taken (DDLS).

    What it samples is not the target: on a normal of variance `v` it settles at `v / (1 - step_size / (4 v))`, and in
    general the error grows with the step; from a step of `4 v` on, `v` the variance across the target's narrowest
    place, chains run away. Half the step leaves about half the error and takes twice the steps. `MALA` costs the same
    and has no such error; ULA is here for comparison, and for targets on which MALA rejects nearly
    everything. The acceptance it reports is what MALA would have accepted: 1 less that is how wrong a step is.

    While the step size adapts, steps are MALA's: the search tries steps that are too long, and a chain that takes them
    all would be thrown far out. Every kept draw, and all of warmup without adaptation, is unadjusted.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size, squared latent units; see `MALA`.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance, had there been any, to adapt to.

    Raises:
        ValueError: if the step size is not positive and finite, or the target acceptance outside (0, 1).

    Example:
        >>> kernel = ULA(potential_fn=lambda p: p["z"].square().sum(-1) / 2, num_chains=3, step_size=0.1)
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
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.95,
    ) -> None:
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, *self.target.potential_and_grad(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        assert self._adaptive is not None
        step = mala_step if self._adaptive.is_adapting else ula_step
        return step(state, self.target, self._adaptive.value)


def mala_step(state: State, target: Target, step_size: Tensor) -> tuple[State, Info]:
    """Make one MALA transition.

    Args:
        state: Positions with potential and gradient.
        target: Gives the proposal's potential and gradient, once.
        step_size: Scalar, or `(chain, 1)` for a step size a chain.

    Returns:
        The next state and what happened.
    """
    proposal, log_accept = _propose(state, target, step_size)
    return metropolis(state, proposal, log_accept)


def ula_step(state: State, target: Target, step_size: Tensor) -> tuple[State, Info]:
    """Make one ULA transition.

    Args:
        state: Positions with potential and gradient.
        target: Gives the new position's potential and gradient, once.
        step_size: Scalar, or `(chain, 1)` for a step size a chain.

    Returns:
        The next state and what happened; `accept_prob` is what MALA's would have been. A chain whose new potential or
        gradient is not finite stays where it is.
    """
    proposal, log_accept = _propose(state, target, step_size)
    # Anywhere but where the target is zero: no gradient would lead back.
    taken = torch.where(torch.isposinf(proposal.potential), -torch.inf, torch.inf)
    new, info = metropolis(state, proposal, taken.to(log_accept))
    log_accept = log_accept.masked_fill(info.invalid | torch.isnan(log_accept), -torch.inf)
    return new, info._replace(
        accept_prob=log_accept.clamp(max=0.0).exp(), diverging=log_accept < -MAX_ENERGY_CHANGE
    )


def _propose(state: State, target: Target, step_size: Tensor) -> tuple[State, Float[Tensor, " chain"]]:
    """Return a Langevin step, and the log of its Metropolis-Hastings ratio."""
    assert state.grad is not None
    noise = torch.randn_like(state.z)
    z = state.z - 0.5 * step_size * state.grad + step_size.sqrt() * noise
    proposal = State(z, *target.potential_and_grad(z))
    assert proposal.grad is not None
    # The noise that would lead back, in units of its standard deviation.
    back = noise - 0.5 * step_size.sqrt() * (state.grad + proposal.grad)
    log_q_ratio = 0.5 * (noise.square() - back.square()).sum(-1)
    return proposal, state.potential - proposal.potential + log_q_ratio
