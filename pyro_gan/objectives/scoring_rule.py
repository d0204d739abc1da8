"""What all scoring rules share: the class prior, smoothed labels, and both undone in the log ratio."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives.base import SeparableObjective, no_log_ratio

__all__ = ["ScoringRule", "check_within"]


class ScoringRule(SeparableObjective):
    r"""A classifier's loss, with a class prior and smoothed labels.

    A rule charges :math:`R` for an output of class real and :math:`F` for one of class generated. With :math:`\pi`
    the weight of real data and :math:`a`, :math:`b` the labels of the two, the critic minimises

    .. math:: \pi\, E_{data}[a R + (1 - a) F] + (1 - \pi)\, E_G[b R + (1 - b) F].

    If the rule is strictly proper and its output a logit :math:`f`, the optimum says that a point's chance to bear
    the label 1 is :math:`\sigma(f)`, so

    .. math:: \log r = f + \log\big(1 - b - b e^{-f}\big) - \log\big(a - (1 - a) e^{f}\big) - \log\frac{\pi}{1 - \pi}.

    For hard labels, :math:`a = 1` and :math:`b = 0`, both logarithms are zero. Smoothed labels are thus undone
    exactly, but only for outputs strictly between :math:`\operatorname{logit} b` and :math:`\operatorname{logit} a`:
    the optimum never leaves them, a trained network may, and out there no ratio would have taught it its output, so
    `log_ratio` raises. The generator's losses know neither prior nor labels.

    Args:
        class_prior: :math:`\pi`. A critic trained by someone else on an unweighted mix with a share s of real data
            has class prior s.
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

    def __init__(
        self, class_prior: float = 0.5, *, real_label: float = 1.0, generated_label: float = 0.0
    ) -> None:
        if not 0 < class_prior < 1:
            raise ValueError(
                f"Expected a class prior strictly between 0 and 1; got {class_prior}. "
                "It is the weight of real data in the critic's loss, 0.5 in most GANs."
            )
        if not 0 <= generated_label < real_label <= 1:
            raise ValueError(
                f"Expected labels 0 <= generated_label < real_label <= 1; got {generated_label=}, {real_label=}. "
                "Without smoothing they are 0 and 1."
            )
        self.class_prior = class_prior
        self.real_label, self.generated_label = real_label, generated_label

    def __repr__(self) -> str:
        said = f"class_prior={self.class_prior}"
        if (self.real_label, self.generated_label) != (1, 0):
            said += f", real_label={self.real_label}, generated_label={self.generated_label}"
        return f"{type(self).__name__}({said})"

    @property
    def prior_log_odds(self) -> float:
        """The log odds of the class prior, by which a proper logit differs from the log ratio."""
        return math.log(self.class_prior) - math.log1p(-self.class_prior)

    def _critic_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        for_real = self._labelled(real, self.real_label)
        for_generated = self._labelled(generated, self.generated_label)
        return self.class_prior * for_real + (1 - self.class_prior) * for_generated

    def _labelled(self, output: Tensor, label: float) -> Tensor:
        """Return the loss of outputs that bear label 1 with this chance; hard labels cost one term."""
        if label == 1:
            return self.real_term(output)
        if label == 0:
            return self.generated_term(output)
        return label * self.real_term(output) + (1 - label) * self.generated_term(output)

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the logit less the prior's log odds, the labels' smoothing undone.

        Raises:
            ValueError: if labels were smoothed and an output is not strictly between their logits.
        """
        a, b = self.real_label, self.generated_label
        low = math.log(b) - math.log1p(-b) if b > 0 else -math.inf
        high = math.log(a) - math.log1p(-a) if a < 1 else math.inf
        check_within(output, low, high, "a critic trained on smoothed labels")
        log_odds = output
        if b > 0:
            log_odds = log_odds + (1 - b - b * (-output).exp()).log()
        if a < 1:
            log_odds = log_odds - (a - (1 - a) * output.exp()).log()
        return log_odds - self.prior_log_odds

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the logit of the chance to bear the label 1."""
        log_odds = log_ratio + self.prior_log_odds
        a, b = self.real_label, self.generated_label
        if (a, b) == (1, 0):
            return log_odds
        return _log_mix(a, b, log_odds) - _log_mix(1 - a, 1 - b, log_odds)


def check_within(output: Tensor, low: float, high: float, what: str) -> None:
    """Raise unless all outputs are strictly inside an interval; NaN passes, and nothing is read where it is all."""
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
