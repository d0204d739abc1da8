"""Pairs trained by `fit_gan` for the slow tests: WGAN-GP in the plane, and five objectives on parallel planes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_gan import toys
from pyro_gan.objectives import DRAGAN, Bernoulli, GradientPenalty, Minimax, Objective, Penalty, Wasserstein, fit_gan

__all__ = ["CHOSEN", "METHODS", "NEAR_OPTIMUM", "Distances", "Pair", "parallel_planes", "plane_wgan"]


class Pair(NamedTuple):
    """A trained generator and its critic, the distribution of the latents, and the CPU seconds of the training."""

    generator: nn.Module
    critic: nn.Module
    prior: dist.TorchDistribution
    seconds: float

    def generate(self, num_draws: int) -> Tensor:
        """Draw from the generator."""
        with torch.no_grad():
            return self.generator(self.prior.sample((num_draws,)))


def falling(optimizers: Sequence[Optimizer], num_steps: int) -> Callable[..., None]:
    """Return a callback that lowers learning rates linearly to zero. It uses the step alone, so a run can resume."""
    start = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]

    def after_step(step: int, *_: object) -> None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, start, strict=True):
            group["lr"] = rate * (1 - step / num_steps)

    return after_step


def adam(network: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.9))


def plane_wgan(data: Tensor, seed: int, *, num_steps: int = 4000) -> Pair:
    """Train a WGAN-GP of two perceptrons on points of the plane, with uniform latents and three critic updates."""
    pyro.set_rng_seed(seed)
    generator, critic = (toys.MLP([2, 128, 128, 128, width], nn.ReLU) for width in (2, 1))
    prior = dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)
    optimizers = adam(generator, 1e-3), adam(critic, 1e-3)
    start = time.process_time()
    fit_gan(
        generator,
        critic,
        prior=prior,
        data=data,
        objective=Wasserstein(),
        generator_optimizer=optimizers[0],
        critic_optimizer=optimizers[1],
        num_steps=num_steps,
        batch_size=256,
        critic_steps=3,
        penalty=GradientPenalty(0.1),
        callback=falling(optimizers, num_steps),
        progress=False,
    )
    return Pair(generator, critic, prior, time.process_time() - start)


# The methods by the names of the papers, with the usual weights of the penalties.
METHODS: dict[str, tuple[Objective, Penalty | None]] = {
    "saturating GAN": (Minimax(Bernoulli()), None),
    "NS-GAN": (Bernoulli(), None),
    "NS-GAN + GP": (Bernoulli(), GradientPenalty(10.0)),
    "DRAGAN-NS": (Bernoulli(), DRAGAN(10.0)),
    "WGAN-GP": (Wasserstein(), GradientPenalty(10.0)),
}


class Distances(NamedTuple):
    """Exact distances between an affine generator of Gaussian latents and Gaussian data on a plane."""

    off_plane: float  # root mean square distance of its points from the plane
    transport: float  # W2 between the two distributions
    spread: float  # root mean square size inside the plane, divided by the data's; 0 if all is one point


class Plane(NamedTuple):
    """Data U s with s standard normal. The generator starts on the same plane, shifted."""

    directions: Tensor  # U, (dim, latent), orthonormal
    shift: Tensor  # orthogonal to it, of length 1

    def distances(self, matrix: Tensor, bias: Tensor) -> Distances:
        u, a, b = (x.detach().double() for x in (self.directions, matrix, bias))
        outside = torch.cat([a, b[:, None]], 1)
        outside = outside - u @ (u.T @ outside)
        inside = torch.cat([u.T @ a, u.T @ b[:, None]], 1)
        # The Bures distance of two Gaussians with covariances A A' and U U', in a form without roots of matrices.
        nuclear = torch.linalg.matrix_norm(u.T @ a, "nuc")
        squared = b.square().sum() + a.square().sum() + u.square().sum() - 2 * nuclear
        return Distances(float(outside.norm()), float(squared.clamp(min=0).sqrt()), float(inside.norm() / u.norm()))


def parallel_planes(
    method: str,
    seed: int,
    *,
    latent_dim: int,
    dim: int,
    rate: float,
    critic_steps: int,
    num_updates: int = 2000,
    path: list[tuple[int, Distances]] | None = None,
) -> Distances:
    """Train an affine generator that starts on a plane parallel to that of the data.

    Args:
        method: One of `METHODS`.
        seed: Seed of everything except the planes.
        latent_dim: Dimension of the planes.
        dim: Dimension of the data.
        rate: Both learning rates at the start. They fall to zero.
        critic_steps: Updates of the critic for each update of the generator.
        num_updates: Updates of both together.
        path: A list that gets a hundred pairs (updates, distances) during the run.

    Returns:
        The distances at the end.
    """
    pyro.set_rng_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)))
    plane = Plane(basis[:, :latent_dim], basis[:, latent_dim])
    generator = nn.Linear(latent_dim, dim)
    with torch.no_grad():
        generator.weight.copy_(plane.directions)
        generator.bias.copy_(plane.shift)
    critic = toys.MLP([dim, 64, 64, 1])
    objective, penalty = METHODS[method]
    optimizers = adam(generator, rate), adam(critic, rate)
    num_steps = num_updates // (critic_steps + 1)
    lower = falling(optimizers, num_steps)

    def after_step(step: int, *_: object) -> None:
        lower(step)
        if path is not None and (step - 1) % max(num_steps // 100, 1) == 0:
            path.append((step * (critic_steps + 1), plane.distances(generator.weight, generator.bias)))

    fit_gan(
        generator,
        critic,
        prior=dist.Normal(torch.zeros(latent_dim), torch.ones(latent_dim)).to_event(1),
        data=torch.randn(20_000, latent_dim) @ plane.directions.T,
        objective=objective,
        generator_optimizer=optimizers[0],
        critic_optimizer=optimizers[1],
        num_steps=num_steps,
        batch_size=128,
        critic_steps=critic_steps,
        penalty=penalty,
        callback=after_step,
        progress=False,
    )
    return plane.distances(generator.weight, generator.bias)


# By dimensions of plane and data, each method's learning rate and critic steps: the best on seed 100 among rates of
# 0.003, 0.01 and 0.03 with 1 or 5 critic steps.
CHOSEN: dict[tuple[int, int], dict[str, tuple[float, int]]] = {
    (1, 2): {
        "saturating GAN": (0.03, 1),
        "NS-GAN": (0.03, 1),
        "NS-GAN + GP": (0.01, 5),
        "DRAGAN-NS": (0.03, 5),
        "WGAN-GP": (0.01, 5),
    },
    (2, 16): {
        "saturating GAN": (0.01, 1),
        "NS-GAN": (0.03, 1),
        "NS-GAN + GP": (0.03, 5),
        "DRAGAN-NS": (0.03, 5),
        "WGAN-GP": (0.01, 5),
    },
}

# Rate and critic steps that keep the critic near its optimum, as the theory of divergences assumes.
NEAR_OPTIMUM = (0.01, 5)
