"""Angles: local kernels wrap their steps, so that a prior on the circle is sampled on the circle."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, VectorizedMCMC
from pyro_gan.annealing import SMC
from pyro_gan.circular import Wrap, is_circular
from pyro_gan.mcmc import MALA, PCN, BatchHMC, ChEES, IndependenceMH, RandomWalk
from tests.statistics import assert_mean

# Most of the mass lies around the seam at pi.
LOC, CONCENTRATION = torch.tensor(3.0, dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64)
ANGLE = dist.VonMises(LOC, CONCENTRATION)
PULL, STRENGTH = 2.0, 2.0

#: Long steps cross the seam again and again.
KERNELS: dict[str, Callable] = {
    "RandomWalk": lambda model: RandomWalk(model, step_size=1.5, adapt_step_size=False),
    "MALA": lambda model: MALA(model, step_size=0.6, adapt_step_size=False),
    "BatchHMC": lambda model: BatchHMC(model, step_size=0.7, num_steps=3, adapt_step_size=False),
    "ChEES": lambda model: ChEES(model, step_size=0.5, adapt_step_size=False, adapt_mass_matrix=False),
    "IndependenceMH": IndependenceMH,
    "IndependenceMH, normal proposal": lambda model: IndependenceMH(
        model, proposal=dist.Normal(torch.zeros(1, dtype=torch.float64), 3.0).to_event(1)
    ),
}


def posterior() -> LatentPosterior:
    """Return a von Mises posterior: densities of angles multiply by the sum of their vectors."""
    prior = ANGLE.expand([1]).to_event(1)
    return LatentPosterior(nn.Identity(), lambda x: STRENGTH * torch.cos(x[:, 0] - PULL), prior)


def program() -> None:
    angle = pyro.sample("z", ANGLE)
    pyro.factor("pull", STRENGTH * torch.cos(angle - PULL))


def mean_vector() -> Tensor:
    """Return the mean of (cos, sin) of the posterior, by quadrature on one turn."""
    angle = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[1:]
    weight = (ANGLE.log_prob(angle) + STRENGTH * torch.cos(angle - PULL)).softmax(0)
    return torch.stack([(weight * angle.cos()).sum(), (weight * angle.sin()).sum()])


def vectors(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], -1)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_sample_an_angle(name: str) -> None:
    mcmc = VectorizedMCMC(KERNELS[name](posterior()), 150, warmup_steps=50, num_chains=100, disable_progbar=True)
    mcmc.run()
    angle = mcmc.get_samples(group_by_chain=True)["z"].squeeze(-1)
    assert float(angle.abs().max()) <= math.pi
    assert_mean(vectors(angle).mean(1), mean_vector())


def test_an_angle_of_a_program() -> None:
    mcmc = VectorizedMCMC(MALA(program), 100, warmup_steps=100, num_chains=100, disable_progbar=True)
    mcmc.run()
    angle = mcmc.get_samples(group_by_chain=True)["z"]
    assert float(angle.abs().max()) <= math.pi
    assert_mean(vectors(angle).mean(1), mean_vector())


def test_a_walk_over_a_flat_circle_stays_on_it() -> None:
    def flat() -> None:
        pyro.sample("angle", dist.VonMises(torch.tensor(0.0), torch.tensor(1e-3)))

    kernel = RandomWalk(flat)
    mcmc = VectorizedMCMC(kernel, 50, warmup_steps=300, num_chains=50, disable_progbar=True)
    mcmc.run()
    angle = mcmc.get_samples(group_by_chain=True)["angle"]
    assert float(angle.abs().max()) <= math.pi and math.isfinite(kernel.step_size)
    assert_mean(vectors(angle).mean(1), torch.zeros(2), "mean vector of a flat circle")


def test_samplers_without_chains_agree() -> None:
    outputs = ImportanceResampler(posterior())(num_outputs=2000, num_draws=50_000).samples["z"].squeeze(-1)
    assert_mean(vectors(outputs), mean_vector())
    particles = SMC(posterior(), 500)().samples["z"].squeeze(-1)
    assert float((vectors(particles).mean(0) - mean_vector()).norm()) < 0.15


def test_starts_beyond_a_turn_are_the_same_angles() -> None:
    kernel = MALA(posterior())
    kernel.bind(2)
    kernel.initial_params = {"z": torch.tensor([[3.0], [3.0 + 4 * math.pi]], dtype=torch.float64)}
    kernel.setup(0)
    torch.testing.assert_close(kernel.state.z, torch.full((2, 1), 3.0, dtype=torch.float64))


def test_a_gaussian_walk_is_refused() -> None:
    kernel = PCN(posterior())
    kernel.bind(2)
    with pytest.raises(ValueError, match="Gaussian with independent coordinates; got another"):
        kernel.setup(0)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (ANGLE, True),
        (dist.VonMises(torch.zeros(3), 1e4).to_event(1), True),
        (dist.VonMises(torch.zeros(2), torch.tensor([0.1, 50.0])), True),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.VonMises(torch.tensor([-1.0, 2.0]), 3.0)), True),
        (dist.SineBivariateVonMises(0.0, 1.0, 1.0, 2.0, 0.1), True),
        (dist.SineSkewed(dist.VonMises(0.0, 1.0).expand([1]).to_event(1), torch.tensor([0.2])), True),
        (dist.Normal(0.0, 1.0), False),
        (dist.Normal(0.0, 1e5), False),
        (dist.Normal(0.0, 0.1).expand([5]).to_event(1), False),
        (dist.Cauchy(0.0, 1.0), False),
        (dist.Uniform(-1.0, 1.0), False),
        (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), False),
    ],
)
def test_circular_densities_are_found(fn: dist.TorchDistribution, expected: bool) -> None:
    assert all(is_circular(fn) is expected for _ in range(20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrapping(dtype: torch.dtype) -> None:
    wrap = Wrap()
    inside = (2 * torch.rand(1000, dtype=dtype) - 1) * math.pi
    assert torch.equal(wrap(inside), inside) and bool((wrap.log_abs_det_jacobian(inside, inside) == 0).all())
    for turns in (-3, 2):
        far = inside + 2 * math.pi * turns
        torch.testing.assert_close(vectors(wrap(far)), vectors(inside), atol=1e-5, rtol=0)
        assert bool(torch.isneginf(wrap.log_abs_det_jacobian(far, wrap(far))).all())
    assert wrap == Wrap() and hash(wrap) == hash(Wrap())
