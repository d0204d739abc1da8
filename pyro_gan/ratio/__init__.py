"""From a critic to log p_data(x) / p_G(x): read the ratio from it, fit a fresh one, calibrate it, and judge it."""

from pyro_gan.ratio.calibrators import CalibratedLogRatio, CalibrationReport, RowCounts, calibrate
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport, Reliability, diagnose
from pyro_gan.ratio.ensemble import MeanLogRatio
from pyro_gan.ratio.features import RandomFeatures
from pyro_gan.ratio.fit import fit_log_ratio
from pyro_gan.ratio.heads import LogRatio
from pyro_gan.ratio.maps import Beta, Calibrator, Isotonic, MonotoneSpline, Platt, TailGuard, Temperature
from pyro_gan.ratio.mean_ratio import MeanRatio, judge_mean_ratio
from pyro_gan.ratio.moments import MomentChange, moment_change
from pyro_gan.ratio.reference import Reference
from pyro_gan.ratio.saved import load_log_ratio, save_log_ratio
from pyro_gan.ratio.telescope import SumLogRatio, Telescoping

__all__ = [
    "Beta",
    "CalibratedLogRatio",
    "CalibrationReport",
    "Calibrator",
    "FrontierPoint",
    "Isotonic",
    "LogRatio",
    "MeanLogRatio",
    "MeanRatio",
    "MomentChange",
    "MonotoneSpline",
    "Platt",
    "RandomFeatures",
    "RatioReport",
    "Reference",
    "Reliability",
    "RowCounts",
    "SumLogRatio",
    "TailGuard",
    "Telescoping",
    "Temperature",
    "calibrate",
    "diagnose",
    "fit_log_ratio",
    "judge_mean_ratio",
    "load_log_ratio",
    "moment_change",
    "save_log_ratio",
]
