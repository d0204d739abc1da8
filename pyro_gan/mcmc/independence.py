"""Independence Metropolis-Hastings: propose from the prior, accept by the ratio of weights (MH-GAN).

Leaves invariant: the target `p(z)`, proportional to `q(z) w(z)`.
Proposal: `z' ~ q`, by default the prior; it does not depend on the state.
Accepts with probability `min(1, w(z') / w(z))`; for a latent posterior `w = r(G(z))`.
Paper: Metropolis-Hastings Generative Adversarial Networks, Turner et al., 2019, https://arxiv.org/abs/1811.11357.
Cost of a step: one forward pass of generator and critic for each chain, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan._random import own_generators
from pyro_gan._typing import Params, Tempered
from pyro_gan.mcmc.accept import Info, accept_by_weight
from pyro_gan.mcmc.data_start import DataStart, Policy, check_data_start, settle, start_at_scores
from pyro_gan.mcmc.proposal import IndependenceKernel
from pyro_gan.mcmc.start import find_start
from pyro_gan.targets import State

__all__ = ["IndependenceMH"]


@final
class IndependenceMH(IndependenceKernel):
    """The sampler of MH-GAN, in the latent space.

    With an exact ratio the stationary acceptance rate is `2 (1 - AUC)` with the critic's AUC; a gap between the two
    shows miscalibration. Chains start at prior draws. A proposal does not depend on the old position, so chains cross
    between modes freely. But a chain at a latent of large weight stays there for a long time: look at the share of
    chains that never moved.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: Distribution to propose from instead of the prior, over all unconstrained sites raveled and joined in
            the order of their names: event shape `(dim,)`, or that of the only site. Its support must cover the
            target's.
        initial_log_ratio: Log ratios of held-out real data, `(row,)`. Chains start at these, as MH-GAN's do, instead of
            prior draws; each chain takes one at random. (They are divided by the model's temperature if it has one.)
            Such a chain has no latent before it has accepted a proposal: until then its position is NaN, which a
            `hook_fn` sees and no draw contains. Needs warmup, and `VectorizedMCMC` without superchains, because chains
            that share a score do not share a position.
        policy: What happens to chains that have accepted nothing when warmup ends. "continue": each goes on until it
            accepts a proposal, for at most `budget` steps, and is dropped if it does not; the first proposal that a
            chain accepts is a draw of the target with its weights cut at the weight of the chain's data point. "drop":
            they are dropped. "restart": they start again from a prior draw and repeat warmup (MH-GAN's rule). With all
            three the output lacks these data points, most of all with "restart".
        budget: Largest number of steps that "continue" may add; ten times the warmup if None.

    Attributes:
        data_start: What became of chains that started at real data, a `DataStart`; None before a run, or without them.

    Raises:
        ValueError: for a bare `potential_fn` without `proposal`, or a proposal of another dimension; for
            `initial_log_ratio` that is not finite or not of shape `(row,)`, with `proposal`, without warmup, under
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
        initial_log_ratio: Float[Tensor, " row"] | None = None,
        policy: Policy = "continue",
        budget: int | None = None,
    ) -> None:
        super().__init__(model, potential_fn, num_chains=num_chains, proposal=proposal)
        check_data_start(initial_log_ratio, policy, budget)
        if initial_log_ratio is not None and proposal is not None:
            raise ValueError(
                "Expected initial_log_ratio or proposal=; got both. Leave one out: a log ratio weighs the prior."
            )
        self.initial_log_ratio = initial_log_ratio
        self.policy = policy
        self.budget = budget
        self.data_start: DataStart | None = None
        self._placed: Tensor | None = None

    @property
    def placed(self) -> Bool[Tensor, " chain"]:
        """Which chains have a position: all but those that started at real data and were dropped."""
        return super().placed if self._placed is None else self._placed

    def prepare(self, num_chains: int) -> None:
        """Drop proposals that were scored ahead, check the proposal, and forget earlier starts at real data."""
        super().prepare(num_chains)
        if self.initial_log_ratio is not None:
            self._check_runner()
        self._placed, self.data_start = None, None

    def state_dict(self) -> dict[str, Any]:
        """Return what every such kernel keeps, and what became of chains that started at real data."""
        return super().state_dict() | {"placed": self._placed, "data_start": self.data_start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self._placed = state["placed"]
        self.data_start = None if state["data_start"] is None else DataStart(*state["data_start"])

    def first_state(self, num_chains: int) -> State:
        """Return the state that chains start from: prior draws, or the scores of real data."""
        if self.initial_log_ratio is None:
            return super().first_state(num_chains)
        with own_generators():
            like = self.sample_start(1)
        temperature = self.model.temperature if isinstance(self.model, Tempered) else 1.0
        return start_at_scores(self.initial_log_ratio / temperature, num_chains, self.target, like)

    def reevaluate(self, z: Float[Tensor, "chain dim"], known: State | None) -> State:
        """Return the state at positions that the caller has changed; a chain without a position keeps its score."""
        state = super().reevaluate(z, known)
        if known is None or not self.is_warming_up or self.initial_log_ratio is None:
            return state
        waiting = z.isnan().any(-1) & ~self._moved
        assert state.log_weight is not None and known.log_weight is not None
        return state._replace(log_weight=torch.where(waiting, known.log_weight, state.log_weight))

    def transition(self, state: State) -> tuple[State, Info]:
        """Propose from the prior or the proposal, and accept or reject by the ratio of weights."""
        return accept_by_weight(state, self.next_proposals(len(state.z)))

    def finish_warmup(self, state: State) -> State:
        """Apply the policy to chains that started at real data and have accepted nothing."""
        if self.initial_log_ratio is None:
            return state
        settled = settle(
            state,
            self._moved,
            self.score_ahead,
            # The prior draw that a restart begins with counts as a step.
            fresh=lambda chains: find_start(chains, self.sample_start, self.evaluate),
            policy=self.policy,
            restart_steps=self.warmup_steps - 1,
            budget=10 * self.warmup_steps if self.budget is None else self.budget,
        )
        self._moved, self._placed, self.data_start = settled.moved, settled.placed, settled.report
        return settled.state

    def _check_runner(self) -> None:
        if self._runner_chains is None:
            raise ValueError(
                "Chains that start at real data have no latent at first, and only VectorizedMCMC can handle that. "
                "Use it, or leave initial_log_ratio out."
            )
        if self.warmup_steps == 0:
            raise ValueError(
                "Expected warmup_steps of at least 1 with initial_log_ratio; got 0. Such chains have no latent before "
                "they accept a proposal."
            )
        if self._starts is not None:
            raise ValueError(
                "Expected no num_superchains with initial_log_ratio: chains that share a score do not start at one "
                "point, so nested R-hat would not detect anything."
            )
        if self.given_params is not None:
            raise ValueError("Expected initial_log_ratio or initial_params; got both. Leave one out.")
