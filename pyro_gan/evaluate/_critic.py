"""Witnesses of the judges that train a classifier: held-out accuracy and AUC of one critic for both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_gan.evaluate._contrast import Witness
from pyro_gan.evaluate._rows import classifier_for
from pyro_gan.evaluate._sides import Sides

__all__ = ["critic_witnesses"]


def critic_witnesses(
    x: np.ndarray, real: np.ndarray, sides: Sides, *, classifier: Any, seed: int
) -> dict[str, Witness]:
    """Return the witnesses of the accuracy and of the AUC of a critic, trained on the other fold of all three sets.

    One critic is trained on the outputs of both sides together, because a critic of one side would learn less from
    fewer effective rows, and that side would look better. It finds what is wrong with their mixture.
    """
    table, unfitted = classifier_for(np.concatenate([x, real]).astype(np.float32), classifier, seed, is_table=True)
    x, real = table[: len(x)], table[len(x) :]
    rng = np.random.default_rng(seed)
    named_real, below = np.zeros(len(x)), np.zeros(len(x))
    hits, of_real = np.zeros(2), np.zeros(len(real))
    for fold in (0, 1):
        learnt = [np.flatnonzero(sides.of(side, 1 - fold)) for side in (0, 1)]
        learnt_real = np.flatnonzero(sides.real_fold != fold)
        # As many rows of either class, and of either side.
        size = min(min(map(len, learnt)), len(learnt_real) // 2)
        outputs = np.concatenate([rng.permutation(rows)[:size] for rows in learnt])
        reals = rng.permutation(learnt_real)[: 2 * size]
        labels = np.repeat([0, 1], [2 * size, len(reals)])
        critic = unfitted().fit(np.concatenate([x[outputs], real[reals]]), labels)
        own, own_real = sides.fold == fold, sides.real_fold == fold
        score, score_real = _scores(critic, x[own]), _scores(critic, real[own_real])
        named_real[own] = critic.predict(x[own]) == 1
        hits[fold] = (critic.predict(real[own_real]) == 1).mean()
        below[own] = 1 - _share_below(score_real, score)
        is_after = sides.is_after[own]
        of_real[own_real] = _share_below(score[is_after], score_real) - _share_below(score[~is_after], score_real)
        of_real[own_real] -= of_real[own_real].mean()
    named = [np.mean([named_real[sides.of(s, f)].mean() for f in (0, 1)]) for s in (0, 1)]
    accuracy = [float(1 + hits.mean() - share) / 2 for share in named]
    auc = [float(np.mean([below[sides.of(s, f)].mean() for f in (0, 1)])) for s in (0, 1)]
    # A real row is named real or not before either side is judged: it cancels.
    return {
        "c2st": Witness(accuracy[0], accuracy[1], -named_real / 2, 0.0),
        "residual_auc": Witness(auc[0], auc[1], below, float(of_real.var()) / len(real)),
    }


def _scores(critic: Any, rows: np.ndarray) -> np.ndarray:
    return critic.predict_proba(rows)[:, 1] if hasattr(critic, "predict_proba") else critic.decision_function(rows)


def _share_below(other: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return for each score the share of the others that lie below it, ties counted half."""
    other = np.sort(other)
    return (np.searchsorted(other, score, "left") + np.searchsorted(other, score, "right")) / (2 * len(other))
