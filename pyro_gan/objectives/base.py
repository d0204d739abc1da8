"""What every objective on critic outputs must say: two losses, and the log ratio that they teach the critic."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

__all__ = ["Objective"]


class Objective(ABC):
    """A pair of losses on critic outputs, and the log density ratio read off the critic's optimum.

    Stateless: one instance may serve many critics. Both losses are minimised, each by its own player, and both take
    outputs for real and for generated data, so that either may use the two.
    """

    #: Whether the critic's optimum determines the density ratio: the loss is a strictly proper scoring rule.
    proper: bool
    #: Weight of real data in the critic's loss, in (0, 1).
    class_prior: float

    @abstractmethod
    def critic_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return what the critic minimises.

        Args:
            real: Critic outputs for real data, `(batch,)`.
            generated: Critic outputs for generated data; their number may differ.
        """

    @abstractmethod
    def generator_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return what the generator minimises; arguments as for `critic_loss`."""

    @abstractmethod
    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return log p_data - log p_G in nats from the outputs of a critic at its optimum.

        Args:
            output: Critic outputs, `(batch,)`; an empty batch asks whether there is a ratio at all.

        Returns:
            `(batch,)`.

        Raises:
            ValueError: if this objective's optimum does not determine the ratio, with the cure.
        """
