"""The residual AUC: how well a fresh critic still tells outputs from held-out reals."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pyro_gan.evaluate._rows import default_classifier, pool_rows, seen_by_default

__all__ = ["ResidualAUC", "residual_auc"]


class ResidualAUC(NamedTuple):
    """An area under the ROC curve with its sampling error."""

    #: 0.5 if the critic cannot tell outputs from reals, 1 if it always can.
    value: float
    #: DeLong's standard error, given the trained critics; equal rows count as one fact, not as many.
    standard_error: float


def residual_auc(
    outputs: Float[Tensor, "draw_a *event"],
    real: Float[Tensor, "draw_b *event"],
    *,
    classifier: Any = None,
    num_folds: int = 3,
    seed: int = 0,
) -> ResidualAUC:
    """Train a fresh critic between outputs and real data, and measure it on rows it has not seen.

        AUC = P( s(real) > s(output) ) + P( s(real) = s(output) ) / 2

    Cross-fitted: each fold is scored by a critic trained on the others, and the folds' AUCs are averaged. Equal
    rows always share a fold, or resampling with replacement would be found out by memory. A classifier test of two
    samples: 0.5 means that *this* critic sees no difference, so set values of one critic and one sample size side
    by side. Take real data that trained neither generator nor critic.

    The default critic is a network of two hidden layers on centred features, scaled (down to a tenth of the
    largest standard deviation, so that a nearly constant pixel stays small), and their squares. It sees what a
    convolutional network would see, not the grid of grey levels on which real images lie and generated ones do
    not; trees see little else, and answer 1 whatever the sampler.

    Args:
        outputs: What is judged, `(draw_a, *event)`.
        real: Held-out data, `(draw_b, *event)`.
        classifier: An unfitted scikit-learn classifier with `predict_proba` or `decision_function`; it gets the
            flattened rows as they are (of float64 less their mean, in float32), real as class 1. Copied for every fold.
        num_folds: How many parts, 2 or more.
        seed: Of the folds and of the default critic; no global generator is moved.

    Returns:
        The AUC and its standard error, for rows that are independent or equal.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few different rows: 50 of each set,
            20 a fold of one whose rows repeat.
        ImportError: without scikit-learn.

    References:
        Revisiting Classifier Two-Sample Tests, D. Lopez-Paz and M. Oquab, 2017, https://arxiv.org/abs/1610.06545

        Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A Nonparametric
        Approach, E. DeLong, D. DeLong and D. Clarke-Pearson, 1988, https://doi.org/10.2307/2531595

    Example:
        >>> from pyro_gan import toys
        >>> toy = toys.gaussian_shift(0.9)
        >>> auc = residual_auc(toy.prior.sample((1000,)), toy.sample_data(1000))
        >>> abs(auc.value - 0.9) < 0.05
        True
    """
    if num_folds < 2:
        raise ValueError(f"Expected 2 folds or more; got {num_folds}.")
    rows, is_real, identity, fold = pool_rows(outputs, real, num_parts=num_folds, seed=seed)
    try:
        from sklearn.base import clone
    except ImportError as error:
        error.add_note("pip install pyro-gan[evaluate]")
        raise
    if classifier is None:
        rows, classifier = seen_by_default(rows), default_classifier(seed)
    values, variances = [], []
    for k in range(num_folds):
        held_out = fold == k
        critic = clone(classifier).fit(rows[~held_out], is_real[~held_out])
        if hasattr(critic, "predict_proba"):
            score = critic.predict_proba(rows[held_out])[:, 1]
        else:
            score = critic.decision_function(rows[held_out])
        value, variance = _delong(score, is_real[held_out] == 1, identity[held_out])
        values.append(value)
        variances.append(variance)
    return ResidualAUC(sum(values) / num_folds, math.sqrt(sum(variances)) / num_folds)


def _delong(score: np.ndarray, is_real: np.ndarray, identity: np.ndarray) -> tuple[float, float]:
    """Return the AUC of scores and DeLong's variance of it, with equal rows as one cluster."""
    variance, value = 0.0, 0.0
    for label in (True, False):
        own, other = score[is_real == label], np.sort(score[is_real != label])
        # For each score the share of the other class that it lies on the right side of, ties half.
        below = (np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")) / (
            2 * len(other)
        )
        value = float(below.mean()) if label else value
        cluster = np.bincount(identity[is_real == label], weights=below - below.mean())
        variance += float((cluster**2).sum()) / len(own) / (len(own) - 1)
    return value, variance
