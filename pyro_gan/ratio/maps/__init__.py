"""Monotone maps from a critic's score to nats, and the guard on their upper tail; all store what they fit."""

from pyro_gan.ratio.maps.base import Calibrator
from pyro_gan.ratio.maps.guard import GUARD_WIDTH, TailGuard
from pyro_gan.ratio.maps.isotonic import Isotonic
from pyro_gan.ratio.maps.parametric import Beta, Platt, Temperature
from pyro_gan.ratio.maps.spline import MonotoneSpline

__all__ = [
    "GUARD_WIDTH",
    "METHODS",
    "Beta",
    "Calibrator",
    "Isotonic",
    "MonotoneSpline",
    "Platt",
    "TailGuard",
    "Temperature",
]

#: The maps by the name that `calibrate` knows them by.
METHODS: dict[str, type[Calibrator]] = {
    "platt": Platt,
    "temperature": Temperature,
    "beta": Beta,
    "spline": MonotoneSpline,
    "isotonic": Isotonic,
}
