"""Another generator for the same critic: the zero-sum game, or the divergence of another objective."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives.base import Objective, SeparableObjective

__all__ = ["Minimax", "Paired"]


@final
class Minimax(SeparableObjective):
    r"""The critic of an objective, its generator in the zero-sum game: it minimises :math:`-F(generated)`.

    What the critic pays for generated data the generator earns. For f-divergences and Bregman losses its gradient, at
    the critic's optimum, is the gradient of the divergence itself. For scoring rules it is the saturating form: where
    the critic is sure that a sample is generated the gradient is nearly zero, and such a generator learns slowly from
    a good critic. `Minimax(ReverseKL())` does not saturate: it minimises the mean of -log r. Weights of the two
    classes are left out.

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
        if not isinstance(objective, SeparableObjective):
            raise ValueError(
                f"Expected an objective with a term of real and one of generated outputs; got {objective!r}. "
                "Around a Paired put it on the inside: Paired(critic, Minimax(generator))."
            )
        self.objective = objective
        self.proper, self.class_prior = objective.proper, objective.class_prior

    def __repr__(self) -> str:
        return f"Minimax({self.objective!r})"

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the objective's term."""
        return self.objective.real_term(output)

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the objective's term."""
        return self.objective.generated_term(output)

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the objective's log ratio."""
        return self.objective.log_ratio(output)

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the objective's optimal output."""
        return self.objective.output(log_ratio)

    def _critic_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        return self.objective.critic_loss(real, generated)

    def _generator_loss(self, generated: Tensor) -> Tensor:
        return -self.objective.generated_term(generated)


@final
class Paired(Objective):
    r"""The critic of one objective, the generator of another.

    Critics' outputs have different scales, so the generator's objective never sees the critic's: the outputs become
    log ratios by the critic's objective, and those become what a critic of the generator's objective would have put
    out at its optimum. A ratio may thus be learnt by a loss that learns it well, and spent on a divergence that trains
    well.

    Args:
        critic: Its `critic_loss` and `log_ratio` are used.
        generator: Its `generator_loss` is used; `Minimax` around it gives the divergence's own gradient.

    Raises:
        ValueError: if the critic's objective determines no ratio, or the generator's cannot be said in one.

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
        if not isinstance(critic, Objective) or not isinstance(generator, SeparableObjective):
            raise ValueError(
                f"Expected two objectives, the generator's with two terms; got {critic!r} and {generator!r}."
            )
        critic.log_ratio(torch.empty(0))
        generator.output(torch.empty(0))
        self.critic, self.generator = critic, generator
        self.proper, self.class_prior = critic.proper, critic.class_prior

    def __repr__(self) -> str:
        return f"Paired({self.critic!r}, {self.generator!r})"

    def critic_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return the critic's loss by its own objective."""
        return self.critic.critic_loss(real, generated)

    def generator_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return the generator's loss by its own objective, of the critic's log ratio.

        Raises:
            ValueError: if an output has no log ratio.
        """
        generated = self.generator.output(self.critic.log_ratio(generated))
        return self.generator.generator_loss(real.new_zeros(0), generated)

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the critic's log ratio, by the critic's objective."""
        return self.critic.log_ratio(output)
