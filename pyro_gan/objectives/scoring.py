"""Strictly proper scoring rules: the critic classifies real against generated data, and its odds give the ratio."""

from __future__ import annotations

from typing import final

from torch.nn.functional import logsigmoid, softplus

from pyro_gan.checks import tensor
from pyro_gan.objectives.base import Outputs, Scalar
from pyro_gan.objectives.scoring_rule import ScoringRule, check_within
from pyro_gan.objectives.tangent import exp_tangent

__all__ = ["Bernoulli", "Brier", "Exponential", "LeastSquares", "Spherical"]


@final
class Bernoulli(ScoringRule):
    r"""The original GAN's critic (binary cross-entropy) and its non-saturating generator.

    With logit :math:`f`, :math:`D = \sigma(f)` and :math:`\pi` the weight of real data, the critic minimises

    .. math:: -\pi\, E_{data} \log D - (1 - \pi)\, E_G \log(1 - D),
        \qquad f^* = \log r + \log\frac{\pi}{1 - \pi},

    and the generator minimises :math:`-E_G \log D`, which keeps its gradient where the critic is sure. Both losses are
    softplus of logits, so they are finite for outputs of any size. `GAN` is twice this loss at even prior.
    `ScoringRule` has the arguments and explains smoothed labels.

    References:
        Generative Adversarial Networks, I. Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661;
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> import torch
        >>> Bernoulli().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.6931)
        >>> Bernoulli(real_label=0.9).log_ratio(torch.tensor([0.0, 2.0]))  # 2.2 is the logit of .9
        tensor([0.2231, 3.8258])
    """

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -log D."""
        return softplus(-output).mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of -log(1 - D)."""
        return softplus(output).mean()


@final
class Brier(ScoringRule):
    r"""Squared error of a probability: :math:`(1 - D)^2` for real data, :math:`D^2` for generated, from logits.

    The rule is strictly proper and bounded. But :math:`D = \sigma(f)` is flat on both sides, so both forms of the
    generator's loss saturate (at :math:`f = -10` their gradients are :math:`9 \cdot 10^{-5}` and
    :math:`4 \cdot 10^{-9}`): train a generator by another objective, or use `LeastSquares`. `ScoringRule` has the
    arguments.

    References:
        Verification of Forecasts Expressed in Terms of Probability, G. Brier, 1950,
        https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2;
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> import torch
        >>> Brier().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.2500)
    """

    corrects = ()

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of (1 - D)^2."""
        return (-output).sigmoid().square().mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of D^2."""
        return output.sigmoid().square().mean()


@final
class LeastSquares(ScoringRule):
    r"""The least-squares GAN, the Brier score of a linear output: :math:`(1 - c)^2` and :math:`c^2`.

    With hard labels the optimum is :math:`c^* = \pi p_{data} / (\pi p_{data} + (1 - \pi) p_G)`; with smoothed labels it
    is :math:`b + (a - b) c^*`. So :math:`\log r = \log(c - b) - \log(a - c) - \log\frac{\pi}{1 - \pi}`. Nothing keeps
    a network's output between the labels; an output outside stands for no probability, and `log_ratio` raises.
    `calibrate` takes such critics as they are. The generator does not saturate: its gradient grows with the distance
    from 1. `ScoringRule` has the arguments.

    References:
        Least Squares Generative Adversarial Networks, X. Mao et al., 2017, https://arxiv.org/abs/1611.04076

    Example:
        >>> import torch
        >>> LeastSquares().log_ratio(torch.tensor([0.2, 0.5]))
        tensor([-1.3863,  0.0000])
    """

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of (1 - c)^2."""
        return (1 - output).square().mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of c^2."""
        return output.square().mean()

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return the log odds of the output between the labels, minus the log odds of the prior.

        Raises:
            ValueError: if an output is not strictly between the labels.
        """
        a, b = self.real_label, self.generated_label
        check_within(tensor("output", output), b, a, "a least-squares critic")
        return (output - b).log() - (a - output).log() - self.prior_log_odds

    def output(self, log_ratio: Outputs) -> Outputs:
        """Return the posterior probability of real data, scaled to the interval between the labels."""
        probability = (tensor("log_ratio", log_ratio) + self.prior_log_odds).sigmoid()
        return self.generated_label + (self.real_label - self.generated_label) * probability


@final
class Exponential(ScoringRule):
    r"""The boosting loss: :math:`e^{-f/2}` for real data, :math:`e^{f/2}` for generated.

    The rule is strictly proper; the optimum is :math:`\log r` plus the prior's log odds. Confident mistakes are
    expensive. Where the generator's gradient by `Bernoulli` is 1, this one explodes (74 at :math:`f = -10`); its
    `Minimax` form fades slowly (.0034). Beyond 40 nats the exponentials go on as tangents. `SquaredHellinger` at output
    f / 2 is this loss at even prior, times 2, minus 2. `ScoringRule` has the arguments.

    References:
        Loss Functions for Binary Class Probability Estimation and Classification: Structure and Applications,
        A. Buja, W. Stuetzle and Y. Shen, 2005; Learning in Implicit Generative Models, S. Mohamed and
        B. Lakshminarayanan, 2016, https://arxiv.org/abs/1610.03483

    Example:
        >>> import torch
        >>> Exponential().generator_loss(torch.zeros(0), torch.tensor([0.0, -2.0]))
        tensor(1.8591)
    """

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(-f / 2)."""
        return exp_tangent(-output / 2).mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of exp(f / 2)."""
        return exp_tangent(output / 2).mean()


@final
class Spherical(ScoringRule):
    r"""The spherical score: :math:`-D / \sqrt{D^2 + (1 - D)^2}` for real data, with :math:`1 - D` on top for generated.

    In logits these are :math:`-(1 + e^{\mp 2 f})^{-1/2}`. The rule is strictly proper and bounded. Both forms of the
    generator's loss saturate (at :math:`f = -10` their gradients are :math:`5 \cdot 10^{-5}` and
    :math:`2 \cdot 10^{-9}`): train a generator by another objective. `ScoringRule` has the arguments.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation, T. Gneiting and A. Raftery, 2007,
        https://doi.org/10.1198/016214506000001437;
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> import torch
        >>> Spherical().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(-0.7071)
    """

    corrects = ()

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -(1 + exp(-2 f))^(-1/2)."""
        return -(0.5 * logsigmoid(2 * output)).exp().mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the mean of -(1 + exp(2 f))^(-1/2)."""
        return -(0.5 * logsigmoid(-2 * output)).exp().mean()
