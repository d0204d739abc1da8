"""Metropolis-Hastings with the user's own proposal in latent space (REP-GAN's theorem).

Leaves invariant: the target `exp(-U(z))`, if the proposal reports its ratio of densities correctly.
Proposal: the user's `z' ~ q(. | z)`, symmetric or not.
Accepts with probability `min(1, p(z') q(z | z') / (p(z) q(z' | z)))`; for a latent posterior
`p0(z') r(G(z')) q(z | z') / (p0(z) r(G(z)) q(z' | z))`, in which no Jacobian of the generator appears.
Papers: Monte Carlo sampling methods using Markov chains and their applications, Hastings, 1970; Reparameterized
Sampling for Generative Adversarial Networks, Wang et al., 2021, https://arxiv.org/abs/2107.00352, theorem 1.
Cost of a step: the proposal, and one value of the potential for each chain, with the gradient if the proposal needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc.accept import Info, metropolis
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.targets import State

__all__ = ["GuidedProposal", "MetropolisHastings", "Proposal"]


@runtime_checkable
class Proposal(Protocol):
    """Proposes positions, and reports the ratio of the densities of the way back and of the way there."""

    def propose(self, state: State) -> tuple[Float[Tensor, "chain dim"], Float[Tensor, " chain"]]:
        """Propose a position for every chain.

        The call runs under `torch.no_grad()`. A proposal that needs the gradient of the target is a `GuidedProposal`.

        Args:
            state: Where the chains are: `state.z`, `(chain, dim)`, unconstrained sites raveled and joined, and
                `state.potential`, `(chain,)`. Its tensors must not be changed in place.

        Returns:
            New positions `z'`, `(chain, dim)`, and `log q(z | z') - log q(z' | z)`, `(chain,)`: the log density of
            the way back minus that of the way there; 0 for a symmetric proposal.
        """


@runtime_checkable
class GuidedProposal(Protocol):
    """A proposal that uses the gradient of the target, an adapted step size, or both.

    Attributes:
        uses_gradient: Whether states must have `grad`.
        adaptation: The step size, which the kernel adapts during warmup, or None. The proposal reads
            `self.adaptation.value`, a scalar tensor.
    """

    uses_gradient: bool
    adaptation: StepSize | None

    def propose_state(self, state: State, evaluate: Callable[[Tensor], State]) -> tuple[State, Float[Tensor, " chain"]]:
        """Propose a position for every chain, and evaluate the target there.

        Args:
            state: Where the chains are, with `grad` if `uses_gradient`. Its tensors must not be changed in place.
            evaluate: Returns the state at positions `(chain, dim)`, with `grad` if `uses_gradient`. Each call costs a
                pass through the networks.

        Returns:
            The state at the new positions, as `evaluate` returned it, and `log q(z | z') - log q(z' | z)`, `(chain,)`.
        """


@final
class MetropolisHastings(BatchKernel):
    """Metropolis-Hastings with a given proposal, all chains at once.

    The proposal may be asymmetric, learned, a flow or a mixture of moves: the chain is correct if the proposal reports
    its ratio of densities correctly. If the proposal depends on past states, or learns while it runs, the chain does
    not sample the target: let it adapt during warmup only.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: An object with `propose(state)`, see `Proposal`, or with `propose_state(state, evaluate)`, see
            `GuidedProposal`.

    Raises:
        ValueError: if the proposal has neither method, or what it returns has another shape or dtype than expected.

    Example:
        A multiplicative step on a positive latent: `z' = z s`, `log s ~ N(0, 0.5^2)`, with `q(z | z') / q(z' | z) = s`.

        >>> class Scale:
        ...     def propose(self, state):
        ...         log_scale = 0.5 * torch.randn_like(state.potential)
        ...         return state.z * log_scale.exp().unsqueeze(-1), state.z.shape[-1] * log_scale
        >>> kernel = MetropolisHastings(potential_fn=lambda p: p["z"].square().sum(-1) / 2, proposal=Scale())
        >>> kernel.bind(3)
        >>> kernel.initial_params = {"z": torch.ones(3, 1)}
        >>> kernel.setup(warmup_steps=0)
        >>> kernel.sample(kernel.initial_params)["z"].shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        proposal: Proposal | GuidedProposal,
    ) -> None:
        if not isinstance(proposal, Proposal | GuidedProposal) or isinstance(proposal, type):
            raise ValueError(
                "Expected a proposal with a method propose(state) -> (z_new, log_q_ratio); got "
                f"{checks.shown(proposal)}. To propose from one distribution that does not depend on the state, use "
                "IndependenceMH."
            )
        adaptation = proposal.adaptation if isinstance(proposal, GuidedProposal) else None
        super().__init__(model, potential_fn, num_chains=num_chains, adaptation=adaptation)
        self.uses_gradient = isinstance(proposal, GuidedProposal) and proposal.uses_gradient
        self.proposal = proposal

    def transition(self, state: State) -> tuple[State, Info]:
        """Ask for a proposal, and accept or reject it."""
        name, version = type(self.proposal).__name__, state.z._version
        if isinstance(self.proposal, GuidedProposal):
            proposal, log_q_ratio = _pair(name, self.proposal.propose_state(state, self.evaluate), State)
        else:
            z, log_q_ratio = _pair(name, self.proposal.propose(state), Tensor)
            _check_positions(name, state.z, z)
            proposal = self.evaluate(z.detach())
        if state.z._version != version:
            raise ValueError(
                f"{name} has changed state.z in place, so chains would move without an accept. Make a new tensor."
            )
        _check_positions(name, state.z, proposal.z)
        if log_q_ratio.shape != state.potential.shape:
            raise ValueError(
                f"Expected {name} to return one log_q_ratio for each chain, shape {tuple(state.potential.shape)}; got "
                f"{tuple(log_q_ratio.shape)}. Sum over the latents' dimension; for a symmetric proposal return zeros."
            )
        # The density of the way back is never infinite: such a ratio is a mistake, and would always be accepted.
        log_q_ratio = log_q_ratio.detach()
        log_q_ratio = torch.where(torch.isposinf(log_q_ratio), torch.nan, log_q_ratio)
        return metropolis(state, proposal, state.potential - proposal.potential + log_q_ratio)


def _pair(name: str, proposed: Any, kind: type) -> Any:
    """Return what a proposal returned, or raise unless it is a pair of a `kind` and a tensor of ratios."""
    if not (
        isinstance(proposed, tuple)
        and len(proposed) == 2
        and isinstance(proposed[0], kind)
        and torch.is_tensor(proposed[1])
    ):
        what = "(z_new, log_q_ratio)" if kind is Tensor else "(state_new, log_q_ratio)"
        raise ValueError(
            f"Expected {name} to return a pair {what}; got {checks.shown(proposed)}. For a symmetric proposal "
            "log_q_ratio is a tensor of zeros, one for each chain."
        )
    return proposed


def _check_positions(name: str, old: Tensor, new: Tensor) -> None:
    expected, came = ((tuple(z.shape), z.dtype, str(z.device)) for z in (old, new))
    if came != expected:
        raise ValueError(
            f"Expected {name} to return positions of shape {expected[0]}, {expected[1]} on {expected[2]}; got "
            f"{came[0]}, {came[1]} on {came[2]}."
        )
