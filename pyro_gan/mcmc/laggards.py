"""The acceptance of a batch of chains as their step size should see it: chains that do not move count for more."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Laggards"]

#: Memory of a chain's acceptance, a share for each step: about five steps.
MEMORY = 0.8

#: A chain is left behind if its recent acceptance is below this number. A healthy one hardly ever falls so low: some
#: ten proposals in a row would have to be rejected.
LOW = 0.05

#: A chain without any chance to move counts as much as ten times all the others, whatever their number.
STUCK = 0.1


@final
class Laggards:
    r"""Lowers the mean acceptance of a step while chains are left behind.

    A mean over chains does not show a few chains whose every proposal is rejected: the step size suits the others, and
    they stay where they are. With :math:`a_m` a chain's recent acceptance, in units of a low one and at most 1, the
    mean is multiplied by their harmonic mean,

    .. math:: \left(\frac1n \sum_m \frac1{a_m}\right)^{-1} .

    It is 1 while all chains move, and small if one is stuck, so that steps become shorter until it moves.
    """

    def __init__(self) -> None:
        self._recent: Tensor | None = None

    def weigh(self, accept_prob: Float[Tensor, " chain"]) -> Float[Tensor, ""]:
        """Return the acceptance of a step, `(chain,)`, as one number to adapt to."""
        before = torch.ones_like(accept_prob) if self._recent is None else self._recent
        self._recent = MEMORY * before + (1 - MEMORY) * accept_prob
        share = (self._recent / LOW).clamp(STUCK / len(accept_prob), 1.0)
        return accept_prob.mean() / share.reciprocal().mean()
