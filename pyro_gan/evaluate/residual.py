"""The residual AUC: how well a fresh critic still tells outputs from held-out reals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyro_gan.checks import count
from pyro_gan.evaluate._rows import classifier_for, pool_rows
from pyro_gan.evaluate.metric import Estimate, Metric, Outputs, Real

__all__ = ["residual_auc"]

# A critic finds one direction among about a hundred, whose root this is: from ten standard errors on its direction is
# mostly signal.
_DIRECTIONS = 10.0


@Metric(null=0.5)
def residual_auc(
    outputs: Outputs, real: Real, *, classifier: Any = None, num_folds: int = 3, seed: int = 0
) -> Estimate[float]:
    """Train a fresh critic between outputs and real data, and measure it on rows it has not seen.

        AUC = P( s(real) > s(output) ) + P( s(real) = s(output) ) / 2

    It is cross-fitted: each fold is scored by a critic trained on the other folds, and the folds' AUCs are averaged.
    Equal rows always share a fold; otherwise a critic would recognise resampled rows by memory. It is a classifier test
    of two samples: 0.5 means that *this* critic sees no difference, so compare values of one critic and one sample
    size. Take real data that trained neither generator nor critic.

    The default critic is a network of two hidden layers on features minus their median, scaled (down to a tenth of the
    largest standard deviation, so that a nearly constant pixel stays small), and their squares. It sees what a
    convolutional network would see. It does not see the grid of grey levels on which real images lie and generated
    images do not; trees see little else, and answer 1 for every sampler.

    Args:
        outputs: The samples to judge, `(draw_a, *event)`.
        real: Held-out data, `(draw_b, *event)`.
        classifier: An unfitted scikit-learn classifier with `predict_proba` or `decision_function`; it gets the
            flattened rows as they are (float64 rows minus their median, in float32), real as class 1. Copied for every
            fold.
        num_folds: Number of folds, 2 or more.
        seed: Of the folds and of the default critic; no global generator is moved.

    Returns:
        The AUC (0.5 if the critic cannot tell outputs from reals, 1 if it always can) and its standard error, for rows
        that are independent or equal; equal rows count once. It is DeLong's given the trained critics, widened by up to
        1.4 where the AUC is near 0.5, because the folds' critics share their training rows.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few different rows: 50 of each set,
            20 in each fold of a set whose rows repeat.
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
    count("num_folds", num_folds, minimum=2)
    rows, is_real, identity, fold = pool_rows(outputs, real, num_parts=num_folds, seed=seed)
    rows, unfitted = classifier_for(rows, classifier, seed, is_table=outputs.dim() == 2)
    values, variances = [], []
    for k in range(num_folds):
        held_out = fold == k
        critic = unfitted().fit(rows[~held_out], is_real[~held_out])
        if hasattr(critic, "predict_proba"):
            score = critic.predict_proba(rows[held_out])[:, 1]
        else:
            score = critic.decision_function(rows[held_out])
        value, variance = _delong(score, is_real[held_out] == 1, identity[held_out])
        values.append(value)
        variances.append(variance)
    value, variance = sum(values) / num_folds, sum(variances) / num_folds**2
    # No mistake in n rows does not mean that there are none: at least the variance of one row more, ranked wrongly.
    distinct = [len(np.unique(identity[is_real == label])) for label in (0, 1)]
    variance = max(variance, sum(1 / (number + 1) ** 2 for number in distinct))
    # The critics of two folds share most of what they were trained on, and each was trained on the other's fold. Where
    # there is nothing to learn, that doubles the variance; where the critics agree on what they see, it adds nothing.
    signal = abs(value - 0.5) / math.sqrt(variance)
    return Estimate(value, math.sqrt(variance * (1 + 1 / (1 + signal / _DIRECTIONS))))


def _delong(score: np.ndarray, is_real: np.ndarray, identity: np.ndarray) -> tuple[float, float]:
    """Return the AUC of scores and DeLong's variance of it, with equal rows as one cluster."""
    variance, value = 0.0, 0.0
    for label in (True, False):
        own, other = score[is_real == label], np.sort(score[is_real != label])
        # For each score the share of the other class's scores below it, ties counted half.
        below = (np.searchsorted(other, own, "left") + np.searchsorted(other, own, "right")) / (2 * len(other))
        value = float(below.mean()) if label else value
        cluster = np.bincount(identity[is_real == label], weights=below - below.mean())
        variance += float((cluster**2).sum()) / len(own) / (len(own) - 1)
    return value, variance
