"""One call: a generator and real data in, a better generator out, with the certificate that it is better."""

from pyro_gan.improved.generator import ImprovedGenerator, resample
from pyro_gan.improved.one_call import improve
from pyro_gan.improved.report import ImprovementReport

__all__ = ["ImprovedGenerator", "ImprovementReport", "improve", "resample"]
