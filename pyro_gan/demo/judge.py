"""The demo's judge: a classifier, and real digits that nothing else has seen."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import evaluate
from pyro_gan.demo.networks import Splits

__all__ = ["Judge"]


@final
class Judge:
    """Judges digits with a classifier, and by comparison with the judge's own digits.

    Args:
        splits: The digits. The classifier is trained on all but the judge's.
        seed: Seed of everything that scikit-learn draws.
    """

    def __init__(self, splits: Splits, seed: int) -> None:
        from sklearn.neural_network import MLPClassifier

        self._real, self._seed = splits.judge.images, seed
        images, labels = (torch.cat(parts) for parts in zip(splits.gan, splits.ratio, strict=True))
        self._classifier = MLPClassifier((128,), alpha=0.1, max_iter=500, random_state=seed)
        self._classifier.fit(_rows(images), labels.numpy())
        #: Share of the judge's digits that the classifier names correctly.
        self.accuracy = float(self._classifier.score(_rows(self._real), splits.judge.labels.numpy()))

    def score(self, images: Float[Tensor, "draw 1 8 8"]) -> dict[str, float]:
        """Return `score`, the exponential of the mutual information between digit and class, and its standard error.

        It is between 1 and 10; high is good.
        """
        score = evaluate.classifier_score(self._log_p(images))
        return {"score": score.value, "score_se": score.standard_error}

    def __call__(self, images: Float[Tensor, "draw 1 8 8"]) -> dict[str, float]:
        """Judge digits that are independent of one another.

        Args:
            images: The digits.

        Returns:
            The `score`; `frechet`, the distance of the pixels to the judge's, low is good, and never 0 for so few
            digits; `residual_auc`, how well a fresh critic tells the digits from the judge's, .5 is good; `class_tv`,
            the total variation between their histograms of classes, low is good. `_se` names a standard error.
        """
        residual = evaluate.residual_auc(images, self._real, num_folds=3, seed=self._seed)
        counts = [evaluate.class_counts(self._log_p(digits)) for digits in (images, self._real)]
        # The bias of the Frechet distance falls with the number of rows. In parts of one size, real digits compare
        # with any number of outputs.
        parts = [part for part in images.split(len(self._real)) if len(part) == len(self._real)] or [images]
        return self.score(images) | {
            "frechet": sum(evaluate.frechet_distance(part, self._real) for part in parts) / len(parts),
            "residual_auc": residual.value,
            "residual_auc_se": residual.standard_error,
            "class_tv": evaluate.total_variation(*counts),
        }

    def _log_p(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self._classifier.predict_log_proba(_rows(images)))


def _rows(images: Tensor) -> object:
    # In double precision: scikit-learn's log of a probability that rounds to 0 in single precision is minus infinity.
    return images.detach().cpu().flatten(1).double().numpy()
