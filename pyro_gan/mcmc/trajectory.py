"""The length of all chains' trajectories, adapted during warmup by the ChEES criterion.

ChEES is the change in the estimator of the expected square: the change of the squared distance from the target's centre
along a trajectory, squared and averaged over chains. Adaptation maximises it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks

__all__ = ["TrajectoryLength", "chees_gradient"]

#: Settings of Adam: the step in the log length, the same at first, and the memory of squared gradients.
LEARNING_RATE, FIRST_LEARNING_RATE, MEMORY = 0.025, 0.1, 0.95


@final
class TrajectoryLength:
    """One trajectory length for a batch of chains: Adam climbs the ChEES criterion in the log of the length.

    Everything stays a tensor on the chains' device. At the end of warmup the length becomes the average over the last
    part of warmup, in logs, instead of the last iterate.

    Args:
        initial: Length to start from, step size times steps.
        adapt: Whether to adapt the length.

    Raises:
        ValueError: if `initial` is not positive and finite.

    References:
        An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian Monte Carlo, Hoffman, Radul and Sountsov,
        2021, https://proceedings.mlr.press/v130/hoffman21a.html.
    """

    def __init__(self, initial: float, adapt: bool) -> None:
        self.initial = checks.real("trajectory_length", initial, above=0)
        self.adapt = adapt
        self.value = torch.tensor(self.initial)
        self._square = self._average = torch.zeros(())
        self._adapting = False
        self._updates = 0

    def reset(self, like: Tensor, *, adapting: bool) -> None:
        """Take the dtype and device of `like`, and return to the initial length unless one is learnt."""
        if not adapting and self._updates:
            self.freeze()
            self.value = self.value.to(like)
            return
        self.value = torch.tensor(self.initial, dtype=like.dtype, device=like.device)
        self._adapting = self.adapt and adapting
        self._updates = 0
        self._square = torch.zeros_like(self.value)
        self._average = self.value.log()

    def update(self, gradient: Float[Tensor, ""], shortest: Tensor, longest: Tensor) -> None:
        """Climb one step.

        Args:
            gradient: Gradient of the criterion in the log of the length; it counts as 0 if it is not finite.
            shortest: Lower limit of the length: a leapfrog step.
            longest: Upper limit of the length.
        """
        if not self._adapting:
            return
        self._updates += 1
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        self._square = MEMORY * self._square + (1 - MEMORY) * gradient.square()
        unbiased = self._square / (1 - MEMORY**self._updates)
        # The start may be far off; later steps only have to average out noise.
        rate = max(LEARNING_RATE, FIRST_LEARNING_RATE / math.sqrt(self._updates))
        step = rate * gradient / unbiased.sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
        self.value = torch.clamp((self.value.log() + step).exp(), min=shortest, max=longest)
        # Weights grow with the third power of the step: the last quarter of warmup has two thirds of the weight.
        self._average = self._average + 4 / (self._updates + 3) * (self.value.log() - self._average)

    def freeze(self) -> None:
        """End adaptation: keep the averaged length from now on."""
        if self._adapting and self._updates:
            self.value = self._average.exp()
        self._adapting = False

    def state_dict(self) -> dict[str, Any]:
        """Return the length and what is known for its adaptation."""
        return {
            "value": self.value,
            "square": self._square,
            "average": self._average,
            "adapting": self._adapting,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.value, self._square, self._average = state["value"], state["square"], state["average"]
        self._adapting, self._updates = state["adapting"], state["updates"]


def chees_gradient(
    start: Float[Tensor, "chain dim"],
    end: Float[Tensor, "chain dim"],
    momentum: Float[Tensor, "chain dim"],
    accept_prob: Float[Tensor, " chain"],
    length: float,
) -> Float[Tensor, ""]:
    r"""Estimate the gradient of the ChEES criterion in the log of the trajectory length, up to a positive factor.

    With positions :math:`q` from the centre, and weights :math:`\alpha_m` from the chains' acceptance probabilities,
    :math:`\sum_m \alpha_m = 1`,

    .. math:: g = \frac{\ell \sum_m \alpha_m (|q'_m|^2 - |q_m|^2)\, q'_m \cdot p'_m}
                       {(\sum_m \alpha_m (|q'_m|^2 + |q_m|^2))^2} .

    The paper has no denominator. The numerator grows with the fourth power of the distance from the centre: if chains
    start far out, their gradients stay in Adam's memory, all later ones are negligible, and the length stays the same.

    Args:
        start: Positions at the starts of the trajectories, from the centre, in units in which momenta are velocities.
        end: Positions at the ends.
        momentum: Momenta at the ends.
        accept_prob: Acceptance probabilities; a trajectory with probability 0 is left out, even if it is not finite.
        length: Length of these trajectories, in any unit.

    Returns:
        A scalar; NaN if no chain has a chance to move.
    """
    before, after = start.square().sum(-1), end.square().sum(-1)
    slope = (after - before) * (end * momentum).sum(-1)
    moves = accept_prob > 0
    mean_slope, mean_square = (
        torch.where(moves, accept_prob * value, 0.0).sum() / accept_prob.sum() for value in (slope, before + after)
    )
    return length * mean_slope / mean_square.square()
