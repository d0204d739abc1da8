"""The contracts of a GAN's losses: objectives on critic outputs, losses on two samples, penalties on a critic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Critic
from pyro_gan.checks import tensor

__all__ = ["Objective", "Penalty", "SeparableObjective", "TwoSampleLoss", "no_log_ratio"]

#: Critic outputs; those for real and for generated data may differ in number.
Outputs = Float[Tensor, " batch"]
#: Data; real and generated rows may differ in number.
Rows = Float[Tensor, "batch *event"]
#: A loss.
Scalar = Float[Tensor, ""]


class Objective(ABC):
    """A pair of losses on critic outputs, and the log density ratio that the critic's optimum determines.

    The sign convention: the critic raises outputs for real data and lowers those for generated data; the generator
    raises outputs for its own data. `log_ratio` is log p_data - log p_G and increases with the output. Both losses are
    minimised, each by its own player. An objective is stateless, so one instance may serve many critics.
    """

    #: Whether the critic's optimum determines the log ratio: the loss is a strictly proper scoring rule.
    proper: bool
    #: Weight of real data in the critic's loss, in (0, 1).
    class_prior: float
    #: Whether the losses can be differentiated, hence train a network.
    has_gradient: bool = True
    #: Whether the critic's loss has no lower bound unless a penalty limits the critic's slope.
    needs_penalty: bool = False
    #: Sides on which an output that is wrong by far still gets a gradient: "real", "generated", both or neither.
    corrects: tuple[str, ...] = ("real", "generated")

    @abstractmethod
    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return what the critic minimises.

        Args:
            real: Critic outputs for real data, `(batch,)`.
            generated: Critic outputs for generated data; their number may differ.
        """

    @abstractmethod
    def generator_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return what the generator minimises; arguments as for `critic_loss`."""

    @abstractmethod
    def log_ratio(self, output: Outputs) -> Outputs:
        """Return log p_data - log p_G in nats from the outputs of a critic at its optimum.

        Args:
            output: Critic outputs, `(batch,)`; an empty batch asks whether there is a ratio at all.

        Returns:
            `(batch,)`.

        Raises:
            ValueError: if this objective's optimum does not determine the ratio, with the cure.
        """


class SeparableObjective(Objective):
    r"""An objective whose critic loss is one term of real outputs plus one term of generated outputs.

    With terms :math:`R` and :math:`F` the critic minimises :math:`R(real) + F(generated)`. The generator minimises
    :math:`R(generated)`: its data shall pass for real. For most terms this form keeps its gradient where the critic is
    sure of itself; each class says. The other form, :math:`-F(generated)`, is `Minimax` around the objective.

    A subclass writes the two terms, which are means over rows, and the two maps `log_ratio` and `output`.
    """

    proper = True
    class_prior = 0.5

    @abstractmethod
    def real_term(self, output: Outputs) -> Scalar:
        """Return R, the cost of outputs for real data: the higher the outputs, the lower the cost."""

    @abstractmethod
    def generated_term(self, output: Outputs) -> Scalar:
        """Return F, the cost of outputs for generated data: the lower the outputs, the lower the cost."""

    @abstractmethod
    def output(self, log_ratio: Outputs) -> Outputs:
        """Return the optimal critic's output where the log ratio has this value: the inverse of `log_ratio`.

        Args:
            log_ratio: Nats, `(batch,)`.

        Returns:
            `(batch,)`.

        Raises:
            ValueError: if this objective's optimum does not determine the ratio, with the cure.
        """

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return R(real) + F(generated); arguments as for `Objective.critic_loss`.

        Raises:
            ValueError: if outputs are not `(batch,)` with at least one row.
        """
        check_outputs(real=real, generated=generated)
        return self.real_term(real) + self.generated_term(generated)

    def generator_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return R(generated); outputs for real data are not used and may be empty.

        Raises:
            ValueError: if the generated outputs are not `(batch,)` with at least one row.
        """
        check_outputs(generated=generated)
        return self.real_term(generated)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class TwoSampleLoss(ABC):
    """A distance between two sets of data that needs no critic: the generator minimises it."""

    @abstractmethod
    def __call__(self, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the distance.

        Args:
            real_x: Real data, `(batch, *event)`.
            generated_x: Generated data of the same event shape; their number may differ.
        """


class Penalty(ABC):
    """A cost of the critic's slope; it is added to the critic's loss."""

    @abstractmethod
    def __call__(self, critic: Critic, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the penalty, differentiable in the critic's parameters and in nothing else.

        Args:
            critic: `(batch, *event) -> (batch,)` or `(batch, 1, ..., 1)`. Wrap a conditional one first:
                `lambda x: critic(x, label=label)`.
            real_x: Real data, `(batch, *event)`.
            generated_x: Generated data of the same event shape.
        """


def no_log_ratio(why: str, cure: str = "") -> ValueError:
    """Return the error of an objective whose optimum determines no ratio: the reason, its own cure, the general cures.

    Example:
        >>> error = no_log_ratio("The optimum is a sign.")
        >>> str(error).startswith("The optimum is a sign. Fit the scale on held-out data with pyro_gan.calibrate")
        True
    """
    return ValueError(
        f"{why} {cure}Fit the scale on held-out data with pyro_gan.calibrate(critic, real, generated), or fit a fresh "
        "critic with pyro_gan.fit_log_ratio."
    )


def check_outputs(**outputs: Any) -> None:
    """Raise unless the critic outputs for "real" and "generated" data are `(batch,)` with at least one row."""
    for whose, output in outputs.items():
        output = tensor(f"critic outputs for {whose} data", output)
        if output.dim() != 1 or not len(output) or not output.is_floating_point():
            raise ValueError(
                f"Expected critic outputs for {whose} data of shape (batch,), real numbers and at least one; got "
                f"{tuple(output.shape)}, {output.dtype}. Squeeze the critic's last dimension: critic(x).squeeze(-1)."
            )


def check_data(*, minimum: int = 1, **data: Any) -> None:
    """Raise unless real and generated data are `(batch, *event)`, with one event shape and at least `minimum` rows."""
    for whose, x in data.items():
        if tensor(f"{whose} data", x).dim() < 1 or len(x) < minimum or not x.is_floating_point():
            raise ValueError(
                f"Expected {whose} data as real numbers, (batch, *event), with a batch of at least {minimum}; got "
                f"shape {tuple(x.shape)}, {x.dtype}."
            )
    shapes = [tuple(x.shape[1:]) for x in data.values()]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"Expected real and generated data of one event shape; got {' and '.join(map(str, shapes))}. Reshape one "
            "of them."
        )
