"""Iterated sampling importance resampling (i-SIR): a chain chooses by weight among its position and fresh draws.

Leaves invariant: the target `p(z)`, proportional to `q(z) w(z)`.
Proposals: `z_2, ..., z_N ~ q`, by default the prior; they do not depend on the state `z_1`. The next state is `z_i`
with probability `w(z_i) / sum_j w(z_j)`. For a latent posterior `w = r(G(z))`.
Papers: Uniform ergodicity of the iterated conditional SMC and geometric ergodicity of particle Gibbs samplers, Andrieu,
Lee and Vihola, 2018, https://arxiv.org/abs/1312.6432; Local-Global MCMC kernels: the best of both worlds, Samsonov et
al., 2022, https://arxiv.org/abs/2111.02702.
Cost of a step: `num_particles - 1` forward passes of generator and critic for each chain, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc.accept import Info
from pyro_gan.mcmc.proposal import IndependenceKernel
from pyro_gan.targets import State

__all__ = ["ISIR", "isir_step"]


@final
class ISIR(IndependenceKernel):
    r"""Iterated sampling importance resampling, all chains at once.

    If each weight is at most `L` times the mean weight, a step reduces the distance in total variation between the
    distribution of a chain and the target at least by a factor of `1 - (N - 1) / (2 L + N - 2)`. `IndependenceMH` makes
    `N - 1` steps with the same number of forward passes, and their factor `(1 - 1 / L)^(N - 1)` is smaller. The
    advantage of `ISIR` is that its steps are fewer and longer, so each can be followed by a costly move, as in
    `LocalGlobal`.

    Statistics of a draw: `accept_prob` is the probability of leaving, 1 minus the normalised weight of the old state;
    `diverging` says whether the weight of any particle was NaN or plus infinity. Such a particle has weight zero.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        num_particles: Particles to choose among; the current state is one of them.
        proposal: Distribution to propose from instead of the prior, over all unconstrained sites raveled and joined in
            the order of their names: event shape `(dim,)`, or that of the only site. Its support must cover the
            target's.

    Raises:
        ValueError: for fewer than 2 particles, a bare `potential_fn` without `proposal`, or a proposal of another
            dimension.

    Example:
        >>> from pyro_gan import LatentPosterior, VectorizedMCMC, toys
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> mcmc = VectorizedMCMC(ISIR(gan), num_samples=10, num_chains=4, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples(group_by_chain=True)["z"].shape
        torch.Size([4, 10, 1])
    """

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        num_particles: int = 10,
        proposal: torch.distributions.Distribution | None = None,
    ) -> None:
        super().__init__(model, potential_fn, num_chains=num_chains, proposal=proposal)
        self.num_particles = checks.count(
            "num_particles", num_particles, minimum=2, cure="The chain's own state is one of them."
        )

    def transition(self, state: State) -> tuple[State, Info]:
        """Choose by weight between the chain's state and fresh proposals."""
        return isir_step(state, self.next_proposals(len(state.z) * (self.num_particles - 1)))


def isir_step(state: State, particles: State) -> tuple[State, Info]:
    """Let each chain choose by weight among its state and its share of the fresh particles.

    Args:
        state: Where the chains are, with log weights; these are not computed again.
        particles: Draws of the proposal with log weights, `chain * particle` rows; the particles of a chain are
            adjacent.

    Returns:
        The next state and what happened; `accept_prob` is the probability of leaving.
    """
    assert state.log_weight is not None and particles.log_weight is not None
    chains = len(state.z)
    proposed = particles.log_weight.reshape(chains, -1)
    unusable = torch.isnan(proposed) | torch.isposinf(proposed)
    log_weight = torch.cat([state.log_weight.unsqueeze(1), proposed.masked_fill(unusable, -torch.inf)], dim=1)
    # With Gumbel noise added, each log weight is the largest with a probability proportional to the weight.
    gumbel = -torch.empty_like(log_weight).exponential_().log()
    chosen = (log_weight + gumbel).argmax(1)
    left = chosen > 0
    row = torch.arange(chains, device=chosen.device) * proposed.shape[1] + (chosen - 1).clamp(min=0)
    new = particles.take(row).where(left, state)
    # A chain that was put where the proposal has no density has an infinite weight: it stays, and it is flagged.
    nowhere = torch.isnan(state.log_weight) | torch.isposinf(state.log_weight)
    invalid = unusable.any(1) | nowhere
    leaving = (log_weight[:, 1:].logsumexp(1) - log_weight.logsumexp(1)).exp()
    return new, Info(
        accept_prob=leaving.masked_fill(nowhere, 0.0),
        accepted=left,
        invalid=invalid,
        diverging=invalid,
        energy=new.potential,
    )
