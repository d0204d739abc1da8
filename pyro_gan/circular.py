"""Angles: distributions whose density repeats itself every full turn, and the map of the reals onto one turn."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.transforms import Transform

from pyro_gan._networks import unchecked

__all__ = ["Wrap", "is_circular"]

#: Draws at which a distribution is tried, and the change of its log density over a turn, in nats, that is rounding.
NUM_TRIED, ROUNDING = 16, 1e-2


@final
class Wrap(Transform):
    """Maps a real number to the angle in [-pi, pi) that it stands for.

    The density of an angle, torch's and Pyro's `VonMises` for instance, has all real numbers as support and repeats
    itself every full turn, so it is no density over the reals: a walk would never come back. So the log Jacobian is
    minus infinity beyond one turn. A kernel that moves locally wraps its proposals first, see `Target.wrap`.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = +1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrap)

    def __hash__(self) -> int:
        return hash(Wrap)

    def _call(self, x: Tensor) -> Tensor:
        # An angle inside the turn keeps its bits.
        return torch.where(x.abs() <= math.pi, x, torch.remainder(x + math.pi, 2 * math.pi) - math.pi)

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return 0 within one turn, minus infinity beyond it."""
        return torch.zeros_like(x).masked_fill(x.abs() > math.pi, -torch.inf)


def is_circular(fn: Any) -> bool:
    """Whether the density of a distribution over real numbers repeats itself every full turn.

    It draws from torch's generator.
    """
    support = fn.support
    # torch has no public name for the support of a mixture.
    while isinstance(support, constraints.independent) or type(support).__name__ == "MixtureSameFamilyConstraint":
        support = support.base_constraint
    if support is not constraints.real or not isinstance(fn, Distribution):
        return False
    draws = fn.sample(torch.Size([NUM_TRIED]))
    if not bool((draws.abs() <= math.pi).all()):
        return False
    density = unchecked(fn).log_prob
    here, there = density(draws), density(draws + 2 * math.pi)
    return bool(((here - there).abs() <= ROUNDING * (1 + here.abs())).all())
