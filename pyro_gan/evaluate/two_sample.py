"""The classifier two-sample test: does a classifier tell outputs from held-out reals better than chance?"""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple, final

import numpy as np

from pyro_gan.checks import extra
from pyro_gan.evaluate._rows import classifier_for, pool_rows
from pyro_gan.evaluate.metric import Metric, Outputs, Real

__all__ = ["C2ST", "c2st"]


@final
class C2ST(NamedTuple):
    """A held-out accuracy, its error, and its p-value."""

    #: Mean of the shares of outputs and of reals that are named correctly; 0.5 if the sets cannot be told apart.
    accuracy: float
    #: Its standard error, given the trained classifier; equal rows count once.
    standard_error: float
    #: Probability of this accuracy or a higher one if both sets have one distribution.
    p_value: float


@Metric(figure="accuracy", null=0.5)
def c2st(outputs: Outputs, real: Real, *, classifier: Any = None, seed: int = 0) -> C2ST:
    """Test whether two sets have one distribution, by a classifier trained on one half and judged on the other.

        accuracy = ( P(outputs named outputs) + P(reals named real) ) / 2

    If both sets have one distribution, the labels of the held-out half are exchangeable for every classifier, so among
    the rows that it names real the number of reals is hypergeometric: the p-value is Fisher's, and exact. (The folds of
    a cross-validation share their training rows, and the mean over folds has no such distribution.) If rows repeat, as
    resampling makes them, labels are not exchangeable. Equal rows then stay in one half, and the p-value is Student's,
    with a variance and degrees of freedom that count equal rows once. (That test sees little in data that repeat by
    nature, as integers do: add a little noise to both sets.)

    To measure the size of a difference, use `residual_auc`: it uses all rows and has the smaller error, but no p-value.
    A large p-value says that *this* classifier sees nothing in so few rows. Pass independent rows (one draw of a chain,
    not its history) and real data that trained neither generator nor critic.

    Args:
        outputs: The samples to judge, `(draw_a, *event)`, or features of them (`extract_features`).
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        classifier: An unfitted scikit-learn classifier; it gets the flattened rows as they are (float64 rows minus
            their median, in float32), as many of either class, real as class 1. By default the network of
            `residual_auc`. Copied.
        seed: Of the halves and of the default classifier; no global generator is moved.

    Returns:
        Accuracy, standard error and one-sided p-value.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few different rows: 50 of each set,
            40 of a set whose rows repeat.
        ImportError: without scikit-learn or SciPy.

    References:
        Revisiting Classifier Two-Sample Tests, D. Lopez-Paz and M. Oquab, 2017, https://arxiv.org/abs/1610.06545

    Example:
        >>> from pyro_gan import toys
        >>> toy = toys.gaussian_shift(0.9)
        >>> test = c2st(toy.prior.sample((500,)), toy.sample_data(500))
        >>> test.accuracy > 0.6, test.p_value < 1e-5
        (True, True)
    """
    rows, is_real, identity, part = pool_rows(outputs, real, num_parts=2, seed=seed)
    with extra("evaluate"):
        importlib.import_module("scipy.stats")  # before a classifier is trained in vain
    rows, unfitted = classifier_for(rows, classifier, seed, is_table=outputs.dim() == 2)
    training = _balanced(is_real, part == 0, seed)
    critic = unfitted().fit(rows[training], is_real[training])
    held_out = part == 1
    named_real = np.asarray(critic.predict(rows[held_out])) == 1
    return _judge(named_real, is_real[held_out] == 1, identity[held_out])


def _balanced(is_real: np.ndarray, allowed: np.ndarray, seed: int) -> np.ndarray:
    """Return rows of the training half, as many of each class; otherwise naming the larger class would always win."""
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(allowed & (is_real == label))) for label in (0, 1)]
    return np.concatenate([rows[: min(map(len, classes))] for rows in classes])


def _judge(named_real: np.ndarray, is_real: np.ndarray, identity: np.ndarray) -> C2ST:
    from scipy.stats import hypergeom, t

    hits, false_alarms = named_real[is_real], named_real[~is_real]
    accuracy = 0.5 + (hits.mean() - false_alarms.mean()) / 2
    groups = identity[is_real], identity[~is_real]
    own = [_variance(*pair, pair[0].mean()) for pair in zip((hits, false_alarms), groups, strict=True)]
    if np.bincount(identity).max() == 1:
        p_value = hypergeom.sf(hits.sum() - 1, len(is_real), len(hits), named_real.sum())
    else:
        # Under the null hypothesis both classes are named real equally often, and equal rows get one name.
        num_real, num_outputs = map(_num_clusters, groups)
        rate = (num_real * hits.mean() + num_outputs * false_alarms.mean()) / (num_real + num_outputs)
        error = math.sqrt(rate * (1 - rate) * (1 / num_real + 1 / num_outputs)) / 2
        degrees = max(min(num_real, num_outputs) - 1, 1.0)
        p_value = t.sf((accuracy - 0.5) / error, degrees) if error > 0 else 1.0
    return C2ST(float(accuracy), math.sqrt(sum(own)) / 2, float(p_value))


def _variance(named_real: np.ndarray, identity: np.ndarray, rate: float) -> float:
    """Return the variance of a share about a rate, with equal rows as one cluster.

    It is at least that of one row more, named differently: no mistake in n rows does not mean that there are none.
    """
    clusters = np.bincount(identity, weights=named_real - rate)
    return max(float((clusters**2).sum()) / len(named_real) ** 2, 1 / (_num_clusters(identity) + 1) ** 2)


def _num_clusters(identity: np.ndarray) -> float:
    """Return the number of clusters of equal size that would have the variance of these clusters."""
    size = np.bincount(identity).astype(float)
    return float(size.sum() ** 2 / (size**2).sum())
