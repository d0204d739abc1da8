"""The main job: train a GAN on real handwritten digits, then sample it better with what its critic has learnt.

`python -m pyro_gan demo` runs it. The 1 797 digits are split once, at random. The GAN trains on the first part, the
log ratios are made on the second, and the third part only judges: no training, choice or stopping rule uses it.
"""

from pyro_gan.demo.job import run
from pyro_gan.demo.settings import Settings, settings

__all__ = ["Settings", "run", "settings"]
