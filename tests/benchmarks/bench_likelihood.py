"""The cost of annealing as an estimator of likelihoods, for a hundred images, over its bare gradients."""

from __future__ import annotations

import pyro.distributions as dist
import torch

from pyro_gan import toys
from pyro_gan.likelihood import AnnealedImportance, EntropicModel
from tests.benchmarks.conftest import Figure
from tests.benchmarks.paired import paired

NUM_IMAGES, NUM_PARTICLES, NUM_TEMPERATURES, ROWS = 100, 16, 20, 500


def test_annealed_importance(figure: Figure) -> None:
    """A generator of the size for MNIST, untrained, because training does not change the time."""
    prior = dist.Normal(torch.zeros(64), torch.ones(64)).to_event(1)
    model = EntropicModel(toys.MLP([64, 256, 256, 784]).eval(), prior, regularization=0.5)
    _, y = model.simulate(NUM_IMAGES)
    estimator = AnnealedImportance(num_temperatures=NUM_TEMPERATURES, num_particles=NUM_PARTICLES)
    with torch.no_grad():
        schedule = estimator.schedule(model, y)
    z = prior.sample((NUM_IMAGES * NUM_PARTICLES,))
    data = y.repeat_interleave(NUM_PARTICLES, 0)

    def bare() -> None:
        for _ in range(NUM_TEMPERATURES):
            for rows, own in zip(z.split(ROWS), data.split(ROWS), strict=True):
                leaf = rows.clone().requires_grad_(True)
                energy = model.potential_fn({"z": leaf}, y=own)
                torch.autograd.grad(energy.sum(), leaf)

    figure(lambda: paired(lambda: estimator.lower(model, y, schedule), bare), target="<= 1.2")
