"""A step size shared by all chains, adapted during warmup by dual averaging."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from pyro.ops.dual_averaging import DualAveraging
from torch import Tensor

from pyro_gan import checks

__all__ = ["StepSize"]

#: Warmup steps from which on the search is drawn towards a far longer step size.
MIN_STEPS_TO_EXPLORE = 50


@final
class StepSize:
    """One step size for a batch of chains, adapted until their mean acceptance meets a target.

    The statistic is the mean acceptance probability over chains, so a thousand chains adapt in a few dozen steps.
    Everything stays a tensor on the chains' device: no step waits for the host.

    Args:
        initial: Step size to start from.
        target_accept_prob: Mean acceptance probability to reach.
        adapt: Whether to adapt during warmup.
        largest: Upper limit of the step size.

    Attributes:
        value: The current step size, a scalar tensor.

    Raises:
        ValueError: if `initial` is not positive and finite, or the target is outside (0, 1).

    References:
        The No-U-Turn Sampler, Hoffman and Gelman, 2014, https://arxiv.org/abs/1111.4246, section 3.2.

    Example:
        >>> step_size = StepSize(0.5, target_accept_prob=0.8)
        >>> step_size.reset(torch.zeros(4), warmup_steps=100)
        >>> step_size.update(torch.ones(4))  # all four chains accepted: the next step is longer
        >>> bool(step_size.value > 0.5)
        True
    """

    def __init__(
        self, initial: float, target_accept_prob: float, adapt: bool = True, *, largest: float = math.inf
    ) -> None:
        self.initial = checks.real("step_size", initial, above=0)
        self.target_accept_prob = checks.real("target_accept_prob", target_accept_prob, above=0, below=1)
        self.adapt = adapt
        self.largest = self._limit = largest
        self._averaging: DualAveraging | None = None
        self._has_learnt = False
        self.value = torch.tensor(min(self.initial, largest))

    def reset(self, like: Tensor, *, warmup_steps: int, largest: float = math.inf) -> None:
        """Return to the initial step size, in the dtype and on the device of `like`; `largest` is one limit more.

        Without warmup there is nothing to learn anew: a step size that has been learnt is kept.
        """
        self.freeze()
        self._limit = min(self.largest, largest)
        if warmup_steps == 0 and self._has_learnt:
            self.value = self.value.to(like)
            return
        self._has_learnt = False
        self.value = torch.tensor(min(self.initial, self._limit), dtype=like.dtype, device=like.device)
        adapting = self.adapt and warmup_steps > 0
        # Dual averaging is pulled towards ten times the start, because long steps are cheaper to try than short ones. A
        # short warmup has no time to return from there.
        centre = math.log(self.initial * (10 if warmup_steps >= MIN_STEPS_TO_EXPLORE else 1))
        # A mean over chains is far less noisy than the acceptance of one chain, so we can damp more (gamma) and forget
        # the start sooner (kappa) than Stan's 0.05 and 0.75, with which HMC exceeds its stability limit repeatedly.
        self._averaging = DualAveraging(centre, gamma=0.1, kappa=0.6) if adapting else None

    @property
    def is_adapting(self) -> bool:
        """Whether the next step belongs to warmup, and adapts."""
        return self._averaging is not None

    def update(self, accept_prob: Float[Tensor, " chain"]) -> None:
        """Take the acceptance probabilities of one warmup step into account."""
        if self._averaging is not None:
            shortfall = self.target_accept_prob - accept_prob.mean()
            # At the upper limit a high acceptance must not add to the average: the step size cannot grow.
            shortfall = torch.where(self.value >= self._limit, shortfall.clamp(min=0), shortfall)
            self._averaging.step(shortfall)
            self._has_learnt = True
            self.value = torch.exp(self._averaging.get_state()[0]).clamp(max=self._limit)

    def freeze(self) -> None:
        """End adaptation: keep the averaged step size from now on."""
        if self._averaging is not None and self._has_learnt:
            self.value = torch.exp(self._averaging.get_state()[1]).clamp(max=self._limit)
        self._averaging = None

    def settings(self) -> dict[str, Any]:
        """Return what the step size was built with."""
        return {
            "initial": self.initial,
            "target_accept_prob": self.target_accept_prob,
            "adapt": self.adapt,
            "largest": self.largest,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the step size and what is known for its adaptation."""
        # Pyro's averages have no public name to restore them by.
        averaging = None if self._averaging is None else dict(vars(self._averaging))
        return {"value": self.value, "has_learnt": self._has_learnt, "averaging": averaging}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.value, self._has_learnt = state["value"], state["has_learnt"]
        self._averaging = None
        if state["averaging"] is not None:
            self._averaging = DualAveraging()
            vars(self._averaging).update(state["averaging"])
