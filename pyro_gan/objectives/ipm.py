"""Integral probability metrics: the critic is a witness of the distance, and its scale is no log ratio."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives.base import Objective

__all__ = ["Wasserstein"]


@final
class Wasserstein(Objective):
    r"""The Wasserstein GAN's pair of losses; it takes a Lipschitz penalty beside it.

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
    class_prior = 0.5

    def __repr__(self) -> str:
        return "Wasserstein()"

    def critic_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return E_G c - E_data c."""
        return generated.mean() - real.mean()

    def generator_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return -E_G c."""
        return -generated.mean()

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Raise: a Wasserstein critic's output is not a log ratio, whatever its size.

        Raises:
            ValueError: always, naming the cure.
        """
        raise ValueError(
            "A Wasserstein critic's output is not a log density ratio: its scale is the data's units, not nats. "
            "Fit the scale on held-out data with pyro_gan.calibrate(critic, real, generated), or fit a fresh critic "
            "with pyro_gan.fit_log_ratio."
        )
