"""Small targets, data and networks shared by tutorials, demo and tests; every density ratio here is exact."""

from pyro_gan.toys.base import Toy
from pyro_gan.toys.gaussian import affine_gaussian, gaussian_shift
from pyro_gan.toys.images import Digits, digits
from pyro_gan.toys.mixture import GridMixture, grid
from pyro_gan.toys.networks import MLP
from pyro_gan.toys.roll import roll_distance, swiss_roll

__all__ = [
    "MLP",
    "Digits",
    "GridMixture",
    "Toy",
    "affine_gaussian",
    "digits",
    "gaussian_shift",
    "grid",
    "roll_distance",
    "swiss_roll",
]
