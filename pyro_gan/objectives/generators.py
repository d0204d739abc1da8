"""Another generator's loss for the same critic: the zero-sum game, or the loss of another objective."""

from __future__ import annotations

from typing import final

import torch

from pyro_gan.checks import instance
from pyro_gan.objectives.base import Objective, Outputs, Scalar, SeparableObjective, check_outputs

__all__ = ["Minimax", "Paired"]


@final
class Minimax(SeparableObjective):
    r"""The critic of an objective, and the generator of its zero-sum game, which minimises :math:`-F(generated)`.

    The generator gains what generated data cost the critic. For f-divergences and Bregman losses its gradient at the
    critic's optimum is the gradient of the divergence itself. For scoring rules this is the saturating form: the
    gradient is nearly zero where the critic is sure that a sample is generated, so such a generator learns slowly from
    a good critic. `Minimax(ReverseKL())` does not saturate: it minimises the mean of -log r. The generator's loss does
    not contain the weights of the two classes.

    Args:
        objective: Any objective with two terms.

    Raises:
        ValueError: if the objective has no such terms.

    References:
        Generative Adversarial Networks, I. Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661;
        Many Paths to Equilibrium: GANs Do Not Need to Decrease a Divergence At Every Step, W. Fedus et al., 2018,
        https://arxiv.org/abs/1710.08446

    Example:
        >>> from pyro_gan.objectives import Bernoulli
        >>> Minimax(Bernoulli()).generator_loss(torch.zeros(0), torch.zeros(5))
        tensor(-0.6931)
    """

    def __init__(self, objective: SeparableObjective) -> None:
        cure = "Put it inside a Paired, not around it: Paired(critic, Minimax(generator))."
        self.objective = instance("objective", objective, SeparableObjective, cure=cure)
        _copy_facts(objective, self)

    def __repr__(self) -> str:
        return f"Minimax({self.objective!r})"

    def real_term(self, output: Outputs) -> Scalar:
        """Return the objective's term."""
        return self.objective.real_term(output)

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the objective's term."""
        return self.objective.generated_term(output)

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return the objective's log ratio."""
        return self.objective.log_ratio(output)

    def output(self, log_ratio: Outputs) -> Outputs:
        """Return the objective's optimal output."""
        return self.objective.output(log_ratio)

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return the objective's loss of the critic."""
        return self.objective.critic_loss(real, generated)

    def generator_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return -F(generated); arguments as for `Objective.critic_loss`."""
        check_outputs(generated=generated)
        return -self.objective.generated_term(generated)


@final
class Paired(Objective):
    r"""The critic of one objective, the generator of another.

    The outputs of different objectives have different scales. So the critic's objective turns its outputs into log
    ratios, and the generator's objective turns these into the outputs of its own optimal critic. This way one loss can
    learn the ratio, and another loss can train the generator with it.

    Args:
        critic: Gives `critic_loss` and `log_ratio`.
        generator: Gives `generator_loss`; `Minimax` around it gives the gradient of the divergence itself.

    Raises:
        ValueError: if the critic's objective determines no ratio, or the generator's has no output for a ratio.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483;
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987

    Example:
        >>> from pyro_gan.objectives import Bernoulli, ReverseKL
        >>> objective = Paired(Bernoulli(), Minimax(ReverseKL()))  # the generator minimises -log r
        >>> objective.generator_loss(torch.zeros(0), torch.tensor([-10.0, 4.0]))
        tensor(4.)
    """

    def __init__(self, critic: Objective, generator: SeparableObjective) -> None:
        instance("critic", critic, Objective)
        instance("generator", generator, SeparableObjective)
        critic.log_ratio(torch.empty(0))
        generator.output(torch.empty(0))
        self.critic, self.generator = critic, generator
        _copy_facts(critic, self)
        self.has_gradient = critic.has_gradient and generator.has_gradient

    def __repr__(self) -> str:
        return f"Paired({self.critic!r}, {self.generator!r})"

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return the critic's loss by its own objective."""
        return self.critic.critic_loss(real, generated)

    def generator_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return the loss by the generator's objective, at the critic's log ratio.

        Raises:
            ValueError: if an output has no log ratio.
        """
        check_outputs(generated=generated)
        generated = self.generator.output(self.critic.log_ratio(generated))
        return self.generator.generator_loss(generated[:0], generated)

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return the critic's log ratio, by the critic's objective."""
        return self.critic.log_ratio(output)


def _copy_facts(source: Objective, wrapper: Objective) -> None:
    """Give a wrapper what its source says of itself."""
    for name in ("proper", "class_prior", "has_gradient", "needs_penalty", "corrects"):
        setattr(wrapper, name, getattr(source, name))
