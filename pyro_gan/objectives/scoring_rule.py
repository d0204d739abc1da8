"""The base of all scoring rules: class prior and smoothed labels, which `log_ratio` undoes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gan.checks import real, tensor
from pyro_gan.objectives.base import Outputs, Scalar, SeparableObjective, check_outputs, no_log_ratio

__all__ = ["ScoringRule", "check_within"]


class ScoringRule(SeparableObjective):
    r"""A classifier's loss, with a class prior and smoothed labels.

    An output costs :math:`R` if the point is real and :math:`F` if it is generated. With the weight :math:`\pi`
    of real data and the labels :math:`a` of real and :math:`b` of generated data, the critic minimises

    .. math:: \pi\, E_{data}[a R + (1 - a) F] + (1 - \pi)\, E_G[b R + (1 - b) F].

    If the rule is strictly proper and its output is a logit :math:`f`, then at the optimum :math:`\sigma(f)` is the
    probability that a point has label 1, so

    .. math:: \log r = f + \log\big(1 - b - b e^{-f}\big) - \log\big(a - (1 - a) e^{f}\big) - \log\frac{\pi}{1 - \pi}.

    For hard labels, :math:`a = 1` and :math:`b = 0`, both logarithms are zero. So `log_ratio` undoes smoothed labels
    exactly, but only for outputs strictly between :math:`\operatorname{logit} b` and :math:`\operatorname{logit} a`.
    The optimum lies in this interval; the output of a trained network may lie outside, where no ratio belongs to it and
    `log_ratio` raises. The generator's losses depend neither on the prior nor on the labels.

    A subclass writes `real_term` and `generated_term`, and overrides `log_ratio` and `output` if its output is no
    logit.

    Args:
        class_prior: :math:`\pi`. A critic trained elsewhere on an unweighted mix with a share s of real data has class
            prior s.
        real_label: :math:`a`; 0.9 is usual where labels are smoothed.
        generated_label: :math:`b`.

    Raises:
        ValueError: if the class prior is not strictly between 0 and 1, or the labels are not
            `0 <= generated_label < real_label <= 1`.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483;
        Strictly Proper Scoring Rules, Prediction, and Estimation, T. Gneiting and A. Raftery, 2007,
        https://doi.org/10.1198/016214506000001437;
        Improved Techniques for Training GANs (smoothed labels), T. Salimans et al., 2016,
        https://arxiv.org/abs/1606.03498
    """

    def __init__(self, class_prior: float = 0.5, *, real_label: float = 1.0, generated_label: float = 0.0) -> None:
        cure = "It is the weight of real data in the critic's loss, 0.5 in most GANs."
        self.class_prior = real("class_prior", class_prior, above=0, below=1, cure=cure)
        cure = "Labels satisfy 0 <= generated_label < real_label <= 1; without smoothing they are 0 and 1."
        self.real_label = real("real_label", real_label, above=0, maximum=1, cure=cure)
        self.generated_label = real("generated_label", generated_label, minimum=0, below=self.real_label, cure=cure)

    def __repr__(self) -> str:
        said = f"class_prior={self.class_prior}"
        if (self.real_label, self.generated_label) != (1, 0):
            said += f", real_label={self.real_label}, generated_label={self.generated_label}"
        return f"{type(self).__name__}({said})"

    @property
    def prior_log_odds(self) -> float:
        """The log odds of the class prior: a proper logit minus the log ratio."""
        return math.log(self.class_prior) - math.log1p(-self.class_prior)

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return the terms, weighted by prior and labels; arguments as for `Objective.critic_loss`."""
        check_outputs(real=real, generated=generated)
        for_real = self._labelled(real, self.real_label)
        for_generated = self._labelled(generated, self.generated_label)
        return self.class_prior * for_real + (1 - self.class_prior) * for_generated

    def _labelled(self, output: Tensor, label: float) -> Tensor:
        """Return the cost of outputs whose points have label 1 with this probability; a hard label takes one term."""
        if label == 1:
            return self.real_term(output)
        if label == 0:
            return self.generated_term(output)
        return label * self.real_term(output) + (1 - label) * self.generated_term(output)

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return the logit minus the prior's log odds, with the smoothing of the labels undone.

        Raises:
            ValueError: if labels were smoothed and an output is not strictly between their logits.
        """
        a, b = self.real_label, self.generated_label
        low = math.log(b) - math.log1p(-b) if b > 0 else -math.inf
        high = math.log(a) - math.log1p(-a) if a < 1 else math.inf
        check_within(tensor("output", output), low, high, "a critic trained on smoothed labels")
        log_odds = output
        if b > 0:
            log_odds = log_odds + (1 - b - b * (-output).exp()).log()
        if a < 1:
            log_odds = log_odds - (a - (1 - a) * output.exp()).log()
        return log_odds - self.prior_log_odds

    def output(self, log_ratio: Outputs) -> Outputs:
        """Return the logit of the probability of label 1."""
        log_odds = tensor("log_ratio", log_ratio) + self.prior_log_odds
        a, b = self.real_label, self.generated_label
        if (a, b) == (1, 0):
            return log_odds
        return _log_mix(a, b, log_odds) - _log_mix(1 - a, 1 - b, log_odds)


def check_within(output: Tensor, low: float, high: float, what: str) -> None:
    """Raise unless all outputs lie strictly inside an interval. NaN passes; an infinite interval reads no number."""
    if math.isinf(low) and math.isinf(high):
        return
    if bool(((output <= low) | (output >= high)).any()):
        raise no_log_ratio(
            f"Expected outputs strictly between {low:.4g} and {high:.4g}, where {what} has a log ratio; got values "
            f"from {float(output.min()):.4g} to {float(output.max()):.4g}."
        )


def _log_mix(weight: float, rest: float, log_odds: Tensor) -> Tensor:
    """Return log(weight * odds + rest), for weights that may be zero."""
    if weight == 0:
        return torch.full_like(log_odds, math.log(rest))
    shifted = log_odds + math.log(weight)
    return shifted if rest == 0 else torch.logaddexp(shifted, torch.full_like(shifted, math.log(rest)))
