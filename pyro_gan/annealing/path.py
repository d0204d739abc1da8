"""The target between prior and target at a power that changes, for particles whose scores are kept.

What is costly about a particle, its log weight and the gradient, does not depend on the power. So it is kept in parts,
and climbing a rung costs nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.targets import Target, make_target

__all__ = ["Path", "constrained", "find_target"]


class _Parts(NamedTuple):
    z: Tensor
    log_prior: Tensor
    log_weight: Tensor
    prior_grad: Tensor | None  # of the log prior
    grad: Tensor | None  # of the target's potential

    def where(self, rows: Tensor, other: _Parts) -> _Parts:
        """Return these parts at some rows and others elsewhere."""
        column = rows.unsqueeze(-1)
        return _Parts(
            torch.where(column, self.z, other.z),
            torch.where(rows, self.log_prior, other.log_prior),
            torch.where(rows, self.log_weight, other.log_weight),
            _where(column, self.prior_grad, other.prior_grad),
            _where(column, self.grad, other.grad),
        )

    def take(self, index: Tensor) -> _Parts:
        """Return the parts of some rows."""
        prior_grad = None if self.prior_grad is None else self.prior_grad[index]
        grad = None if self.grad is None else self.grad[index]
        return _Parts(self.z[index], self.log_prior[index], self.log_weight[index], prior_grad, grad)


class Path(Target):
    r"""A target whose weight has the power `beta`, :math:`p_0(z)\, w(z)^\beta`, for a batch of particles.

    It remembers the parts of the particles' scores and of the last proposals', so that neither a change of `beta` nor
    an accepted proposal is paid for twice.

    Args:
        target: What is at the power 1; prior and weight must be known apart.

    Attributes:
        beta: The power.
        num_forwards: Rows whose weight was evaluated without a gradient.
        num_gradients: Rows whose weight was evaluated with its gradient.

    Raises:
        ValueError: if the target has no split.
    """

    def __init__(self, target: Target) -> None:
        if not target.has_split:
            raise ValueError(
                "Annealing goes from a prior to the target, and a bare potential_fn does not say what is prior and "
                "what is weight. Pass a model, such as LatentPosterior."
            )
        self.shapes, self.transforms, self.dim = target.shapes, target.transforms, target.dim
        self.dtype, self.device = target.dtype, target.device
        self._target = target
        self.beta = 0.0
        self.num_forwards = self.num_gradients = 0
        self._known: _Parts | None = None
        self._last: _Parts | None = None

    # What is known of the particles.

    @property
    def log_weights(self) -> Float[Tensor, " particle"]:
        """Log of the particles' full weights, nats."""
        assert self._known is not None
        return self._known.log_weight

    @property
    def z(self) -> Float[Tensor, "particle dim"]:
        """Where the particles are."""
        assert self._known is not None
        return self._known.z

    def place(self, z: Float[Tensor, "particle dim"]) -> None:
        """Put the particles somewhere, and evaluate their weights."""
        self._known = self._values(z)

    def keep(self, index: Tensor) -> None:
        """Keep some particles, by index, as often as it names them."""
        assert self._known is not None
        self._known = self._known.take(index)
        self._last = None

    def follow(self, z: Float[Tensor, "particle dim"]) -> None:
        """Learn where a kernel has put the particles."""
        known, last = self._known, self._last
        assert known is not None
        if last is not None and last.z.shape == z.shape:
            moved = (z != known.z).any(-1)
            after = last.where(moved, known)
            # A kernel that evaluates its proposals last, as most do, has told us all there is to know.
            if torch.equal(after.z, z):
                self._known = after
                return
        self._known = self._values(z) if known.grad is None else self._gradients(z)

    # What a kernel sees.

    @property
    def has_split(self) -> bool:
        """Always: without a split there is no path."""
        return True

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return `-log_prior - beta log_weight`."""
        return self._potential(self._look(z) or self._remember(self._values(z)))

    def potential_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the potential energy and its gradient."""
        parts = self._look(z)
        if parts is None or parts.grad is None:
            parts = self._remember(self._gradients(z))
        assert parts.grad is not None and parts.prior_grad is not None
        return self._potential(parts), self.beta * parts.grad - (1 - self.beta) * parts.prior_grad

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior."""
        return self._target.log_prior(z)

    def log_prior_and_grad(
        self, z: Float[Tensor, "chain dim"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
        """Return the log density of the prior and its gradient."""
        return self._target.log_prior_and_grad(z)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight at this power."""
        return self.beta * (self._look(z) or self._remember(self._values(z))).log_weight

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior."""
        return self._target.sample_prior(num_draws)

    def tempered(self, beta: float | Tensor) -> Target:
        """Return the target at another power."""
        return self._target.tempered(beta)

    # Private.

    def _potential(self, parts: _Parts) -> Tensor:
        return -parts.log_prior - self.beta * parts.log_weight

    def _look(self, z: Tensor) -> _Parts | None:
        for parts in (self._known, self._last):
            if parts is not None and parts.z is z:
                return parts
        return None

    def _remember(self, parts: _Parts) -> _Parts:
        if self._known is not None and parts.z is self._known.z:
            self._known = parts
        else:
            self._last = parts
        return parts

    def _values(self, z: Tensor) -> _Parts:
        self.num_forwards += len(z)
        return _Parts(z, self._target.log_prior(z), self._target.log_weight(z), None, None)

    def _gradients(self, z: Tensor) -> _Parts:
        self.num_gradients += len(z)
        potential, grad = self._target.potential_and_grad(z)
        log_prior, prior_grad = self._target.log_prior_and_grad(z)
        # Outside the prior's support the weight is none of anybody's business.
        log_weight = torch.where(torch.isneginf(log_prior), -torch.inf, -potential - log_prior)
        return _Parts(z, log_prior, log_weight, prior_grad, grad)


def find_target(model: Any, args: tuple[Any, ...], context: dict[str, Any]) -> Target:
    """Return the target of a model and its arguments, or a target that was given in its place."""
    if isinstance(model, Target):
        return model
    return make_target(model, None, prototype=None, batched=True, context=context, args=args)


def constrained(target: Target, z: Float[Tensor, "particle dim"]) -> dict[str, Tensor]:
    """Return rows as the sites' constrained values, `{site: (particle, *event)}`."""
    return {
        name: target.transforms[name].inv(value) if name in target.transforms else value
        for name, value in target.unpack(z).items()
    }


def _where(rows: Tensor, ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    return None if ours is None or theirs is None else torch.where(rows, ours, theirs)
