"""What every loss of a GAN must say: objectives on critic outputs, losses on two samples, penalties on a critic."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Critic

__all__ = ["Objective", "Penalty", "SeparableObjective", "TwoSampleLoss", "no_log_ratio"]


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


class SeparableObjective(Objective):
    r"""An objective whose critic loss is one term of real outputs plus one of generated outputs.

    With terms :math:`R` and :math:`F` the critic minimises :math:`R(real) + F(generated)`. The generator minimises
    :math:`R(generated)`: it wants its data taken for real, and this is the form whose gradient lives on where the
    critic is sure of itself (for most terms; each class says). The other form, :math:`-F(generated)`, is
    `Minimax` around the objective.
    """

    proper = True
    class_prior = 0.5

    @abstractmethod
    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return R, what outputs for real data cost the critic: low where they are high."""

    @abstractmethod
    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return F, what outputs for generated data cost the critic: low where they are low."""

    @abstractmethod
    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the output of a critic at its optimum, where the log ratio is this; the inverse of `log_ratio`.

        Args:
            log_ratio: Nats, `(batch,)`.

        Returns:
            `(batch,)`.

        Raises:
            ValueError: if this objective's optimum does not determine the ratio, with the cure.
        """

    def critic_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return R(real) + F(generated); arguments as for `Objective.critic_loss`.

        Raises:
            ValueError: if outputs are not `(batch,)` with at least one row.
        """
        _check_outputs(real, "real")
        _check_outputs(generated, "generated")
        return self._critic_loss(real, generated)

    def _critic_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        return self.real_term(real) + self.generated_term(generated)

    def generator_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return R(generated); outputs for real data are not used and may be empty.

        Raises:
            ValueError: if the generated outputs are not `(batch,)` with at least one row.
        """
        _check_outputs(generated, "generated")
        return self._generator_loss(generated)

    def _generator_loss(self, generated: Tensor) -> Tensor:
        return self.real_term(generated)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class TwoSampleLoss(ABC):
    """A distance between two sets of data that needs no critic: the generator minimises it."""

    @abstractmethod
    def __call__(
        self, real_x: Float[Tensor, "batch *event"], generated_x: Float[Tensor, "batch2 *event"]
    ) -> Float[Tensor, ""]:
        """Return the distance.

        Args:
            real_x: Real data, `(batch, *event)`.
            generated_x: Generated data of the same event shape; their number may differ.
        """


class Penalty(ABC):
    """What a critic pays for its slope; it is added to the critic's loss."""

    @abstractmethod
    def __call__(
        self,
        critic: Critic,
        real_x: Float[Tensor, "batch *event"],
        generated_x: Float[Tensor, "batch *event"],
    ) -> Float[Tensor, ""]:
        """Return the penalty, differentiable in the critic's parameters and in nothing else.

        Args:
            critic: `(batch, *event) -> (batch,)` or `(batch, 1, ..., 1)`. A conditional one is wrapped first,
                `lambda x: critic(x, label=label)`.
            real_x: Real data, `(batch, *event)`.
            generated_x: Generated data of the same event shape.
        """


def no_log_ratio(why: str, cure: str = "") -> ValueError:
    """Return the error of an objective whose optimum determines no ratio: why, its own cure, the cures for all."""
    return ValueError(
        f"{why} {cure}Fit the scale on held-out data with pyro_gan.calibrate(critic, real, generated), or fit a fresh "
        "critic with pyro_gan.fit_log_ratio."
    )


def _check_outputs(output: Tensor, whose: str) -> None:
    if output.dim() != 1 or not len(output):
        raise ValueError(
            f"Expected critic outputs for {whose} data of shape (batch,), at least one of them; got "
            f"{tuple(output.shape)}. Squeeze the critic's last dimension: critic(x).squeeze(-1)."
        )
