"""A fitted proposal: it is a density, jumps are accepted more often, chains stay exact, and bad input raises."""

from __future__ import annotations

import pickle
import sys

import pyro.distributions as dist
import pytest
import torch

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import ISIR, MALA, IndependenceMH, LocalGlobal, fit_proposal
from pyro_gan.mcmc.fitted import FittedProposal
from tests.exact_targets import TARGETS, uniform_latents
from tests.statistics import assert_close_in_se, assert_same_distribution

QUICK = {"num_steps": 150, "num_transforms": 3, "hidden": (32, 32), "lr": 5e-3, "progress": False}


@pytest.fixture(scope="module")
def banana() -> tuple[LatentPosterior, FittedProposal]:
    pytest.importorskip("zuko", reason="flows are an extra, pyro-gan[flows]")
    law = TARGETS["banana"]()
    gan = LatentPosterior(torch.nn.Identity(), law.log_weight, law.prior, chunk_size=10_000)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return gan, fit_proposal(gan, {"z": law.sample(2000)}, **QUICK)


def test_the_density_has_mass_one_and_is_that_of_the_draws(banana) -> None:
    _, proposal = banana
    # Midpoints of cells of width 0.1; the prior's heavy tails reach beyond them.
    middle = torch.arange(-150, 150, dtype=torch.float64) / 10 + 0.05
    grid = torch.cartesian_prod(middle, middle)
    mass = proposal.log_prob(grid).exp() / 100
    assert float(mass.sum()) == pytest.approx(1, abs=3e-3)
    right = (grid[:, 0] > 0.5) & (grid[:, 1] < 0.0)
    expected, draws = float(mass[right].sum() / mass.sum()), proposal.sample((40_000,))
    found = float(((draws[:, 0] > 0.5) & (draws[:, 1] < 0.0)).double().mean())
    assert_close_in_se(found, expected, (expected * (1 - expected) / 40_000) ** 0.5 + 5e-4, "mass of a region")


def test_shapes_and_generator(banana) -> None:
    _, proposal = banana
    assert proposal.sample().shape == (2,) and proposal.sample((3, 4)).shape == (3, 4, 2)
    assert proposal.log_prob(proposal.sample((3, 4))).shape == (3, 4)
    before = torch.get_rng_state()
    proposal.check(100)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore")
def test_jumps_are_taken_more_often_than_from_the_prior(banana) -> None:
    gan, proposal = banana
    start = {"z": TARGETS["banana"]().sample(2000)}
    accepted = []
    for options in ({}, {"proposal": proposal}):
        mcmc = VectorizedMCMC(IndependenceMH(gan, **options), 20, 0, start, num_chains=2000, disable_progbar=True)
        mcmc.run()
        accepted.append(float(mcmc.sample_stats["accept_prob"].mean()))
    assert accepted[1] > accepted[0] + 0.2
    assert proposal.check(2000).ess_fraction > gan.check(num_draws=2000).tail.ess_fraction + 0.2


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
def test_one_step_leaves_exact_draws_exact(banana) -> None:
    gan, proposal = banana
    law = TARGETS["banana"]()
    for kernel in (
        IndependenceMH(gan, proposal=proposal),
        ISIR(gan, proposal=proposal, num_particles=3),
        LocalGlobal(MALA(gan, step_size=0.1), ISIR(gan, proposal=proposal), num_local=1),
    ):
        mcmc = VectorizedMCMC(kernel, 1, 0, {"z": law.sample(10_000)}, num_chains=10_000, disable_progbar=True)
        mcmc.run()
        assert_same_distribution(mcmc.get_samples()["z"], law.sample(10_000), type(kernel).__name__)


@pytest.mark.parametrize("family", ["flow", "gaussian"])
def test_bounded_latents_are_fitted_unconstrained(family) -> None:
    if family == "flow":
        pytest.importorskip("zuko", reason="flows are an extra, pyro-gan[flows]")
    toy = uniform_latents()
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    draws = ImportanceResampler(gan)(num_outputs=1000, num_draws=20_000).samples
    proposal = fit_proposal(gan, draws, family=family, **QUICK)
    assert proposal.sample((5,)).dtype == torch.float64
    assert proposal.check(2000).ess_fraction > 0.5


def test_a_fit_reproduces_pickles_and_the_prior_bounds_its_weights() -> None:
    pytest.importorskip("zuko", reason="flows are an extra, pyro-gan[flows]")
    toy = toys.affine_gaussian(2 * torch.eye(2), torch.ones(2))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    # Draws from a quarter of the plane: the fit misses the rest.
    z = toy.posterior.sample((4000,))
    draws = {"z": z[(z > toy.posterior.mean).all(-1)]}
    state = torch.get_rng_state()
    one, two = (fit_proposal(gan, draws, **(QUICK | {"num_steps": 20})) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    everywhere = 5 * torch.randn(1000, 2)
    again = pickle.loads(pickle.dumps(one))
    torch.testing.assert_close(again.log_prob(everywhere), one.log_prob(everywhere))
    torch.testing.assert_close(one.log_prob(everywhere), two.log_prob(everywhere))
    against_prior = gan.log_prior({"z": everywhere}) - one.log_prob(everywhere)
    assert float(against_prior.max()) <= -torch.tensor(0.1).log() + 1e-4


# Bad input.


def test_bad_input_raises(monkeypatch) -> None:
    toy = toys.affine_gaussian(torch.eye(2), torch.ones(2))
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    z = torch.randn(100, 2)
    for samples, options, words in (
        ({"z": z}, {"family": "maf"}, "family to be one of"),
        ({"z": z}, {"prior_share": 1.0}, r"prior_share in \[0, 1\)"),
        ({"z": z}, {"prior_share": -0.1}, "prior_share"),
        ({"z": z}, {"holdout": 0.0}, r"holdout in \(0, 1\)"),
        ({"z": z}, {"hidden": (64, -1)}, "hidden of at least 1; got -1"),
        ({"z": z}, {"num_steps": 1.5}, "num_steps to be a whole number"),
        (z, {}, "samples of type Mapping.*Pass {site: values}"),
        ({"z": z.numpy()}, {}, r"samples\['z'\] to be a torch.Tensor"),
        ({"w": z}, {}, "samples for the sites"),
        ({"z": z.reshape(50, 2, 2)}, {}, r"\(draw, \*event\), whose event is \(2,\).*got \(50, 2, 2\).*group_by_chain"),
        ({"z": z * torch.tensor([1.0, 0.0])}, {}, r"differ in all 2 latents; 1 latents have.*first is number 1"),
        ({"z": z[:5].repeat(20, 1)}, {}, "at least 20 different draws.*got 5"),
        ({"z": torch.where(torch.arange(100).unsqueeze(1) < 3, torch.nan, z)}, {}, "3 of 100 are not"),
    ):
        with pytest.raises(ValueError, match=words):
            fit_proposal(gan, samples, **(QUICK | options))
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ImportError) as raised:
        fit_proposal(gan, {"z": z}, **QUICK)
    assert "pyro-gan[flows]" in str(raised.value.__notes__)


def test_a_proposal_over_other_latents_does_not_fit(banana) -> None:
    prior = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1)
    gan = LatentPosterior(torch.nn.Identity(), lambda x: -x.square().sum(-1), prior)
    with pytest.raises(ValueError, match="over 3 numbers"):
        VectorizedMCMC(IndependenceMH(gan, proposal=banana[1]), 3, num_chains=2, disable_progbar=True).run()
