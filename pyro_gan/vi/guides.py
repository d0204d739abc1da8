"""Guides q(z|x) with one network for all data: an implicit one, from data and noise, and a Gaussian one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, final, runtime_checkable

import pyro
import torch
from jaxtyping import Float
from pyro import distributions as dist
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_gan._typing import left_shape
from pyro_gan.checks import batch, count, function, shaped, shown, tensor
from pyro_gan.distributions.implicit import Implicit

__all__ = ["Encoder", "GaussianGuide", "ImplicitGuide", "Joined", "check_encoder"]


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns data into a distribution of latents, with or without a density."""

    def conditional(self, x: Float[Tensor, "*batch_and_event"], /) -> TorchDistribution:
        """Return q(z|x) with reparametrised draws and the left dimensions of `x` as its batch shape."""


def check_encoder(encoder: Any) -> None:
    """Raise unless an object is an instance with `conditional(x)`."""
    if isinstance(encoder, type) or not isinstance(encoder, Encoder):
        raise ValueError(f"Expected an encoder with conditional(x), such as GaussianGuide(...); got {shown(encoder)}.")


@final
class Joined(nn.Module):
    """A network of two inputs made from a network of one: rows of both, flattened and put side by side.

    Args:
        network: `(row, a + b) -> (row, *event)`, for inputs of `a` and `b` numbers a row.

    Example:
        >>> Joined(nn.Linear(5, 1))(torch.zeros(7, 3), torch.zeros(7, 2)).shape
        torch.Size([7, 1])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = function("network", network)

    def forward(self, first: Float[Tensor, "row *a"], second: Float[Tensor, "row *b"]) -> Tensor:
        """Return the network's output for both inputs side by side."""
        return self.network(torch.cat([first.flatten(1), second.flatten(1)], -1))


