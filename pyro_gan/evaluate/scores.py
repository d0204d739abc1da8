"""Figures from a classifier's probabilities: an Inception-like score with its error, and the balance of classes."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import rows, shaped, tensor
from pyro_gan.evaluate.metric import Estimate

__all__ = ["class_counts", "classifier_score", "total_variation"]


def classifier_score(log_probabilities: Float[Tensor, "draw class"]) -> Estimate[float]:
    """Return the exponential of the mutual information between sample and class.

        score = exp( (1/n) sum_i KL( p(y | x_i) || p(y) ) ),   p(y) = (1/n) sum_i p(y | x_i)

    It is high when every sample looks like one class and all classes occur. With an Inception network it is the
    Inception Score; with another network it takes that network's name and compares only with itself. To first order the
    estimate of p(y) adds no error, so the standard error is score * sd(KL_i) / sqrt(n).

    Args:
        log_probabilities: Log of the classifier's p(y | x), normalised over classes, `(draw, class)`.

    Returns:
        The score over all draws at once, between 1 and the number of classes, and its standard error for independent
        samples. (Splits would bias it low, small splits most.)

    Raises:
        ValueError: if the shape is wrong, there are fewer than 2 draws, an entry is NaN, or rows do not sum to 1.

    References:
        Improved Techniques for Training GANs, T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford and
        X. Chen, 2016, https://arxiv.org/abs/1606.03498

    Example:
        >>> certain = torch.eye(4).repeat(25, 1).log()
        >>> round(classifier_score(certain).value, 6)
        4.0
    """
    log_p = _checked(log_probabilities)
    p = log_p.exp()
    log_marginal = p.mean(0).log()
    # xlogy's rule: a class of probability 0 adds nothing, whatever its log.
    divergence = torch.where(p > 0, p * (log_p - log_marginal), 0.0).sum(-1)
    value = math.exp(float(divergence.mean()))
    return Estimate(value, value * float(divergence.std()) / math.sqrt(len(divergence)))


def class_counts(log_probabilities: Float[Tensor, "draw class"]) -> Int[Tensor, " class"]:
    """Count the samples that are most like each class.

    Args:
        log_probabilities: Log of the classifier's p(y | x), `(draw, class)`.

    Returns:
        Samples of each class, `(class,)`.

    Raises:
        ValueError: as `classifier_score`.
    """
    log_p = _checked(log_probabilities)
    return torch.bincount(log_p.argmax(-1), minlength=log_p.shape[1])


def total_variation(counts: Float[Tensor, "class"], reference: Float[Tensor, "class"]) -> float:
    """Return the total variation distance between two histograms over the same classes.

        TV = (1/2) sum_c | counts_c / sum(counts) - reference_c / sum(reference) |

    Args:
        counts: Counts or frequencies, `(class,)`.
        reference: Counts or frequencies to compare with, `(class,)`.

    Returns:
        The distance, between 0 (equal) and 1 (no class in common).

    Raises:
        ValueError: if shapes disagree, an entry is negative or not finite, or a histogram is empty.

    Example:
        >>> total_variation(torch.tensor([30, 10]), torch.tensor([1, 1]))
        0.25
    """
    p, q = histogram("counts", counts), histogram("reference", reference)
    if p.shape != q.shape:
        raise ValueError(f"Expected as many classes in both histograms; got {len(p)} and {len(q)}.")
    return 0.5 * float((p / p.sum() - q.to(p.device) / q.sum()).abs().sum())


def histogram(name: str, counts: Tensor, *, minimum: int = 1) -> Float[Tensor, "class"]:
    """Return counts or shares in float64, checked.

    Raises:
        ValueError: if there are fewer than `minimum`, an entry is negative or not finite, or the sum is not positive.
    """
    found = rows(name, shaped(name, counts, ("class",)).detach().double(), minimum=minimum)
    if not bool((found >= 0).all()) or not 0 < float(found.sum()) < math.inf:
        raise ValueError(
            f"Expected {name} without negative entries and with a finite sum above 0; got a smallest entry of "
            f"{float(found.min())} and a sum of {float(found.sum())}. Take exp() of logarithms first."
        )
    return found


def _checked(log_probabilities: Tensor) -> Tensor:
    if tensor("log_probabilities", log_probabilities).dim() != 2 or min(log_probabilities.shape) < 2:
        raise ValueError(
            f"Expected log probabilities of shape (draw, class) with 2 draws and 2 classes or more; got "
            f"{tuple(log_probabilities.shape)}."
        )
    log_p = log_probabilities.detach().double()
    total = log_p.logsumexp(-1)
    # Written so that NaN fails too.
    if not bool((total.abs() < 1e-3).all()):
        raise ValueError(
            "Expected log probabilities whose exponentials sum to 1 in every row, without NaN; got rows that do not. "
            "Pass logits through log_softmax(-1), or probabilities through log()."
        )
    return log_p - total.unsqueeze(-1)
