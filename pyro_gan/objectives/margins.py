"""Losses of a classifier that teach it which class is likelier, but not by how much."""

from __future__ import annotations

from typing import final

from pyro_gan.objectives.base import Outputs, Scalar, check_outputs, no_log_ratio
from pyro_gan.objectives.scoring_rule import ScoringRule

__all__ = ["Hinge", "Misclassification"]


@final
class Hinge(ScoringRule):
    r"""The margin loss of many image GANs: :math:`\max(0, 1 - f)` for real data, :math:`\max(0, 1 + f)` for generated.

    The optimum is the sign of :math:`\pi p_{data} - (1 - \pi) p_G`. It tells on which side of 1 the ratio lies, but not
    how far: `log_ratio` and `output` raise. The generator minimises :math:`-E_G f`. `ScoringRule` has the arguments.

    References:
        Geometric GAN, J. H. Lim and J. C. Ye, 2017, https://arxiv.org/abs/1705.02894

    Example:
        >>> import torch
        >>> Hinge().critic_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0]))
        tensor(0.1250)
    """

    proper = False

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of max(0, 1 - f)."""
        return (1 - output).relu().mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of max(0, 1 + f)."""
        return (1 + output).relu().mean()

    def generator_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return minus the mean of f; arguments as for `Objective.critic_loss`."""
        check_outputs(generated=generated)
        return -generated.mean()

    def log_ratio(self, output: Outputs) -> Outputs:
        """Raise: the optimal output is a sign.

        Raises:
            ValueError: always, naming the cure.
        """
        raise _only_a_sign("hinge")

    def output(self, log_ratio: Outputs) -> Outputs:
        """Raise as `log_ratio` does.

        Raises:
            ValueError: always, naming the cure.
        """
        return self.log_ratio(log_ratio)


@final
class Misclassification(ScoringRule):
    r"""The share of wrong classifications: :math:`1[f \le 0]` for real data, :math:`1[f > 0]` for generated.

    It judges a critic and cannot train one: it has no gradient. Its minimum at even prior is :math:`(1 - TV) / 2`, with
    the total variation TV between data and generator. Any output of the right sign is optimal: `log_ratio` and `output`
    raise. `ScoringRule` has the arguments.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> import torch
        >>> Misclassification().critic_loss(torch.tensor([2.0, -0.5]), torch.tensor([-3.0]))
        tensor(0.2500)
    """

    proper = False
    has_gradient = False
    corrects = ()

    def real_term(self, output: Outputs) -> Scalar:
        """Return the share classified as generated."""
        return (output <= 0).to(output.dtype).mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the share classified as real."""
        return (output > 0).to(output.dtype).mean()

    def log_ratio(self, output: Outputs) -> Outputs:
        """Raise: only the output's sign means anything.

        Raises:
            ValueError: always, naming the cure.
        """
        raise _only_a_sign("misclassification")

    def output(self, log_ratio: Outputs) -> Outputs:
        """Raise as `log_ratio` does.

        Raises:
            ValueError: always, naming the cure.
        """
        return self.log_ratio(log_ratio)


def _only_a_sign(name: str) -> ValueError:
    return no_log_ratio(
        f"The {name} loss leaves no log density ratio in its critic: at the optimum only the output's sign is "
        "determined, which says on which side of even odds a point lies and no more."
    )
