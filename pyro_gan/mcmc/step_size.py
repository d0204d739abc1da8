"""A step size shared by all chains, adapted during warmup by dual averaging."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from pyro.ops.dual_averaging import DualAveraging
from torch import Tensor

__all__ = ["StepSize"]


#: Warmup steps from which on the search may begin far out.
MIN_STEPS_TO_EXPLORE = 50


class StepSize:
    """One step size for a batch of chains, tuned until their mean acceptance meets a target.

    The statistic is the mean acceptance probability over chains, so a thousand chains tune in a few dozen steps.
    Everything stays a tensor on the chains' device: no step waits for the host.

    Args:
        initial: Step size to start from.
        target_accept_prob: Mean acceptance probability to reach.
        adapt: Whether to adapt at all.
        largest: Step size that is never exceeded.

    Raises:
        ValueError: if `initial` is not positive and finite, or the target is outside (0, 1).

    References:
        The No-U-Turn Sampler, Hoffman and Gelman, 2014, https://arxiv.org/abs/1111.4246, section 3.2.
    """

    def __init__(
        self, initial: float, target_accept_prob: float, adapt: bool, *, largest: float = math.inf
    ) -> None:
        if not (initial > 0 and math.isfinite(initial)):
            raise ValueError(f"Expected a positive, finite step_size; got {initial}.")
        if not 0 < target_accept_prob < 1:
            raise ValueError(f"Expected target_accept_prob inside (0, 1); got {target_accept_prob}.")
        self.initial = initial
        self.target_accept_prob = target_accept_prob
        self.adapt = adapt
        self.largest = largest
        self._averaging: DualAveraging | None = None
        self.value = torch.tensor(min(initial, largest))

    def reset(self, like: Tensor, *, warmup_steps: int) -> None:
        """Go back to the initial step size, in the dtype and on the device of `like`."""
        self.value = torch.tensor(min(self.initial, self.largest), dtype=like.dtype, device=like.device)
        adapting = self.adapt and warmup_steps > 0
        # The scheme is pulled towards ten times the start, long steps being cheaper to find out about than short ones;
        # a short warmup has no time to come back from there.
        centre = math.log(self.initial * (10 if warmup_steps >= MIN_STEPS_TO_EXPLORE else 1))
        # A mean over chains is far less noisy than one chain's coin, so we can damp more (gamma) and forget the start
        # sooner (kappa) than Stan's .05 and .75, which make HMC overshoot its stability limit again and again.
        self._averaging = DualAveraging(centre, gamma=0.1, kappa=0.6) if adapting else None

    @property
    def is_adapting(self) -> bool:
        """Whether the next step belongs to warmup, and adapts."""
        return self._averaging is not None

    def update(self, accept_prob: Float[Tensor, " chain"]) -> None:
        """Take one warmup step's acceptance probabilities into account."""
        if self._averaging is not None:
            shortfall = self.target_accept_prob - accept_prob.mean()
            # At the largest there is nothing to be gained, and what is learnt there would have to be unlearnt.
            shortfall = torch.where(self.value >= self.largest, shortfall.clamp(min=0), shortfall)
            self._averaging.step(shortfall)
            self.value = torch.exp(self._averaging.get_state()[0]).clamp(max=self.largest)

    def freeze(self) -> None:
        """End adaptation: take the averaged step size and keep it."""
        if self._averaging is not None:
            self.value = torch.exp(self._averaging.get_state()[1]).clamp(max=self.largest)
            self._averaging = None
