"""Real networks and data from other projects, in the folder that the environment variable PYRO_GAN_ZOO names.

Every loader skips the calling test if the variable is not set. The README of the folder gives origins and licences.
All images are `(draw, 1, 28, 28)` in [-1, 1].
"""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

__all__ = [
    "GAUSSIANS25_SD",
    "Images",
    "LeNet",
    "gaussians25_critic",
    "gaussians25_data",
    "gaussians25_generator",
    "gaussians25_means",
    "gaussians25_prior",
    "lenet",
    "mnist_discriminator",
    "mnist_generator",
    "mnist_prior",
    "mnist_probability",
    "mnist_test",
    "mnist_train",
    "mnist_wgan_critic",
    "mnist_wgan_generator",
    "zoo_path",
]

VARIABLE = "PYRO_GAN_ZOO"
SCALE = 2.828
GAUSSIANS25_SD = 0.05 / SCALE


class Images(NamedTuple):
    """Images with their labels."""

    images: Tensor  # (draw, 1, 28, 28), float32 in [-1, 1]
    labels: Tensor  # (draw,), int64


def zoo_path(name: str) -> Path:
    """Return a file of the zoo, or skip the test if the variable is not set."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set: this test needs the folder of real networks and data")
    path = Path(root) / name
    # If the variable names a folder without the file, that is an error, not a reason to skip.
    if not path.exists():
        raise FileNotFoundError(f"{VARIABLE}={root} has no {name}")
    return path


def mnist_generator() -> nn.Module:
    """Return the MLP generator: `(batch, 64)` standard normal latents to images."""
    layers = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh()
    )
    layers.load_state_dict(_state(zoo_path("mnist_mlp_gan/G--300.ckpt")))
    return nn.Sequential(layers, nn.Unflatten(1, (1, 28, 28))).eval()


def mnist_discriminator() -> nn.Module:
    """Return the MLP discriminator of images as a logit, `(batch, 1)`."""
    layers = nn.Sequential(
        nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )
    layers.load_state_dict(_state(zoo_path("mnist_mlp_gan/D--300.ckpt")))
    return nn.Sequential(nn.Flatten(), layers).eval()


def mnist_probability() -> nn.Module:
    """Return the same discriminator in its published form, which ends in a sigmoid."""
    return nn.Sequential(mnist_discriminator(), nn.Sigmoid()).eval()


def mnist_prior() -> dist.TorchDistribution:
    """Return the distribution of the generator's latents, N(0, I) in 64 dimensions."""
    return dist.Normal(torch.zeros(64), torch.ones(64)).to_event(1)


def mnist_wgan_generator() -> nn.Module:
    """Return the convolutional WGAN-GP generator: `(batch, 64)` standard normal latents to images."""

    def block(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(inputs, outputs, size, stride), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = nn.Sequential(
        nn.Unflatten(1, (64, 1, 1)),
        *block(64, 256, 3, 2),
        *block(256, 128, 4, 1),
        *block(128, 64, 3, 2),
        nn.ConvTranspose2d(64, 1, 4, 2),
        nn.Tanh(),
    )
    return _load_in_order(layers, zoo_path("mnist_wgan_gp/generator.pth"))


def mnist_wgan_critic() -> nn.Module:
    """Return its critic, `(batch, 1)`: no log ratio before calibration, and a poor one after it."""
    layers = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Conv2d(128, 1, 4, 2),
        nn.Flatten(),
    )
    return _load_in_order(layers, zoo_path("mnist_wgan_gp/critic.pth"))


class LeNet(nn.Module):
    """LeNet-5: it maps images to log-probabilities of the ten digits, and gives its 84 features on request."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c3, self.c5 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.f6, self.f7 = nn.Linear(120, 84), nn.Linear(84, 10)

    def features(self, images: Tensor) -> Tensor:
        """Return the 84 activations (after their ReLU) below the last layer, `(draw, 84)`."""
        grey = nn.functional.interpolate((images + 1) / 2, size=(32, 32), mode="bilinear")
        x = (grey - 0.1307) / 0.3081
        x = nn.functional.max_pool2d(self.c1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.c3(x).relu(), 2)
        return self.f6(self.c5(x).relu().flatten(1)).relu()

    def head(self, features: Tensor) -> Tensor:
        """Return the log-probabilities of `(draw, 84)` features."""
        return self.f7(features).log_softmax(-1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probabilities of images, `(draw, 10)`."""
        return self.head(self.features(images))


def lenet() -> LeNet:
    """Return the trained LeNet-5, without gradients."""
    network = LeNet()
    state = _state(zoo_path("mnist_lenet/lenet_epoch=12_test_acc=0.991.pth"))
    network.load_state_dict({name.split(".", 1)[1]: value for name, value in state.items()})
    return network.eval().requires_grad_(False)


@cache
def mnist_train() -> Images:
    """Return the 60 000 training digits. Grey levels are the original ones or differ by one."""
    with np.load(zoo_path("mnist/mnist_train60k_pm1.npz")) as archive:
        return Images(_scaled(archive["images"]), torch.as_tensor(archive["labels"]).long())


@cache
def mnist_test() -> Images:
    """Return the 10 000 test digits of the original files."""
    # The format IDX has a header of 16 bytes before images, and of 8 before labels.
    with gzip.open(zoo_path("mnist/t10k-images-idx3-ubyte.gz")) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(zoo_path("mnist/t10k-labels-idx1-ubyte.gz")) as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return Images(_scaled(images), torch.as_tensor(labels.copy()).long())


def gaussians25_generator() -> nn.Module:
    """Return the WGAN-GP generator, `(batch, 2)` latents to `(batch, 2)` data."""
    return _leaky_mlp(zoo_path("gaussians25_wgan_gp/G_25gaussians_WGAN-GP.npz"), ("l0", "l1", "l2", "l4"))


def gaussians25_critic() -> nn.Module:
    """Return the WGAN-GP critic, `(batch, 1)`. Its output is a log ratio only after calibration."""
    return _leaky_mlp(zoo_path("gaussians25_wgan_gp/D_25gaussians_WGAN-GP.npz"), ("l1", "l2", "l3", "l4"))


def gaussians25_prior() -> dist.TorchDistribution:
    """Return the distribution of the generator's latents, U(-1, 1) in 2 dimensions."""
    return dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)


def gaussians25_means() -> Tensor:
    """Return the 25 means of the data, `(25, 2)`."""
    axis = torch.linspace(-4, 4, 5) / SCALE
    return torch.cartesian_prod(axis, axis)


def gaussians25_data(num_draws: int) -> Tensor:
    """Draw data from torch's generator, `(num_draws, 2)`."""
    means = gaussians25_means()[torch.randint(25, (num_draws,))]
    return means + GAUSSIANS25_SD * torch.randn(num_draws, 2)


def _state(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_in_order(network: nn.Module, path: Path) -> nn.Module:
    """Load a state whose tensors have other names, in the order of the layers."""
    network.load_state_dict(dict(zip(network.state_dict(), _state(path).values(), strict=True)))
    return network.eval()


def _scaled(images: np.ndarray) -> Tensor:
    return torch.as_tensor(images.astype(np.float32)).unsqueeze(1) / 127.5 - 1


def _leaky_mlp(path: Path, names: tuple[str, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    with np.load(path) as archive:
        for name in names:
            weight, bias = torch.as_tensor(archive[f"{name}/W"]), torch.as_tensor(archive[f"{name}/b"])
            linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1]).eval()
