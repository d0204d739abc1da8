"""The probability that rejection sampling accepts a weight: exact, with the gamma of DRS, or on a budget."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["Rule", "budget_cut", "drs_log_odds", "drs_shift"]

# The epsilon of DRS, which keeps the odds of the heaviest draw finite, with the value of MH-GAN.
EPSILON = 1e-6

# Halvings of an interval of log weights: more than a double has bits.
NUM_HALVINGS = 100


@final
class Rule(NamedTuple):
    """A rule of acceptance; by default the exact one, w / M.

    Attributes:
        log_bound: log M.
        shift: The log odds at which DRS accepts with probability one half; None for the other rules.
        log_c: The log c of OBRS, 0 or more.
    """

    log_bound: float
    shift: float | None = None
    log_c: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether a draw is accepted in proportion to its weight, provided that M bounds the weight."""
        return self.shift is None and self.log_c == 0

    def log_accept(self, log_weight: Float[Tensor, " draw"]) -> Float[Tensor, " draw"]:
        """Return log probabilities of acceptance; a weight above the bound counts as equal to it."""
        if self.shift is not None:
            return logsigmoid(drs_log_odds(log_weight, self.log_bound) - self.shift)
        return (log_weight - self.log_bound + self.log_c).clamp(max=0)


def drs_log_odds(log_weight: Float[Tensor, " draw"], log_bound: float) -> Float[Tensor, " draw"]:
    r"""Return the log odds of acceptance, before DRS shifts them by gamma.

    .. math:: F = x - \log(1 - e^{x - \epsilon}), \qquad x = \log w - \log M.

    Up to epsilon, sigma(F) = w / M. A weight above the bound counts as equal to it.

    Args:
        log_weight: `(draw,)`, in nats.
        log_bound: log M.

    Returns:
        `(draw,)`, minus infinity for a weight of zero.
    """
    x = (log_weight - log_bound).clamp(max=0)
    # Near the bound 1 - exp(x) would lose its digits, expm1 does not.
    return x - torch.log(-torch.expm1(x - EPSILON))


def drs_shift(log_weight: Float[Tensor, " draw"], log_bound: float, gamma: float) -> float:
    """Return the percentile gamma of the log odds, among draws of positive weight. DRS subtracts it from the odds."""
    odds = drs_log_odds(log_weight[log_weight.isfinite()], log_bound).sort().values
    return float(odds[round(gamma / 100 * (len(odds) - 1))])


def budget_cut(log_weight: Float[Tensor, " draw"], log_bound: float, budget: float) -> float:
    r"""Return the log weight above which every draw is accepted, for a given mean acceptance.

    It is log(M / c) with c such that the mean of min(1, c w / M) is the budget, or log M if exact rejection already
    accepts as much.

    Args:
        log_weight: `(draw,)`, in nats.
        log_bound: log M.
        budget: Wanted mean acceptance.

    Returns:
        log(M / c), at most log M.

    Raises:
        ValueError: if so many draws have a weight of zero that no cut accepts enough.
    """
    positive = log_weight[log_weight.isfinite()]
    share = len(positive) / len(log_weight)
    if budget > share:
        raise ValueError(
            f"Expected a budget of at most {share:.6g}, the share of pilot draws with a weight above zero; got "
            f"{budget}. A draw of weight zero is never accepted: lower the budget."
        )

    def acceptance(cut: float) -> float:
        return share * float((positive - cut).clamp(max=0).exp().mean())

    if acceptance(log_bound) >= budget:
        return log_bound
    low, high = float(positive.min()), log_bound
    for _ in range(NUM_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if acceptance(middle) >= budget else (low, middle)
    return low
