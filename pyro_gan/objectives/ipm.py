"""Integral probability metrics: the critic is a witness of the distance, and its scale is no log ratio."""

from __future__ import annotations

from typing import final

from pyro_gan.objectives.base import Outputs, Scalar, SeparableObjective, no_log_ratio

__all__ = ["Wasserstein"]


@final
class Wasserstein(SeparableObjective):
    r"""The Wasserstein GAN's pair of losses; it needs a penalty on the critic's slope, such as `GradientPenalty`.

    The critic :math:`c` minimises :math:`E_G c - E_{data} c` over 1-Lipschitz functions; the generator minimises
    :math:`-E_G c`. The optimum is the Kantorovich potential. It orders points roughly as the density ratio does, but
    its scale is unknown: `log_ratio` and `output` raise.

    References:
        Wasserstein GAN, M. Arjovsky, S. Chintala and L. Bottou, 2017, https://arxiv.org/abs/1701.07875

    Example:
        >>> import torch
        >>> Wasserstein().critic_loss(torch.ones(3), torch.zeros(5))
        tensor(-1.)
    """

    proper = False
    needs_penalty = True

    def real_term(self, output: Outputs) -> Scalar:
        """Return minus the mean of c."""
        return -output.mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of c."""
        return output.mean()

    def log_ratio(self, output: Outputs) -> Outputs:
        """Raise: a Wasserstein critic's output is not a log ratio, whatever its size.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(
            "A Wasserstein critic's output is not a log density ratio: its scale is the data's units, not nats."
        )

    def output(self, log_ratio: Outputs) -> Outputs:
        """Raise as `log_ratio` does.

        Raises:
            ValueError: always, naming the cure.
        """
        return self.log_ratio(log_ratio)