@final
class ImplicitGuide(PyroModule):
    r"""The guide :math:`z = g(x, \epsilon)`: any distribution that a network can make, without a density.

    A call is a Pyro guide for a model with one latent for each data point: `pyro.sample(site, ...)` inside
    `pyro.plate(plate, num_data, subsample_size=len(x))`. For another model write a guide that uses `conditional`.

    Args:
        network: `(x, noise) -> (row, *latent)`; `Joined` makes one from a network of one input.
        noise: Distribution of the noise, `batch_shape ()`, with the network's dtype and device. If the noise has fewer
            dimensions than the latent, q lies on a thin sheet.
        event_shape: Shape of one latent.
        site: Name of the latent site.
        plate: Name of the plate over data.
        num_data: Size of the plate, if `x` is a batch of more data; None if `x` holds all data.
        x_event_dim: Number of dimensions of one data point.
        num_moment_draws: Noise draws that `moments` uses.

    References:
        Adversarial Variational Bayes, L. Mescheder, S. Nowozin and A. Geiger, 2017,
        https://arxiv.org/abs/1701.04722

    Example:
        >>> noise = dist.Normal(0.0, 1.0).expand([4]).to_event(1)
        >>> guide = ImplicitGuide(Joined(nn.Linear(3 + 4, 2)), noise, event_shape=(2,))
        >>> guide(torch.zeros(10, 3)).shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        noise: TorchDistribution,
        *,
        event_shape: Sequence[int],
        site: str = "z",
        plate: str = "data",
        num_data: int | None = None,
        x_event_dim: int = 1,
        num_moment_draws: int = 64,
    ) -> None:
        count("num_moment_draws", num_moment_draws, minimum=2)
        # Its checks are those of `conditional`, at the door.
        event_shape = Implicit(network, noise, event_shape=event_shape).event_shape
        super().__init__()
        self.site, self.plate, self.num_data, self.x_event_dim = _checked(site, plate, num_data, x_event_dim)
        self.network = network
        self.noise = noise
        self.event_shape = event_shape
        # Drawn once, like weights: a function of x that changed from call to call could not be learned.
        self.register_buffer("noise_bank", noise.sample((num_moment_draws,)))

    def forward(self, x: Float[Tensor, "row *event"]) -> Float[Tensor, "*shape"]:
        """Sample the site inside the plate, one latent for each data point.

        Args:
            x: A batch of data.

        Returns:
            Latents, `(row, *latent)`, with vectorised particles to the left.
        """
        return _sample(self, x)

    def conditional(self, x: Float[Tensor, "*batch_and_event"]) -> Implicit:
        """Return q(z|x); its batch shape is the left dimensions of `x`."""
        shape, dim = self.event_shape, self.x_event_dim
        tensor("data", x)
        return Implicit(self.network, self.noise, event_shape=shape, context=x, context_event_dim=dim)

    def moments(
        self, x: Float[Tensor, "row *event"]
    ) -> tuple[Float[Tensor, "row *latent"], Float[Tensor, "row *latent"]]:
        """Return mean and variance of q(z|x), without a gradient, from the same few noise draws at every call.

        Args:
            x: Rows of data.

        Returns:
            Mean and variance, each `(row, *latent)`.
        """
        with torch.no_grad():
            bank = self.noise_bank
            many_x = batch("data", x).expand(len(bank), *x.shape).flatten(0, 1)
            many_noise = bank[:, None].expand(len(bank), len(x), *bank.shape[1:]).flatten(0, 1)
            z = self.network(many_x, many_noise).reshape(len(bank), len(x), *self.event_shape)
            return z.mean(0), z.var(0, unbiased=False)


@final
class GaussianGuide(PyroModule):
    """The guide of a variational autoencoder: a Gaussian with independent coordinates, from a network of data.

    Args:
        network: `x -> (row, 2 * dim)`, means and then log standard deviations.
        dim: Number of latent coordinates; the latent is `(dim,)`.
        site: Name of the latent site.
        plate: Name of the plate over data.
        num_data: Size of the plate, if `x` is a batch of more data; None if `x` holds all data.
        x_event_dim: Number of dimensions of one data point.

    References:
        Auto-Encoding Variational Bayes, D. Kingma and M. Welling, 2014, https://arxiv.org/abs/1312.6114

    Example:
        >>> guide = GaussianGuide(nn.Linear(3, 4), dim=2)
        >>> guide(torch.zeros(10, 3)).shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        *,
        dim: int,
        site: str = "z",
        plate: str = "data",
        num_data: int | None = None,
        x_event_dim: int = 1,
    ) -> None:
        super().__init__()
        self.site, self.plate, self.num_data, self.x_event_dim = _checked(site, plate, num_data, x_event_dim)
        self.network = function("network", network)
        self.dim = count("dim", dim)

    def forward(self, x: Float[Tensor, "row *event"]) -> Float[Tensor, "*shape"]:
        """Sample the site inside the plate, one latent for each data point.

        Args:
            x: A batch of data.

        Returns:
            Latents, `(row, dim)`, with vectorised particles to the left.
        """
        return _sample(self, x)

    def conditional(self, x: Float[Tensor, "*batch_and_event"]) -> TorchDistribution:
        """Return q(z|x); its batch shape is the left dimensions of `x`.

        Raises:
            ValueError: if the network gives another shape than `(row, 2 * dim)`.
        """
        left = left_shape(shaped("data", x, ("*batch", *["size"] * self.x_event_dim)), self.x_event_dim)
        rows = self.network(x.reshape(-1, *x.shape[len(left) :]))
        if rows.shape != (left.numel(), 2 * self.dim):
            raise ValueError(
                f"Expected the network to give {(left.numel(), 2 * self.dim)}, means and log standard deviations; got "
                f"{tuple(rows.shape)}. Give it 2 * dim outputs."
            )
        loc, log_scale = rows.reshape(*left, 2 * self.dim).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def moments(self, x: Float[Tensor, "row *event"]) -> tuple[Tensor, Tensor]:
        """Return mean and variance of q(z|x), without a gradient, each `(row, dim)`."""
        with torch.no_grad():
            conditional = self.conditional(x)
            return conditional.mean, conditional.variance


def _checked(site: str, plate: str, num_data: int | None, x_event_dim: int) -> tuple[str, str, int | None, int]:
    """Return the arguments that place a guide in a Pyro program, or raise."""
    for what, value in (("site", site), ("plate", plate)):
        if not isinstance(value, str):
            raise ValueError(f"Expected {what} to be a name; got {shown(value)}.")
    num_data = None if num_data is None else count("num_data", num_data)
    return site, plate, num_data, count("x_event_dim", x_event_dim, minimum=0)


def _sample(guide: ImplicitGuide | GaussianGuide, x: Tensor) -> Tensor:
    size = left_shape(batch("data", x), guide.x_event_dim).numel()
    with pyro.plate(guide.plate, guide.num_data or size, subsample_size=size, dim=-1):
        return pyro.sample(guide.site, guide.conditional(x))
