"""Judge the samples: quality, balance, diversity, distance to held-out data, a fresh critic's verdict; and plots.

In the package only `improved` and the demo import this. It takes tensors and returns floats.
"""

from pyro_gan.evaluate.adversarial import critic_distance, total_variation_bound, wasserstein_bound
from pyro_gan.evaluate.change import FrechetChange, frechet_change
from pyro_gan.evaluate.comparison import Comparison, Judgement, compare
from pyro_gan.evaluate.distances import ScoreDistance, frechet_distance, score_distance
from pyro_gan.evaluate.diversity import PairMean, ms_ssim, num_distinct, pair_distance
from pyro_gan.evaluate.expected import expected_after_steps, occupancy
from pyro_gan.evaluate.features import extract_features
from pyro_gan.evaluate.lipschitz import MaxMin, lipschitz_constant, lipschitz_mlp
from pyro_gan.evaluate.metric import Estimate, Metric, Outputs, Real
from pyro_gan.evaluate.mmd import MMDTest, mmd_test
from pyro_gan.evaluate.modes import ModeReport, assign_modes, mode_jsd, mode_report
from pyro_gan.evaluate.plots.chains import plot_acceptance, plot_expected
from pyro_gan.evaluate.plots.ratio import plot_frontier, plot_reliability, plot_scores
from pyro_gan.evaluate.plots.samples import plot_before_after, plot_images, plot_points
from pyro_gan.evaluate.projected import ProjectedDistance, projected_distance, projection_constant
from pyro_gan.evaluate.residual import residual_auc
from pyro_gan.evaluate.scores import class_counts, classifier_score, total_variation
from pyro_gan.evaluate.support import ClosestPairs, CollisionTest, closest_pairs, collision_sample_size, collision_test
from pyro_gan.evaluate.temperature import INVERSE_TEMPERATURES, TemperatureStep, certify_temperature, choose_temperature
from pyro_gan.evaluate.transport import TransportDistance, transport_cost, transport_distance
from pyro_gan.evaluate.two_sample import C2ST, c2st

__all__ = [
    "C2ST",
    "ClosestPairs",
    "CollisionTest",
    "Comparison",
    "Estimate",
    "FrechetChange",
    "INVERSE_TEMPERATURES",
    "Judgement",
    "MMDTest",
    "MaxMin",
    "Metric",
    "ModeReport",
    "Outputs",
    "PairMean",
    "ProjectedDistance",
    "Real",
    "ScoreDistance",
    "TemperatureStep",
    "TransportDistance",
    "assign_modes",
    "c2st",
    "certify_temperature",
    "choose_temperature",
    "class_counts",
    "classifier_score",
    "closest_pairs",
    "collision_sample_size",
    "collision_test",
    "compare",
    "critic_distance",
    "expected_after_steps",
    "extract_features",
    "frechet_change",
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
