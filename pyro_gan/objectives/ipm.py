"""Integral probability metrics: the critic is a witness of the distance, and its scale is no log ratio."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives.base import SeparableObjective, no_log_ratio

__all__ = ["Wasserstein"]


@final
class Wasserstein(SeparableObjective):
    r"""The Wasserstein GAN's pair of losses; it takes a Lipschitz penalty beside it, such as `GradientPenalty`.

    The critic :math:`c` minimises :math:`E_G c - E_{data} c` over 1-Lipschitz functions, the generator
    :math:`-E_G c`. The optimum is the Kantorovich potential, which orders points roughly as the density ratio does,
    but on no known scale: `log_ratio` raises.

    References:
        Wasserstein GAN, M. Arjovsky, S. Chintala and L. Bottou, 2017, https://arxiv.org/abs/1701.07875

    Example:
        >>> import torch
        >>> Wasserstein().critic_loss(torch.ones(3), torch.zeros(5))
        tensor(-1.)
    """

    proper = False

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return less the mean of c."""
        return -output.mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of c."""
        return output.mean()

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Raise: a Wasserstein critic's output is not a log ratio, whatever its size.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(_WASSERSTEIN)

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Raise as `log_ratio` does.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(_WASSERSTEIN)


_WASSERSTEIN = (
    "A Wasserstein critic's output is not a log density ratio: its scale is the data's units, not nats."
)
