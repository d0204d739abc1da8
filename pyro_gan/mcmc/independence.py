"""Independence Metropolis-Hastings: propose from the prior, accept by the ratio of weights (MH-GAN).

Leaves invariant: the target `p(z)`, proportional to `q(z) w(z)`.
Proposal: `z' ~ q`, by default the prior, whatever the state.
Accepts with probability `min(1, w(z') / w(z))`; for a latent posterior `w = r(G(z))`.
Paper: Metropolis-Hastings Generative Adversarial Networks, Turner et al., 2019, https://arxiv.org/abs/1811.11357.
Cost of a step: one forward pass of generator and critic a chain, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._random import rng_fork
from pyro_gan._typing import Params, Tempered
from pyro_gan.mcmc._proposal import IndependenceKernel
from pyro_gan.mcmc.data_start import DataStart, Policy, check_policy, check_scores, settle, start_at_scores
from pyro_gan.mcmc.metropolis import Info, State, metropolis
from pyro_gan.mcmc.start import find_start

__all__ = ["IndependenceMH"]


class IndependenceMH(IndependenceKernel):
    """The sampler of MH-GAN, in the latent space.

    With an exact ratio the stationary acceptance rate is `2 (1 - AUC)`, AUC being the critic's; a gap between the two
    is miscalibration. Chains start at prior draws. Steps are independent of the dimension and cross modes freely, but
    a chain at a latent of great weight stays there for a long time: watch the chains that never moved.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: Distribution to propose from in place of the prior, over all unconstrained sites raveled and joined in
            the order of their names: event shape `(dim,)`, or the one site's. Its support must cover the target's.
        initial_log_ratio: Log ratios of real data, held out, `(datum,)`: chains start at these, as MH-GAN's do, and
            not at prior draws; each takes one at random. (They are divided by the model's temperature if it has one.)
            Such a chain has no latent before it has accepted one: its position is NaN, which a `hook_fn` sees and no
            draw holds. Needs warmup, and `VectorizedMCMC` without superchains: chains with a score in common are no
            nearer to one another than others.
        policy: What is done about chains that have accepted nothing when warmup ends. "continue": they go on until
            each has accepted, `budget` steps at most, and what is left is dropped; a chain's first accepted proposal
            is a draw of the target with weights cut at its datum's. "drop": the run goes on without them. "restart":
            they start again from a prior draw and repeat warmup (MH-GAN's rule). All three lack what those data stand
            for, "restart" most.
        budget: Most steps that "continue" may add; ten times the warmup if None.

    Attributes:
        data_start: What became of chains started at real data, a `DataStart`; None before a run, or without them.

    Raises:
        ValueError: for a bare `potential_fn` without `proposal`, or a proposal of another dimension; for
            `initial_log_ratio` that is not finite or not of shape `(datum,)`, with `proposal`, without warmup, under
            another runner, with initial params or superchains; for `policy` or `budget` without it; if all chains were
            dropped.

    Example:
        >>> from pyro_gan import LatentPosterior, VectorizedMCMC, toys
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> mcmc = VectorizedMCMC(
        ...     IndependenceMH(LatentPosterior(toy.generator, toy.log_ratio, toy.prior)),
        ...     num_samples=10, warmup_steps=10, num_chains=4, disable_progbar=True,
        ... )
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
        proposal: torch.distributions.Distribution | None = None,
        initial_log_ratio: Float[Tensor, " datum"] | None = None,
        policy: Policy = "continue",
        budget: int | None = None,
    ) -> None:
        super().__init__(model, potential_fn, num_chains=num_chains, proposal=proposal)
        check_policy(policy, budget, has_scores=initial_log_ratio is not None)
        if initial_log_ratio is not None:
            check_scores(initial_log_ratio)
            if proposal is not None:
                raise ValueError(
                    "Expected initial_log_ratio or proposal=, not both: a log ratio is a weight over the prior."
                )
        self.initial_log_ratio = initial_log_ratio
        self.policy = policy
        self.budget = budget
        self.data_start: DataStart | None = None
        self._placed: Tensor | None = None

    @property
    def placed(self) -> Tensor:
        """Which chains have a position, `(chain,)`: all, but for those started at real data and dropped."""
        return super().placed if self._placed is None else self._placed

    def _prepare(self, num_chains: int) -> None:
        super()._prepare(num_chains)
        self._placed, self.data_start = None, None

    def _start(self, chains: int | None) -> State:
        if self.initial_log_ratio is not None:
            if self._runner_chains is None:
                raise ValueError(
                    "Chains that start at real data have no latent at first, which only VectorizedMCMC can handle. "
                    "Use it, or leave initial_log_ratio out."
                )
            if self._warmup_steps == 0:
                raise ValueError(
                    "Expected warmup_steps of at least 1 with initial_log_ratio; got 0. Before they accept a proposal "
                    "such chains have no latent to give."
                )
            if self._starts is not None:
                raise ValueError(
                    "Expected no num_superchains with initial_log_ratio: chains that share a score do not start at one "
                    "point, and nested R-hat would see nothing."
                )
            if self._given_params is not None:
                raise ValueError("Expected initial_log_ratio or initial_params, not both.")
        return super()._start(chains)

    def _first_state(self, num_chains: int) -> State:
        if self.initial_log_ratio is None:
            return super()._first_state(num_chains)
        with rng_fork():
            like = self.target.sample_prior(1)
        temperature = self.model.temperature if isinstance(self.model, Tempered) else 1.0
        return start_at_scores(self.initial_log_ratio / temperature, num_chains, self.target, like)

    def _reevaluate(self, z: Float[Tensor, "chain dim"], known: State | None) -> State:
        state = super()._reevaluate(z, known)
        if known is None or self._step >= self._warmup_steps or self.initial_log_ratio is None:
            return state
        # Somebody moved other chains. Of those that wait there is nothing to evaluate, and their score still holds.
        waiting = z.isnan().any(-1) & ~self._moved
        assert state.log_weight is not None and known.log_weight is not None
        return state._replace(log_weight=torch.where(waiting, known.log_weight, state.log_weight))

    def _transition(self, state: State) -> tuple[State, Info]:
        proposal = self._next_proposals(len(state.z))
        assert proposal.log_weight is not None and state.log_weight is not None
        return metropolis(state, proposal, proposal.log_weight - state.log_weight)

    def _end_warmup(self, state: State) -> State:
        if self.initial_log_ratio is None:
            return state
        settled = settle(
            state,
            self._moved,
            self._score_ahead,
            # The prior draw that a restart begins with takes the place of a step.
            fresh=lambda chains: find_start(chains, self._propose, self._evaluate),
            policy=self.policy,
            restart_steps=self._warmup_steps - 1,
            budget=10 * self._warmup_steps if self.budget is None else self.budget,
        )
        self._moved, self._placed, self.data_start = settled.moved, settled.placed, settled.report
        return settled.state
