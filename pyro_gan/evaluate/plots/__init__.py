"""Pictures of samples, scores, chains and trade-offs; each function draws on one Axes and returns it."""

from pyro_gan.evaluate.plots.chains import plot_acceptance, plot_expected
from pyro_gan.evaluate.plots.ratio import plot_frontier, plot_reliability, plot_scores
from pyro_gan.evaluate.plots.samples import plot_before_after, plot_images, plot_points

__all__ = [
    "plot_acceptance",
    "plot_before_after",
    "plot_expected",
    "plot_frontier",
    "plot_images",
    "plot_points",
    "plot_reliability",
    "plot_scores",
]
