"""Fit a guide: variational inference without densities, by learned ratios and several players, in Pyro's words."""

from pyro_gan.vi.bridge import ApproximateProposal, encoder_proposal, encoder_starts
from pyro_gan.vi.elbo import RatioELBO
from pyro_gan.vi.guides import Encoder, GaussianGuide, ImplicitGuide, Joined
from pyro_gan.vi.hybrid_loss import HybridLoss, moment_divergence
from pyro_gan.vi.hybrids import HYBRIDS, Hybrid
from pyro_gan.vi.observer import Observer
from pyro_gan.vi.players import AdversarialLoss, Role
from pyro_gan.vi.ratios import AdaptiveContrast, AggregatedRatio, CodeRatio, ConditionalRatio
from pyro_gan.vi.svi import AdversarialSVI
from pyro_gan.vi.synthetic import SyntheticLikelihood

__all__ = [
    "HYBRIDS",
    "AdaptiveContrast",
    "AdversarialLoss",
    "AdversarialSVI",
    "AggregatedRatio",
    "ApproximateProposal",
    "CodeRatio",
    "ConditionalRatio",
    "Encoder",
    "GaussianGuide",
    "Hybrid",
    "HybridLoss",
    "ImplicitGuide",
    "Joined",
    "Observer",
    "RatioELBO",
    "Role",
    "SyntheticLikelihood",
    "encoder_proposal",
    "encoder_starts",
    "moment_divergence",
]
