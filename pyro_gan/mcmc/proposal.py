"""The base of kernels whose proposals do not depend on the state: checks, weights, and blocks scored ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from pyro_gan import checks
from pyro_gan._networks import unchecked
from pyro_gan._random import own_generators
from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.targets import State, Target, WeightedTarget
from pyro_gan.targets.base import check_weighted

__all__ = ["IndependenceKernel", "check_fits", "check_proposal"]

#: Proposals in a block. They do not depend on the state, so a few chains can score proposals for many steps at once.
BLOCK_ROWS = 1000

#: Prior draws at which a proposal must have a density.
NUM_CHECKED = 100


class IndependenceKernel(BatchKernel):
    """A kernel that proposes from the prior or from a given distribution, and weighs the target over it.

    A subclass writes `transition`, and takes its proposals from `next_proposals`.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: Distribution to propose from instead of the prior, over all unconstrained sites raveled and joined.

    Raises:
        ValueError: for a bare `potential_fn` without `proposal`, a proposal of another dimension, or one without a
            density where the prior has draws.
    """

    needs_prior = True

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        proposal: Distribution | None = None,
    ) -> None:
        super().__init__(model, potential_fn, num_chains=num_chains)
        self.proposal = check_proposal(type(self).__name__, potential_fn, proposal)
        self._ahead: State | None = None
        self._num_ahead = 0

    @property
    def takes_discrete(self) -> bool:
        """Whether discrete latents may be among those sampled: with draws of the prior as proposals."""
        return self.proposal is None

    def cleanup(self) -> None:
        """Drop the state, and the proposals that were scored ahead; diagnostics stay."""
        super().cleanup()
        self._drop_ahead()

    def state_dict(self) -> dict[str, Any]:
        """Return what every kernel keeps, and the proposals that were scored ahead."""
        fields = None if self._ahead is None else self._ahead.tensors()
        return super().state_dict() | {"ahead": fields, "num_ahead": self._num_ahead}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self._ahead = None if state["ahead"] is None else State(**state["ahead"])
        self._num_ahead = state["num_ahead"]

    def prepare(self, num_chains: int) -> None:
        """Drop proposals that were scored ahead, and check that the proposal fits the target and covers it."""
        self._drop_ahead()
        if self.proposal is not None:
            check_fits(self.proposal, self.target)
            _check_covers(self.proposal, self.target)

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw positions from the proposal, for chains to start from or to move to."""
        if self.proposal is None:
            return check_weighted(self.target).sample_prior(num_draws)
        return self.proposal.sample((num_draws,)).reshape(num_draws, -1)

    def evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at positions, with the log weight of the target over the proposal."""
        if self.proposal is None:
            return check_weighted(self.target).evaluate_weighted(z)
        return self.complete(super().evaluate(z))

    def complete(self, state: State) -> State:
        """Return a state with the log weight over the proposal; this takes no pass through a network."""
        if self.proposal is None:
            return check_weighted(self.target).weigh(state)
        log_q = self.proposal.log_prob(state.z.reshape(-1, *self.proposal.event_shape))
        return state._replace(grad=None, log_weight=-state.potential - log_q)

    def next_proposals(self, num_draws: int) -> State:
        """Return `num_draws` proposals with their weights, from the block that was scored ahead."""
        if self._ahead is None or self._num_ahead < num_draws:
            self._ahead = self._score(num_draws)
            self._num_ahead = len(self._ahead.z)
        self._num_ahead -= num_draws
        return self._ahead.take(slice(self._num_ahead, self._num_ahead + num_draws))

    def score_ahead(self, num_draws: int) -> list[State]:
        """Return proposals with their weights for several steps at once, `num_draws` for each step."""
        ahead = self._score(num_draws)
        return [ahead.take(slice(start, start + num_draws)) for start in range(0, len(ahead.z), num_draws)]

    def _score(self, num_draws: int) -> State:
        return self.evaluate(self.sample_start(max(1, BLOCK_ROWS // num_draws) * num_draws))

    def _drop_ahead(self) -> None:
        self._ahead, self._num_ahead = None, 0


def check_proposal(name: str, potential_fn: Any, proposal: Distribution | None) -> Distribution | None:
    """Return the distribution that a kernel proposes from, None for the prior.

    Args:
        name: The kernel's name.
        potential_fn: The bare potential that the kernel samples, or None if it samples a model.
        proposal: What the user gave.

    Raises:
        ValueError: if it is no distribution over whole positions; for a bare potential without one.
    """
    if proposal is None:
        if potential_fn is not None:
            raise ValueError(
                f"Expected proposal= with a bare potential_fn, which has no prior that {name} could propose from. Pass "
                "a distribution, such as a Normal, or a model."
            )
        return None
    cure = "A proposal that depends on the state is for MetropolisHastings."
    if checks.instance("proposal", proposal, Distribution, cure=cure).batch_shape:
        raise ValueError(
            f"Expected a proposal with batch_shape (); got {tuple(proposal.batch_shape)}. Independent coordinates "
            "become one event with .to_event(1)."
        )
    return proposal


def check_fits(proposal: Distribution, target: Target) -> None:
    """Raise unless the distribution to propose from has the target's dimension, dtype and device."""
    if proposal.event_shape.numel() != target.dim:
        raise ValueError(
            f"Expected a proposal over {target.dim} numbers; got event_shape {tuple(proposal.event_shape)}."
        )
    with own_generators():
        drawn = proposal.sample()
    if drawn.dtype != target.dtype or drawn.device != target.device:
        raise ValueError(
            f"Expected a proposal of the model's dtype and device, {target.dtype} on {target.device}; got "
            f"{drawn.dtype} on {drawn.device}."
        )


def _check_covers(proposal: Distribution, target: Target) -> None:
    """Raise if the proposal has no density at a prior draw where the target has a density."""
    if not isinstance(target, WeightedTarget):
        return
    with own_generators():
        z = target.sample_prior(NUM_CHECKED)
    values = z.reshape(-1, *proposal.event_shape)
    log_q = unchecked(proposal).log_prob(values)
    # Outside its support a distribution may return any number.
    missed = z[~torch.isfinite(log_q) | ~_inside(proposal, values)]
    # A draw where the target has no density either is not missed.
    num_missed = int(torch.isfinite(target.potential(missed)).sum()) if len(missed) else 0
    if num_missed:
        raise ValueError(
            f"Expected a proposal whose support covers the target's; it has no density at {num_missed} of "
            f"{NUM_CHECKED} prior draws, and chains would never go there. Positions are unconstrained: propose from a "
            "distribution over all reals, such as a Normal; pyro_gan.mcmc.fit_proposal makes one."
        )


def _inside(proposal: Distribution, values: Tensor) -> Tensor:
    try:
        support: Any = proposal.support
        inside: Tensor = support.check(values)
    except (AttributeError, NotImplementedError):  # not every distribution says what its support is
        return torch.ones_like(values.flatten(1)[:, 0], dtype=torch.bool)
    return inside.reshape(len(values), -1).all(1)
