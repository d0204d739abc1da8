"""pCN and the random walk: the Gaussian that pCN finds in a prior, and how both depend on the dimension."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import PCN, RandomWalk


class Constant(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x.flatten(1).sum(-1)


def bound(kernel: PCN, chains: int = 4) -> PCN:
    kernel.bind(chains)
    kernel.setup(0)
    return kernel


def model(prior: dist.TorchDistribution) -> LatentPosterior:
    return LatentPosterior(torch.nn.Identity(), Constant(), prior)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("scale", "dim"), [(1.0, 1), (1.0, 500), (1e-3, 20), (1e3, 20)])
def test_a_gaussian_prior_is_read_off_its_density(dtype, scale, dim) -> None:
    mean = torch.linspace(-5, 5, dim, dtype=dtype) * scale
    sd = torch.linspace(0.5, 2.0, dim, dtype=dtype) * scale
    found = bound(PCN(model(dist.Normal(mean, sd).to_event(1))))._gaussian
    assert found.mean.dtype == dtype
    torch.testing.assert_close((found.mean - mean) / sd, torch.zeros_like(mean), atol=2e-2, rtol=0)
    torch.testing.assert_close(found.stddev, sd, rtol=2e-2, atol=0)


def test_events_of_any_shape_have_a_gaussian() -> None:
    kernel = bound(PCN(model(dist.Normal(1.0, 3.0).expand([3, 1, 2]).to_event(3))))
    torch.testing.assert_close(kernel._gaussian.stddev, torch.full((6,), 3.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "prior",
    [
        dist.Uniform(-torch.ones(3), torch.ones(3)).to_event(1),
        dist.StudentT(5.0, torch.zeros(3), 1.0).to_event(1),
        dist.Laplace(torch.zeros(3), 1.0).to_event(1),
        dist.MultivariateNormal(torch.zeros(3), 0.5 * torch.eye(3) + 0.5),
    ],
    ids=["uniform", "student", "laplace", "correlated"],
)
def test_a_prior_that_is_no_such_gaussian_raises_and_the_error_names_the_cure(prior) -> None:
    with pytest.raises(ValueError, match="proposal=.*RandomWalk"):
        bound(PCN(model(prior)))
    bound(PCN(model(prior), proposal=dist.Normal(torch.zeros(3), 1.0).to_event(1)))


def test_a_proposal_that_is_not_gaussian_raises() -> None:
    with pytest.raises(ValueError, match="MultivariateNormal; got"):
        PCN(model(dist.Normal(torch.zeros(3), 1.0).to_event(1)), proposal=dist.Laplace(torch.zeros(3), 1.0).to_event(1))


@pytest.mark.filterwarnings("ignore:.*accepted nothing")
@pytest.mark.parametrize("step_size", [0.01, 1.0, 4.0, 100.0])
def test_without_a_weight_every_step_is_accepted_in_any_dimension(step_size) -> None:
    kernel = PCN(model(dist.Normal(torch.zeros(400), 1.0).to_event(1)), step_size=step_size, adapt_step_size=False)
    mcmc = VectorizedMCMC(kernel, 3, 0, num_chains=100, disable_progbar=True)
    mcmc.run()
    assert float(mcmc.sample_stats["accept_prob"].mean()) > 0.95
    walk = RandomWalk(kernel.model, step_size=0.1, adapt_step_size=False)
    walking = VectorizedMCMC(walk, 3, 0, num_chains=100, disable_progbar=True)
    walking.run()
    assert float(walking.sample_stats["accept_prob"].mean()) < 0.1


def test_the_step_size_stops_where_steps_are_fresh_draws() -> None:
    kernel = PCN(model(dist.Normal(torch.zeros(2), 1.0).to_event(1)))
    mcmc = VectorizedMCMC(kernel, 3, 300, num_chains=100, disable_progbar=True)
    mcmc.run()
    assert (mcmc.sample_stats["step_size"] == 4).all()


def test_many_latents_are_read_in_blocks() -> None:
    sd = torch.linspace(0.5, 2.0, 1500)
    found = bound(PCN(model(dist.Normal(torch.zeros(1500), sd).to_event(1))))._gaussian
    torch.testing.assert_close(found.stddev, sd, rtol=2e-2, atol=0)


def test_a_long_step_is_a_fresh_draw() -> None:
    kernel = bound(PCN(model(dist.Normal(torch.zeros(2), 1.0).to_event(1)), step_size=50.0), chains=20_000)
    start = kernel.state.z
    after = kernel.sample(kernel.initial_params)["z"]
    correlation = torch.corrcoef(torch.cat([start, after], 1).T)[:2, 2:]
    assert float(correlation.abs().max()) < 4.5 / 20_000**0.5
