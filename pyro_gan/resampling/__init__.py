"""Sample a target without a chain: prior draws weighed and resampled, or weighed and rejected."""

from pyro_gan.resampling.importance import ImportanceResampler, Resamples, ResamplingReport
from pyro_gan.resampling.partial import Partial
from pyro_gan.resampling.rejection import RejectionReport, Rejections, RejectionSampler

__all__ = [
    "ImportanceResampler",
    "Partial",
    "RejectionReport",
    "RejectionSampler",
    "Rejections",
    "Resamples",
    "ResamplingReport",
]
