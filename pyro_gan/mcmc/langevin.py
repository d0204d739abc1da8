"""Langevin proposals in the latent space: corrected by Metropolis-Hastings (MALA, REP-GAN's kernel) or not (ULA, DDLS).

Leaves invariant: MALA the target `exp(-U(z))`; ULA a distribution that differs from it by the order of the step size.
Proposal: `z' = z - (step_size / 2) grad U(z) + sqrt(step_size) eps`, `eps ~ N(0, I)`.
Papers: Exponential convergence of Langevin distributions and their discrete approximations, Roberts and Tweedie, 1996;
Reparameterized Sampling for Generative Adversarial Networks, Wang et al., 2021, https://arxiv.org/abs/2107.00352;
Your GAN is Secretly an Energy-based Model, Che et al., 2020, https://arxiv.org/abs/2003.06060.
Cost of a step: one value and gradient of the potential for each chain; those of the old state are kept.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.mcmc.accept import MAX_ENERGY_CHANGE, Info, metropolis
from pyro_gan.mcmc.laggards import Laggards
from pyro_gan.mcmc.stepped import SteppedKernel
from pyro_gan.targets import State, Target

__all__ = ["MALA", "ULA", "mala_step", "ula_step"]


@final
class MALA(SteppedKernel):
    """The Metropolis-adjusted Langevin algorithm, all chains at once.

    The step size is the variance of the noise, as REP-GAN and DDLS write it. Papers that write
    `z - gamma grad U + sqrt(2 gamma) eps` have `gamma = step_size / 2`. Local steps do not cross between well
    separated modes, whatever their acceptance.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size, squared latent units.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to; by default .574, the optimum for many dimensions. Steps stay
            shorter while a chain is left behind whose proposals are all rejected.

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

    uses_gradient = True
    optimal_accept_prob = 0.574

    _laggards: Laggards

    def prepare(self, num_chains: int) -> None:
        """Forget which chains an earlier run left behind."""
        self._laggards = Laggards()

    def adaptation_statistic(self, info: Info) -> Tensor:
        """Return the mean acceptance, lowered while chains are left behind where no step of this size is accepted."""
        return self._laggards.weigh(info.accept_prob)

    def transition(self, state: State) -> tuple[State, Info]:
        """Propose a Langevin step, and accept or reject it."""
        return mala_step(state, self.target, self.step_size)


@final
class ULA(SteppedKernel):
    """The unadjusted Langevin algorithm: every proposal is taken (DDLS).

    It does not sample the target exactly: on a normal distribution of variance `v` its variance is
    `v / (1 - step_size / (4 v))`, and in general the error grows with the step size. Chains diverge from a step size of
    `4 v` on, where `v` is the variance across the narrowest place of the target. Half the step size leaves about half
    the error and takes twice the steps. `MALA` costs the same and has no such error; use ULA for comparison, and for
    targets on which MALA rejects nearly everything. The acceptance that ULA reports is that of MALA: 1 minus the
    acceptance measures the error of a step.

    While the step size adapts, steps are accepted or rejected as in MALA: the search tries steps that are too long,
    which would throw chains far out. All other steps are unadjusted, so every kept draw is.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size, squared latent units; see `MALA`.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance of MALA to adapt to; .95 by default.

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

    uses_gradient = True
    is_exact = False
    optimal_accept_prob = 0.95

    _laggards: Laggards

    def prepare(self, num_chains: int) -> None:
        """Forget which chains an earlier run left behind."""
        self._laggards = Laggards()

    def adaptation_statistic(self, info: Info) -> Tensor:
        """Return the mean acceptance, lowered while chains are left behind where no step of this size is accepted."""
        return self._laggards.weigh(info.accept_prob)

    def transition(self, state: State) -> tuple[State, Info]:
        """Take a Langevin step; while the step size adapts, accept or reject it as MALA does."""
        step = mala_step if self.adaptation.is_adapting else ula_step
        return step(state, self.target, self.step_size)


def mala_step(state: State, target: Target, step_size: Tensor) -> tuple[State, Info]:
    """Make one MALA transition.

    Args:
        state: Positions with potential and gradient.
        target: Evaluated once, with its gradient.
        step_size: Scalar, or `(chain, 1)` for one step size for each chain.

    Returns:
        The next state and what happened.
    """
    proposal, log_accept = _propose(state, target, step_size)
    return metropolis(state, proposal, log_accept)


def ula_step(state: State, target: Target, step_size: Tensor) -> tuple[State, Info]:
    """Make one ULA transition.

    Args:
        state: Positions with potential and gradient.
        target: Evaluated once, with its gradient.
        step_size: Scalar, or `(chain, 1)` for one step size for each chain.

    Returns:
        The next state and what happened; `accept_prob` is the one of MALA. A chain stays where it is if the potential
        or the gradient of its proposal is not finite.
    """
    proposal, log_accept = _propose(state, target, step_size)
    # A proposal where the target is zero is not taken: no gradient leads back from there.
    taken = torch.where(torch.isposinf(proposal.potential), -torch.inf, torch.inf)
    new, info = metropolis(state, proposal, taken.to(log_accept))
    log_accept = log_accept.masked_fill(info.invalid | torch.isnan(log_accept), -torch.inf)
    return new, info._replace(accept_prob=log_accept.clamp(max=0.0).exp(), diverging=log_accept < -MAX_ENERGY_CHANGE)


def _propose(state: State, target: Target, step_size: Tensor) -> tuple[State, Float[Tensor, " chain"]]:
    """Return a Langevin step, and the log of its Metropolis-Hastings ratio."""
    assert state.grad is not None
    noise = torch.randn_like(state.z)
    z = state.z - 0.5 * step_size * state.grad + step_size.sqrt() * noise
    proposal = target.evaluate(target.wrap(z), gradient=True)
    assert proposal.grad is not None
    # The noise of the step back, in units of its standard deviation.
    back = noise - 0.5 * step_size.sqrt() * (state.grad + proposal.grad)
    log_q_ratio = 0.5 * (noise.square() - back.square()).sum(-1)
    return proposal, state.potential - proposal.potential + log_q_ratio
