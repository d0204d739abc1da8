"""Metropolis-Hastings with a proposal of the user's own in latent space (REP-GAN's theorem).

Leaves invariant: the target `exp(-U(z))`, if the proposal reports its ratio of densities rightly.
Proposal: the user's `z' ~ q(. | z)`, symmetric or not.
Accepts with probability `min(1, p(z') q(z | z') / (p(z) q(z' | z)))`; for a latent posterior
`p0(z') r(G(z')) q(z | z') / (p0(z) r(G(z)) q(z' | z))`, in which no Jacobian of the generator appears.
Papers: Monte Carlo sampling methods using Markov chains and their applications, Hastings, 1970; Reparameterized
Sampling for Generative Adversarial Networks, Wang et al., 2021, https://arxiv.org/abs/2107.00352, theorem 1.
Cost of a step: one value of the potential a chain, and what the proposal costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import Info, State, metropolis

__all__ = ["MetropolisHastings", "Proposal"]


@runtime_checkable
class Proposal(Protocol):
    """Where to go next, and how much likelier the way there is than the way back."""

    def propose(self, state: State) -> tuple[Float[Tensor, "chain dim"], Float[Tensor, " chain"]]:
        """Propose a position for every chain.

        It is called without gradients; what needs one, as a Langevin proposal does, opens `torch.enable_grad()` around
        its own computation.

        Args:
            state: Where the chains are: `state.z`, `(chain, dim)`, unconstrained sites raveled and joined, and
                `state.potential`, `(chain,)`. Not to be written into.

        Returns:
            New positions `z'`, `(chain, dim)`, and `log q(z | z') - log q(z' | z)`, `(chain,)`: the density of going
            back less that of going there, 0 for a symmetric proposal.
        """


class MetropolisHastings(BatchKernel):
    """Metropolis-Hastings around a proposal of one's own, all chains at once.

    The proposal may be asymmetric, learned, a flow, a mixture of moves: right is what reports its ratio of densities.
    One that depends on past states, or is trained meanwhile, is not a Markov chain any more; do so during warmup.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: An object with `propose(state) -> (z_new, log_q_ratio)`; see `Proposal`.

    Raises:
        ValueError: if the proposal has no `propose`, or what it returns has another shape or dtype than expected.

    Example:
        A multiplicative step on a positive latent: `z' = z s`, `log s ~ N(0, .5^2)`, with `q(z | z') / q(z' | z) = s`.

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
        proposal: Proposal,
    ) -> None:
        super().__init__(model, potential_fn, num_chains=num_chains)
        if not isinstance(proposal, Proposal) or isinstance(proposal, type):
            raise ValueError(
                "Expected a proposal with a method propose(state) -> (z_new, log_q_ratio); got "
                f"{proposal!r}. A distribution to draw from whatever the state is IndependenceMH's."
            )
        self.proposal = proposal

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, self.target.potential(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        name = type(self.proposal).__name__
        version = state.z._version
        proposed = self.proposal.propose(state)
        if state.z._version != version:
            raise ValueError(
                f"{name}.propose has written into state.z: a chain would move whether it accepts or not. Make a new "
                "tensor."
            )
        if not (isinstance(proposed, tuple) and len(proposed) == 2 and all(map(torch.is_tensor, proposed))):
            raise ValueError(
                f"Expected {name}.propose to give two tensors, (z_new, log_q_ratio); got {type(proposed).__name__}. "
                "For a symmetric proposal log_q_ratio is zeros, one a chain."
            )
        z, log_q_ratio = (tensor.detach() for tensor in proposed)
        expected, came = ((tuple(tensor.shape), tensor.dtype, str(tensor.device)) for tensor in (state.z, z))
        if came != expected:
            raise ValueError(
                f"Expected {name}.propose to give positions of shape {expected[0]}, {expected[1]} on {expected[2]}; "
                f"got {came[0]}, {came[1]} on {came[2]}."
            )
        if log_q_ratio.shape != state.potential.shape:
            raise ValueError(
                f"Expected {name}.propose to give one log_q_ratio a chain, shape {tuple(state.potential.shape)}; got "
                f"{tuple(log_q_ratio.shape)}. Sum over the latents' dimension; for a symmetric proposal give zeros."
            )
        proposal = self._evaluate(z)
        # There is no way back of infinite density: such a ratio is a mistake, and would be accepted.
        log_q_ratio = torch.where(torch.isposinf(log_q_ratio), torch.nan, log_q_ratio)
        return metropolis(state, proposal, state.potential - proposal.potential + log_q_ratio)
