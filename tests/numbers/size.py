"""How much the slow tests run: what CI has time for by default, or what the tables of the documentation need."""

from __future__ import annotations

import os

__all__ = ["FULL", "SEEDS"]

#: `PYRO_GAN_NUMBERS=full make numbers` runs every pair, seed and size, in hours. Run it before a release and where a
#: change may touch a figure.
FULL = os.environ.get("PYRO_GAN_NUMBERS") == "full"
SEEDS = [0, 1, 2] if FULL else [0]
