"""Small targets, data and networks for tutorials, demo and tests. Every density ratio here is exact."""

from pyro_gan.toys.base import Toy
from pyro_gan.toys.convolutions import conv_critic, conv_generator
from pyro_gan.toys.flow import RealNVP, bits_per_dim, squashing
from pyro_gan.toys.gaussian import affine_gaussian, gaussian_shift
from pyro_gan.toys.images import Digits, digits
from pyro_gan.toys.mixture import GridMixture, gaussians25, grid
from pyro_gan.toys.networks import MLP
from pyro_gan.toys.normals import NormalMixture, missing_mode, ring
from pyro_gan.toys.roll import roll_distance, swiss_roll

__all__ = [
    "MLP",
    "Digits",
    "GridMixture",
    "NormalMixture",
    "RealNVP",
    "Toy",
    "affine_gaussian",
    "bits_per_dim",
    "conv_critic",
    "conv_generator",
    "digits",
    "gaussians25",
    "gaussian_shift",
    "grid",
    "missing_mode",
    "ring",
    "roll_distance",
    "squashing",
    "swiss_roll",
]
