"""The demo's judge: a classifier and real digits that nothing else has seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.demo.gan import Splits
from pyro_gan.demo.settings import Settings
from pyro_gan.evaluate import (
    ClassifierScore,
    ResidualAUC,
    class_counts,
    classifier_score,
    frechet_distance,
    residual_auc,
    total_variation,
)

__all__ = ["Judge", "Verdict"]


class Verdict(NamedTuple):
    """What the judge finds in a set of digits."""

    #: Exponential of the mutual information between digit and class, 1 to 10; high is good.
    score: ClassifierScore
    #: Frechet distance of the pixels to the judge's digits; low is good, and never 0 for so few.
    frechet: float
    #: How well a fresh critic tells the set from the judge's digits; .5 is good.
    residual: ResidualAUC
    #: Total variation between the histogram of classes and that of the judge's digits; low is good.
    class_tv: float


class Judge:
    """Judges digits by a classifier trained on all but the judge's own, and by comparison with these.

    Args:
        splits: The digits.
        settings: Folds and seed.
    """

    def __init__(self, splits: Splits, settings: Settings) -> None:
        from sklearn.neural_network import MLPClassifier

        self.real = splits.judge
        self.settings = settings
        images = torch.cat([splits.gan, splits.ratio])
        labels = torch.cat([splits.gan_labels, splits.ratio_labels])
        self.classifier = MLPClassifier((128,), alpha=0.1, max_iter=500, random_state=settings.seed)
        self.classifier.fit(_rows(images), labels.numpy())
        #: Share of the judge's digits that the classifier names rightly.
        self.accuracy = float(self.classifier.score(_rows(splits.judge), splits.judge_labels.numpy()))
        self._counts = class_counts(self.log_probabilities(splits.judge))

    def log_probabilities(self, images: Float[Tensor, "draw 1 8 8"]) -> Float[Tensor, "draw class"]:
        """Return the classifier's log p(digit | image)."""
        return torch.as_tensor(self.classifier.predict_log_proba(_rows(images)))

    def __call__(self, images: Float[Tensor, "draw 1 8 8"]) -> Verdict:
        """Judge outputs, independent of one another."""
        log_p = self.log_probabilities(images)
        folds, seed = self.settings.num_folds, self.settings.seed
        return Verdict(
            classifier_score(log_p),
            self._frechet(images),
            residual_auc(images, self.real, num_folds=folds, seed=seed),
            total_variation(class_counts(log_p), self._counts),
        )

    def _frechet(self, images: Tensor) -> float:
        # Its bias falls with the number of rows: in parts of one size, real digits compare with any number of outputs.
        parts = images.split(len(self.real))
        whole = [part for part in parts if len(part) == len(self.real)] or [images]
        return sum(frechet_distance(part, self.real) for part in whole) / len(whole)

    def reference(self, images: Float[Tensor, "draw 1 8 8"]) -> Verdict:
        """Return what real digits get: the score of the judge's own, the rest of others compared with them."""
        # The classifier has trained on the others, and would be too sure of them.
        score = classifier_score(self.log_probabilities(self.real))
        return self(images)._replace(score=score)


def _rows(images: Tensor) -> object:
    # In double precision: scikit-learn's log of a probability that rounds to 0 in single is minus infinity.
    return images.detach().cpu().flatten(1).double().numpy()
