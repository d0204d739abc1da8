"""The generators and critics of the benchmarks, and their bare potential without the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio, toys
from pyro_gan.objectives import Bernoulli

__all__ = ["bare_forward", "bare_gradient", "conv_pair", "mlp_pair", "tiny_pair"]


def mlp_pair() -> LatentPosterior:
    """Perceptrons of the size for MNIST; the critic separates outputs from those of a shifted and scaled z."""
    torch.manual_seed(0)
    generator = toys.MLP([64, 256, 256, 784])
    critic = toys.MLP([784, 256, 256, 1])
    return _fitted(generator, critic, 64, lambda z: generator(0.8 * z + 0.2), num_steps=100, batch=256)


def tiny_pair(dim: int) -> LatentPosterior:
    """Perceptrons for the plane; the data are wider than the outputs of the generator."""
    torch.manual_seed(0)
    generator, critic = toys.MLP([dim, 32, 32, 2]), toys.MLP([2, 32, 32, 1])

    def wider(z: Tensor) -> Tensor:
        x = generator(z)
        return x.mean(0) + x.std(0) * (1.0 + 0.5 * torch.randn_like(x))

    return _fitted(generator, critic, dim, wider, num_steps=300, batch=4096)


def conv_pair() -> LatentPosterior:
    """DCGAN for colour images of 32 x 32, untrained, because training does not change the time."""
    torch.manual_seed(0)
    up, down = [256, 128, 64], [3, 64, 128, 256]
    layers: list[nn.Module] = [nn.Linear(100, 256 * 16, bias=False), nn.Unflatten(1, (256, 4, 4))]
    for width_in, width_out in zip(up, [*up[1:], 3], strict=True):
        layers += [nn.BatchNorm2d(width_in), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False))
    generator = nn.Sequential(*layers, nn.Tanh())
    layers = []
    for width_in, width_out in zip(down[:-1], down[1:], strict=True):
        layers += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1, bias=False), nn.LeakyReLU(0.2)]
    critic = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 16, 1))
    return _posterior(generator, critic, 100, chunk_size=125)


def bare_gradient(gan: LatentPosterior, num_rows: int) -> Callable[[], Any]:
    """Value and gradient of the potential at fixed latents, in passes of the best size for a CPU."""
    generator, critic = gan.generator, gan.log_ratio
    z = torch.randn(num_rows, *gan.prior.event_shape)

    def value_and_grad() -> None:
        for rows in z.split(gan.chunk_size or 500):
            leaf = rows.detach().requires_grad_(True)
            value = 0.5 * leaf.square().sum(-1) - critic(generator(leaf))
            torch.autograd.grad(value.sum(), leaf)

    return value_and_grad


def bare_forward(gan: LatentPosterior, num_rows: int, batch: int) -> Callable[[], Any]:
    """The log ratio at fixed latents, in passes of one size."""
    generator, critic = gan.generator, gan.log_ratio
    z = torch.randn(num_rows, *gan.prior.event_shape)

    @torch.no_grad()
    def forward() -> None:
        for rows in z.split(batch):
            critic(generator(rows))

    return forward


def _fitted(
    generator: nn.Module, critic: nn.Module, dim: int, real: Callable[[Tensor], Tensor], *, num_steps: int, batch: int
) -> LatentPosterior:
    optimiser = torch.optim.Adam(critic.parameters(), lr=3e-3)
    softplus = nn.functional.softplus
    for _ in range(num_steps):
        with torch.no_grad():
            data, generated = real(torch.randn(batch, dim)), generator(torch.randn(batch, dim))
        loss = softplus(-critic(data)).mean() + softplus(critic(generated)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _posterior(generator, critic, dim)


def _posterior(generator: nn.Module, critic: nn.Module, dim: int, chunk_size: int | None = None) -> LatentPosterior:
    prior = dist.Normal(torch.zeros(dim), torch.ones(dim)).to_event(1)
    return LatentPosterior(generator.eval(), LogRatio(critic.eval(), Bernoulli()), prior, chunk_size=chunk_size)
