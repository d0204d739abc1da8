"""From a critic to log p_data(x) / p_G(x): read it off, fit it afresh, calibrate it, and say how good it is."""

from pyro_gan.ratio.calibrators import CalibrationReport, calibrate
from pyro_gan.ratio.diagnostics import RatioReport, diagnose
from pyro_gan.ratio.fit import fit_log_ratio
from pyro_gan.ratio.heads import LogRatio

__all__ = ["CalibrationReport", "LogRatio", "RatioReport", "calibrate", "diagnose", "fit_log_ratio"]
