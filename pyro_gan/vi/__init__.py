"""Fit a guide: variational inference without densities, by learned ratios and several players, in Pyro's terms."""

from pyro_gan.vi.bridge import encoder_proposal, encoder_starts
from pyro_gan.vi.elbo import RatioELBO
from pyro_gan.vi.explicit import ExplicitLikelihood
from pyro_gan.vi.guides import Encoder, GaussianGuide, ImplicitGuide, Joined
from pyro_gan.vi.hybrid_loss import HybridLoss, moment_divergence
from pyro_gan.vi.hybrids import HYBRIDS, Hybrid
from pyro_gan.vi.ratios import AdaptiveContrast, AggregatedRatio, ConditionalRatio, LatentRatio
from pyro_gan.vi.svi import AdversarialLoss, AdversarialSVI
from pyro_gan.vi.synthetic import SyntheticLikelihood

__all__ = [
    "HYBRIDS",
    "AdaptiveContrast",
    "AdversarialLoss",
    "AdversarialSVI",
    "AggregatedRatio",
    "ConditionalRatio",
    "Encoder",
    "ExplicitLikelihood",
    "GaussianGuide",
    "Hybrid",
    "HybridLoss",
    "ImplicitGuide",
    "Joined",
    "LatentRatio",
    "RatioELBO",
    "SyntheticLikelihood",
    "encoder_proposal",
    "encoder_starts",
    "moment_divergence",
]
