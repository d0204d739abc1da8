"""Monotone maps from a critic's score to nats, and the guard of their upper tail; all of them store what they fit."""

from pyro_gan.ratio.maps.base import Calibrator
from pyro_gan.ratio.maps.guard import TailGuard
from pyro_gan.ratio.maps.isotonic import Isotonic
from pyro_gan.ratio.maps.parametric import Beta, Platt, Temperature
from pyro_gan.ratio.maps.spline import MonotoneSpline

__all__ = ["Beta", "Calibrator", "Isotonic", "MonotoneSpline", "Platt", "TailGuard", "Temperature"]
