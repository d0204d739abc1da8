"""Judge the samples: quality, balance, distance to held-out data, what a fresh critic still sees; and plots.

Nothing in the package imports this, save the demo. Tensors in, floats out.
"""

from pyro_gan.evaluate.distances import frechet_distance
from pyro_gan.evaluate.modes import ModeReport, assign_modes, mode_jsd, mode_report
from pyro_gan.evaluate.plots import (
    plot_frontier,
    plot_images,
    plot_points,
    plot_reliability,
    plot_scores,
)
from pyro_gan.evaluate.residual import ResidualAUC, residual_auc
from pyro_gan.evaluate.scores import ClassifierScore, class_counts, classifier_score, total_variation

__all__ = [
    "ClassifierScore",
    "ModeReport",
    "ResidualAUC",
    "assign_modes",
    "class_counts",
    "classifier_score",
    "frechet_distance",
    "mode_jsd",
    "mode_report",
    "plot_frontier",
    "plot_images",
    "plot_points",
    "plot_reliability",
    "plot_scores",
    "residual_auc",
    "total_variation",
]
