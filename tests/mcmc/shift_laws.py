"""Distributions of independence chains on the Gaussian shift that start at real data, exact on a grid.

The data are N(delta, 1), the proposals N(0, 1), and their ratio w grows with x, so that the flow of probability
from everywhere below x and from everywhere above it are two running sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["ShiftLaws"]

Cdf = Callable[[np.ndarray], np.ndarray]


class ShiftLaws:
    """Cumulative distributions of the first draw after `warmup_steps`, by policy.

    Args:
        delta: The shift, sqrt(2) times the normal quantile of the AUC.
        warmup_steps: Warmup steps of each chain.
    """

    def __init__(self, delta: float, warmup_steps: int) -> None:
        self.x = np.linspace(-9.0, delta + 9.0, 12_001)
        self._step = self.x[1] - self.x[0]
        self._proposal = np.exp(-0.5 * self.x**2) / math.sqrt(2 * math.pi)
        self._weight = np.exp(delta * self.x - 0.5 * delta**2)
        self._data = self._proposal * self._weight
        self._steps = warmup_steps
        # The probability of leaving a state in a step.
        below = np.cumsum(self._proposal * self._weight) * self._step
        above = self._integral(self._proposal) - np.cumsum(self._proposal) * self._step
        self._leave = np.clip(below / self._weight + above, 0.0, 1.0)
        self._stuck = self._data * (1 - self._leave) ** warmup_steps

    @property
    def waiting(self) -> float:
        """Share of chains that have accepted nothing when warmup ends."""
        return self._integral(self._stuck)

    def truth(self) -> Cdf:
        """Return the distribution of the data."""
        return self._cdf(self._data)

    def drop(self) -> Cdf:
        """Return the distribution of chains that have moved."""
        return self._cdf(self._kernel(self._data - self._stuck))

    def proceed(self, budget: int) -> Cdf:
        """Return the distribution of chains that have moved, or have accepted within the budget."""
        accepted = self._stuck * (1 - (1 - self._leave) ** budget) / np.maximum(self._leave, 1e-300)
        return self._cdf(self._kernel(self._data - self._stuck + self._arrive(accepted)))

    def restart(self) -> Cdf:
        """Return the distribution of chains that have moved, or have started again from a proposal."""
        again = self._proposal
        for _ in range(self._steps - 1):
            again = self._kernel(again)
        return self._cdf(self._kernel(self._data - self._stuck + self.waiting * again))

    def _kernel(self, density: np.ndarray) -> np.ndarray:
        return density * (1 - self._leave) + self._arrive(density)

    def _arrive(self, density: np.ndarray) -> np.ndarray:
        """Return the density of the proposals that are accepted in a step from states of this density."""
        from_below = np.cumsum(density) * self._step
        from_above = np.cumsum((density / self._weight)[::-1])[::-1] * self._step - density / self._weight * self._step
        return self._proposal * (from_below + self._weight * from_above)

    def _integral(self, density: np.ndarray) -> float:
        return float(density.sum() * self._step)

    def _cdf(self, density: np.ndarray) -> Cdf:
        cumulative = np.cumsum(density)
        return lambda x: np.interp(x, self.x + self._step / 2, cumulative / cumulative[-1])
