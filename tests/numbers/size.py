"""How much the slow tests run: one seed by default, or what the tables of the documentation need."""

from __future__ import annotations

import os

__all__ = ["FULL", "SEEDS"]

#: `PYRO_GAN_NUMBERS=full make numbers` makes the figures of the documentation, in hours.
FULL = os.environ.get("PYRO_GAN_NUMBERS") == "full"
SEEDS = [0, 1, 2] if FULL else [0]
