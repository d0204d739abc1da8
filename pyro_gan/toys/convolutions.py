"""A convolutional generator and critic of small images, which train on a laptop."""

from __future__ import annotations

from torch import nn

from pyro_gan import checks

__all__ = ["conv_critic", "conv_generator"]


def conv_generator(latent_dim: int, *, size: int, channels: int = 1, width: int = 32) -> nn.Sequential:
    """Build a generator of images after DCGAN: a linear layer, then two that double height and width.

    BatchNorm and ReLU follow every layer except the last, which ends in tanh. BatchNorm couples the rows of a batch in
    training mode. Samplers need evaluation mode, in which `fit_gan` leaves the generator.

    Args:
        latent_dim: Length of a latent.
        size: Height and width of an image, a multiple of 4: 8 for the digits of `digits`, 28 for MNIST.
        channels: Channels of an image.
        width: Channels before the last layer. The layer before it has twice as many.

    Returns:
        Maps latents `(batch, latent_dim)` to images in [-1, 1], `(batch, channels, size, size)`.

    Raises:
        ValueError: if the size is not a multiple of 4, or another argument is below 1.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, A. Radford,
        L. Metz and S. Chintala, 2016, https://arxiv.org/abs/1511.06434

    Example:
        >>> import torch
        >>> conv_generator(16, size=8)(torch.randn(5, 16)).shape
        torch.Size([5, 1, 8, 8])
    """
    _check(size, latent_dim=latent_dim, channels=channels, width=width)
    return nn.Sequential(
        nn.Linear(latent_dim, 2 * width * (size // 4) ** 2, bias=False),
        nn.Unflatten(1, (2 * width, size // 4, size // 4)),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def conv_critic(*, size: int, channels: int = 1, width: int = 32) -> nn.Sequential:
    """Build a critic of images that mirrors the generator: two layers that halve height and width, then a linear one.

    Unlike DCGAN's critic it has no BatchNorm, because gradient penalties need rows that do not depend on one another.

    Args:
        size: Height and width of an image, as for `conv_generator`.
        channels: Channels of an image.
        width: Channels after the first layer. There are twice as many after the second.

    Returns:
        Maps images `(batch, channels, size, size)` to one real number each, `(batch, 1)`.

    Raises:
        ValueError: as `conv_generator`.

    Example:
        >>> import torch
        >>> conv_critic(size=28)(torch.randn(5, 1, 28, 28)).shape
        torch.Size([5, 1])
    """
    _check(size, channels=channels, width=width)
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, 1),
    )


def _check(size: int, **counts: int) -> None:
    cure = "Pad the images to a multiple of 4."
    if checks.count("size", size, minimum=4, cure=cure) % 4:
        raise ValueError(f"Expected a size that is a multiple of 4; got {size}. {cure}")
    for name, count in counts.items():
        checks.count(name, count)
