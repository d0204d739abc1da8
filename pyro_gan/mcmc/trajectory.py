"""The length of all chains' trajectories, adapted during warmup until their ends are as far from the starts as can be.

The criterion is ChEES, the change in the estimator of the expected square: of the squared distance from the target's
centre, how much does a trajectory change, squared and averaged over chains?
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["TrajectoryLength", "chees_gradient"]

#: Adam's: how far a step moves the log length, and how long it remembers squared gradients.
LEARNING_RATE, FIRST_LEARNING_RATE, MEMORY = 0.025, 0.1, 0.95


class TrajectoryLength:
    """One trajectory length for a batch of chains: Adam climbs the ChEES criterion in the log of the length.

    Everything stays a tensor on the chains' device. What is kept when warmup ends is the average of the logs over its
    last part, not the last iterate.

    Args:
        initial: Length to start from, step size times steps.
        adapt: Whether to adapt at all.

    Raises:
        ValueError: if `initial` is not positive and finite.

    References:
        An Adaptive-MCMC Scheme for Setting Trajectory Lengths in Hamiltonian Monte Carlo, Hoffman, Radul and Sountsov,
        2021, https://proceedings.mlr.press/v130/hoffman21a.html.
    """

    def __init__(self, initial: float, adapt: bool) -> None:
        if not (initial > 0 and math.isfinite(initial)):
            raise ValueError(f"Expected a positive, finite trajectory_length; got {initial}.")
        self.initial = initial
        self.adapt = adapt
        self.value = torch.tensor(initial)
        self._adapting = False

    def reset(self, like: Tensor, *, adapting: bool) -> None:
        """Go back to the initial length, in the dtype and on the device of `like`."""
        self.value = torch.tensor(self.initial, dtype=like.dtype, device=like.device)
        self._adapting = self.adapt and adapting
        self._updates = 0
        self._square = torch.zeros_like(self.value)
        self._average = self.value.log()

    def update(self, gradient: Float[Tensor, ""], shortest: Tensor, longest: Tensor) -> None:
        """Climb one step.

        Args:
            gradient: Of the criterion in the log of the length; one that is not finite is left out.
            shortest: Length not to go below: a leapfrog step.
            longest: Length not to go beyond.
        """
        if not self._adapting:
            return
        self._updates += 1
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        self._square = MEMORY * self._square + (1 - MEMORY) * gradient.square()
        unbiased = self._square / (1 - MEMORY**self._updates)
        # The start may be far off; later steps only have to average noise out.
        rate = max(LEARNING_RATE, FIRST_LEARNING_RATE / math.sqrt(self._updates))
        step = rate * gradient / unbiased.sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
        self.value = torch.clamp((self.value.log() + step).exp(), min=shortest, max=longest)
        # Weights grow with the third power of the step: the last quarter of warmup has two thirds of them.
        self._average = self._average + 4 / (self._updates + 3) * (self.value.log() - self._average)

    def freeze(self) -> None:
        """End adaptation: take the averaged length and keep it."""
        if self._adapting and self._updates:
            self.value = self._average.exp()
        self._adapting = False


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

    The denominator is ours. The numerator grows with the fourth power of the distance: chains that start far out would
    leave gradients in Adam's memory beside which all that follow are nothing, and the length would stay where it is.

    Args:
        start: Positions where the trajectories start, from the centre, in units in which momenta are velocities.
        end: Where they end.
        momentum: Momenta there.
        accept_prob: Their acceptance probabilities; what has none is left out, finite or not.
        length: Length of these trajectories, in any unit.

    Returns:
        A scalar; NaN if no chain has a chance to move.
    """
    before, after = start.square().sum(-1), end.square().sum(-1)
    slope = (after - before) * (end * momentum).sum(-1)
    moves = accept_prob > 0
    mean_slope, mean_square = (
        torch.where(moves, accept_prob * value, 0.0).sum() / accept_prob.sum()
        for value in (slope, before + after)
    )
    return length * mean_slope / mean_square.square()
