"""The base of kernels with a step size: its arguments, its adaptation, its current value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypedDict, final

from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.step_size import StepSize

__all__ = ["StepOptions", "SteppedKernel"]


@final
class StepOptions(TypedDict, total=False):
    """The keyword arguments of `SteppedKernel`, which its subclasses pass on."""

    num_chains: int | None
    step_size: float
    adapt_step_size: bool
    target_accept_prob: float | None


class SteppedKernel(BatchKernel):
    """A kernel with one step size for all chains, adapted during warmup.

    A subclass writes `transition`, which reads `self.step_size`, and sets `optimal_accept_prob`.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to; the kernel's `optimal_accept_prob` if None.

    Attributes:
        optimal_accept_prob: The acceptance to adapt to by default.
        largest_step_size: Upper limit of the step size.

    Raises:
        ValueError: if the step size is not positive and finite, or the target acceptance outside (0, 1).
    """

    optimal_accept_prob: float
    largest_step_size: float = math.inf

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        step_size: float = 0.1,
        adapt_step_size: bool = True,
        target_accept_prob: float | None = None,
    ) -> None:
        accept_prob = self.optimal_accept_prob if target_accept_prob is None else target_accept_prob
        self.adaptation: StepSize = StepSize(step_size, accept_prob, adapt_step_size, largest=self.largest_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, adaptation=self.adaptation)

    @property
    def step_size(self) -> Tensor:
        """The current step size, a scalar."""
        return self.adaptation.value
