"""Every exact kernel, one long chain and many, against closed forms."""

from __future__ import annotations

import pytest
from pyro.infer import MCMC

from tests.mcmc.members import EXACT
from tests.mcmc.test_closed_form import (
    BOUNDED,
    LONG,
    affine,
    assert_moments,
    check_affine,
    check_affine_under_pyro,
    check_bounded,
)
from tests.mcmc.test_contract import check_two_processes
from tests.numbers.size import FULL

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize("kernel", EXACT)
def test_one_chain_under_pyro(kernel: str) -> None:
    gan, toy = affine()
    mcmc = MCMC(EXACT[kernel](gan), num_samples=6000, warmup_steps=300, disable_progbar=True)
    mcmc.run()
    assert_moments(mcmc.get_samples()["z"].reshape(20, 300, 3), toy, kernel, max_relative_se=None)


def test_two_spawned_processes_under_pyro(monkeypatch: pytest.MonkeyPatch) -> None:
    check_two_processes(monkeypatch, "spawn")


@pytest.mark.parametrize("kernel", EXACT if FULL else ["MALA", "IndependenceMH"])
@pytest.mark.filterwarnings("ignore:A kernel with num_chains")
def test_many_chains(kernel: str) -> None:
    """The checks of `make test`, with four times as many chains."""
    check_affine(kernel, **LONG)
    check_affine_under_pyro(kernel, **LONG)
    if kernel in BOUNDED:
        check_bounded(kernel, **LONG)
