"""The main job: train a GAN on real handwritten digits, then sample it better with what its critic knows.

`python -m pyro_gan demo` runs it. The 1 797 digits are split once, at random: the GAN trains on one part, the log
ratios are made on the second, and the third only judges. Nothing that is trained, chosen or stopped sees the judge's.
"""

from pyro_gan.demo.job import run
from pyro_gan.demo.settings import Settings, settings

__all__ = ["Settings", "run", "settings"]
