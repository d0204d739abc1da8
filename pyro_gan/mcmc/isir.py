"""Iterated sampling importance resampling: a chain chooses by weight among where it is and some fresh draws (i-SIR).

Leaves invariant: the target `p(z)`, proportional to `q(z) w(z)`.
Proposals: `z_2, ..., z_N ~ q`, by default the prior, whatever the state `z_1`; the next state is `z_i` with probability
`w(z_i) / sum_j w(z_j)`. For a latent posterior `w = r(G(z))`.
Papers: Uniform ergodicity of the iterated conditional SMC and geometric ergodicity of particle Gibbs samplers, Andrieu,
Lee and Vihola, 2018, https://arxiv.org/abs/1312.6432; Local-Global MCMC kernels: the best of both worlds, Samsonov et
al., 2022, https://arxiv.org/abs/2111.02702.
Cost of a step: `num_particles - 1` forward passes of generator and critic a chain, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc._proposal import IndependenceKernel
from pyro_gan.mcmc.metropolis import Info, State

__all__ = ["ISIR", "isir_step"]


class ISIR(IndependenceKernel):
    r"""Iterated sampling importance resampling, all chains at once.

    Where every weight is at most `L` times its mean, a step brings the law of a chain nearer to the target by a factor
    of `1 - (N - 1) / (2 L + N - 2)` at least, in total variation. For the same forwards `IndependenceMH` makes `N - 1`
    steps, whose factor `(1 - 1 / L)^(N - 1)` is smaller; what `ISIR` buys is fewer and longer steps, each of which may
    be followed by something dear, as in `LocalGlobal`.

    What a draw's statistics say: `accept_prob` is the probability of leaving, 1 less the normalised weight of the old
    state; `diverging` whether any of the particles had a weight that is NaN or plus infinity. Such a particle has
    weight zero.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        num_particles: Particles to choose among, the current state one of them.
        proposal: Distribution to propose from in place of the prior, over all unconstrained sites raveled and joined in
            the order of their names: event shape `(dim,)`, or the one site's. Its support must cover the target's.

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
        if num_particles < 2:
            raise ValueError(
                f"Expected num_particles of at least 2, the chain's own state and one to change to; got "
                f"{num_particles}."
            )
        self.num_particles = num_particles

    def _transition(self, state: State) -> tuple[State, Info]:
        fresh = self.num_particles - 1
        return isir_step(state, self._next_proposals(len(state.z) * fresh))


def isir_step(state: State, particles: State) -> tuple[State, Info]:
    """Let every chain choose by weight between its state and as many fresh particles as there are for each.

    Args:
        state: Where the chains are, with log weights; these are not computed again.
        particles: Draws of the proposal with log weights, `chain * particle` rows, those of a chain in a row.

    Returns:
        The next state and what happened; `accept_prob` is the probability of leaving.
    """
    assert state.log_weight is not None and particles.log_weight is not None
    chains = len(state.z)
    proposed = particles.log_weight.reshape(chains, -1)
    unusable = torch.isnan(proposed) | torch.isposinf(proposed)
    log_weight = torch.cat([state.log_weight.unsqueeze(1), proposed.masked_fill(unusable, -torch.inf)], dim=1)
    # The largest of log weights with Gumbel noise falls on each particle with the probability that is due to it.
    gumbel = -torch.empty_like(log_weight).exponential_().log()
    chosen = (log_weight + gumbel).argmax(1)
    left = chosen > 0
    row = torch.arange(chains, device=chosen.device) * proposed.shape[1] + (chosen - 1).clamp(min=0)
    new = State(
        z=torch.where(left.unsqueeze(-1), particles.z[row], state.z),
        potential=torch.where(left, particles.potential[row], state.potential),
        log_weight=torch.where(left, particles.log_weight[row], state.log_weight),
    )
    # A chain that was put where the proposal has no density weighs infinitely much: it stays, and that is said.
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
