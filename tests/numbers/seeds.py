"""The seeds of the slow tests: one of them by default, three for the tables of the documentation."""

from __future__ import annotations

import os

__all__ = ["SEEDS"]

#: `PYRO_GAN_NUMBERS_SEEDS=3 make numbers` runs every check that takes a seed three times.
SEEDS = list(range(int(os.environ.get("PYRO_GAN_NUMBERS_SEEDS", "1"))))
