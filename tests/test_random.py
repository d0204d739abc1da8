"""torch's generators: a seed is that of torch, and a GPU that is not in use hears nothing of it."""

from __future__ import annotations

import pytest
import torch

from pyro_gan._random import rng_fork, rng_state, seed_rng


@pytest.mark.parametrize("seed", [0, 7, 2**40, -1])
def test_the_numbers_are_those_of_torch_for_the_seed(seed: int) -> None:
    seed_rng(seed)
    ours = torch.randn(5)
    torch.manual_seed(seed)
    assert torch.equal(torch.randn(5), ours)


@pytest.mark.parametrize("in_use", [False, True])
def test_only_a_gpu_in_use_is_seeded(monkeypatch: pytest.MonkeyPatch, in_use: bool) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: in_use)
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeds.append)
    seed_rng(3)
    assert seeds == [3] * in_use


def test_a_seed_within_a_fork_is_forgotten() -> None:
    before = rng_state()["cpu"]
    with rng_fork():
        seed_rng(3)
        assert not torch.equal(rng_state()["cpu"], before)
    assert torch.equal(rng_state()["cpu"], before)
