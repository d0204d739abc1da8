"""Judge the samples: quality, balance, diversity, distance to held-out data, what a fresh critic sees; and plots.

Nothing in the package imports this, save the demo. Tensors in, floats out.
"""

from pyro_gan.evaluate.adversarial import (
    LowerBound,
    critic_distance,
    total_variation_bound,
    wasserstein_bound,
)
from pyro_gan.evaluate.distances import frechet_distance
from pyro_gan.evaluate.diversity import PairMean, ms_ssim, num_distinct, pair_distance
from pyro_gan.evaluate.expected import ExpectedMetric, expected_after_steps, occupancy
from pyro_gan.evaluate.features import extract_features
from pyro_gan.evaluate.lipschitz import MaxMin, lipschitz_constant, lipschitz_mlp
from pyro_gan.evaluate.mmd import MMDTest, mmd_test
from pyro_gan.evaluate.modes import ModeReport, assign_modes, mode_jsd, mode_report
from pyro_gan.evaluate.plots import (
    plot_acceptance,
    plot_before_after,
    plot_expected,
    plot_frontier,
    plot_images,
    plot_points,
    plot_reliability,
    plot_scores,
)
from pyro_gan.evaluate.projected import ProjectedDistance, projected_distance, projection_constant
from pyro_gan.evaluate.recovery import ScoreDistance, score_distance
from pyro_gan.evaluate.residual import ResidualAUC, residual_auc
from pyro_gan.evaluate.scores import ClassifierScore, class_counts, classifier_score, total_variation
from pyro_gan.evaluate.support import (
    ClosestPairs,
    CollisionTest,
    closest_pairs,
    collision_sample_size,
    collision_test,
)
from pyro_gan.evaluate.transport import TransportDistance, transport_cost, transport_distance
from pyro_gan.evaluate.two_sample import C2ST, c2st

__all__ = [
    "C2ST",
    "ClassifierScore",
    "ClosestPairs",
    "CollisionTest",
    "ExpectedMetric",
    "LowerBound",
    "MMDTest",
    "MaxMin",
    "ModeReport",
    "PairMean",
    "ProjectedDistance",
    "ResidualAUC",
    "ScoreDistance",
    "TransportDistance",
    "assign_modes",
    "c2st",
    "class_counts",
    "classifier_score",
    "closest_pairs",
    "collision_sample_size",
    "collision_test",
    "critic_distance",
    "expected_after_steps",
    "extract_features",
    "frechet_distance",
    "lipschitz_constant",
    "lipschitz_mlp",
    "mmd_test",
    "mode_jsd",
    "mode_report",
    "ms_ssim",
    "num_distinct",
    "occupancy",
    "pair_distance",
    "plot_acceptance",
    "plot_before_after",
    "plot_expected",
    "plot_frontier",
    "plot_images",
    "plot_points",
    "plot_reliability",
    "plot_scores",
    "projected_distance",
    "projection_constant",
    "residual_auc",
    "score_distance",
    "total_variation",
    "total_variation_bound",
    "transport_cost",
    "transport_distance",
    "wasserstein_bound",
]
