"""Seeds every test from one number, so that the whole suite can be rerun with another."""

from __future__ import annotations

import os
import random

import numpy as np
import pyro
import pytest
import torch

from pyro_gan._random import seed_rng

SEED = int(os.environ.get("PYRO_GAN_TEST_SEED", "0"))


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """Seed torch, NumPy and Python before each test; PYRO_GAN_TEST_SEED chooses the number."""
    random.seed(SEED)
    np.random.seed(SEED)
    seed_rng(SEED)
    pyro.clear_param_store()
    return SEED


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    """Run small networks on one thread, which is faster than two that wait for one another; real ones on all.

    Where pytest-xdist runs several processes, they share the cores.
    """
    is_real = request.node.get_closest_marker("numbers") is not None
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes) if is_real else 1)
