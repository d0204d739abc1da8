"""Seeds every test from one number, so that the whole suite can be rerun with another."""

from __future__ import annotations

import os

import pyro
import pytest
import torch

SEED = int(os.environ.get("PYRO_GAN_TEST_SEED", "0"))


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """Seed torch, NumPy and Python before each test; PYRO_GAN_TEST_SEED chooses the number."""
    pyro.set_rng_seed(SEED)
    pyro.clear_param_store()
    return SEED


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Let small networks run on one thread: a second one costs them more than it brings."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(2, torch.get_num_threads())))
