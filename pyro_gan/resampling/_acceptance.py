"""The probability with which rejection sampling accepts a weight: exact, DRS's with gamma, or on a budget."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["Rule", "budget_cut", "drs_log_odds", "drs_shift"]

# DRS's epsilon, which keeps the odds of the heaviest draw finite; the value is MH-GAN's.
EPSILON = 1e-6

# Halvings of an interval of log weights: more than the bits of a double.
NUM_HALVINGS = 100


class Rule(NamedTuple):
    """A rule of acceptance; by default the exact one, w / M."""

    #: log M.
    log_bound: float
    #: DRS's: the log odds that accept with one half. None for the other rules.
    shift: float | None = None
    #: OBRS's log c, 0 or more.
    log_c: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether a draw is accepted in proportion to its weight, if M bounds the weight."""
        return self.shift is None and self.log_c == 0

    def log_accept(self, log_weight: Float[Tensor, " draw"]) -> Float[Tensor, " draw"]:
        """Return log probabilities; what lies above the bound is accepted as if it lay on it."""
        if self.shift is not None:
            return logsigmoid(drs_log_odds(log_weight, self.log_bound) - self.shift)
        return (log_weight - self.log_bound + self.log_c).clamp(max=0)


def drs_log_odds(log_weight: Float[Tensor, " draw"], log_bound: float) -> Float[Tensor, " draw"]:
    r"""Return the log odds of acceptance that DRS shifts by its gamma.

    .. math:: F = x - \log(1 - e^{x - \epsilon}), \qquad x = \log w - \log M.

    Up to epsilon, sigma(F) = w / M. A draw above the bound counts as one on it.

    Args:
        log_weight: `(draw,)`, in nats.
        log_bound: log M.

    Returns:
        `(draw,)`, minus infinity for a weight of zero.
    """
    x = (log_weight - log_bound).clamp(max=0)
    # Near the bound 1 - exp would lose its digits; far below it the logarithm is a small part of the whole.
    return x - torch.log(-torch.expm1(x - EPSILON))


def drs_shift(log_weight: Float[Tensor, " draw"], log_bound: float, gamma: float) -> float:
    """Return the percentile of the log odds that DRS subtracts from them, among draws of some weight."""
    odds = drs_log_odds(log_weight[log_weight.isfinite()], log_bound).sort().values
    return float(odds[round(gamma / 100 * (len(odds) - 1))])


def budget_cut(log_weight: Float[Tensor, " draw"], log_bound: float, budget: float) -> float:
    r"""Return the log weight from which on every draw is accepted, for the wanted mean acceptance.

    The root in M / c of mean min(1, c w / M) = budget, or log M where exact rejection already accepts as much.

    Args:
        log_weight: `(draw,)`, in nats.
        log_bound: log M.
        budget: Wanted mean acceptance.

    Returns:
        log(M / c), at most log M.

    Raises:
        ValueError: if so many draws have no weight that no cut accepts enough.
    """
    positive = log_weight[log_weight.isfinite()]
    share = len(positive) / len(log_weight)
    if budget > share:
        raise ValueError(
            f"Expected a budget of at most {share:.6g}, the share of pilot draws that have any weight; got {budget}. "
            "A draw without weight is never accepted."
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
