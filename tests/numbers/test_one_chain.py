"""Every exact kernel under `pyro.infer.MCMC`, one long chain and many, against a closed form."""

from __future__ import annotations

import pytest
from pyro.infer import MCMC

from tests.mcmc.members import EXACT
from tests.mcmc.test_closed_form import NUM_CHAINS, NUM_SAMPLES, WARMUP, affine, assert_moments

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize("kernel", EXACT)
def test_one_chain_under_pyro(kernel: str) -> None:
    gan, toy = affine()
    mcmc = MCMC(EXACT[kernel](gan), num_samples=6000, warmup_steps=300, disable_progbar=True)
    mcmc.run()
    assert_moments(mcmc.get_samples()["z"].reshape(20, 300, 3), toy, kernel, max_relative_se=None)


@pytest.mark.parametrize("kernel", EXACT)
@pytest.mark.filterwarnings("ignore:A kernel with num_chains")
def test_many_chains_under_pyro(kernel: str) -> None:
    gan, toy = affine()
    mcmc = MCMC(EXACT[kernel](gan, num_chains=NUM_CHAINS), NUM_SAMPLES[kernel], WARMUP, disable_progbar=True)
    mcmc.run()
    assert_moments(mcmc.get_samples()["z"].transpose(0, 1), toy, kernel)
