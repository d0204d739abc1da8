"""The joint model of an entropic GAN, `z ~ prior; y ~ noise around G(z)`: Pyro model, batched potential, likelihood."""

from __future__ import annotations

import math
from typing import final

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import chunk_rows
from pyro_gan._random import own_generators
from pyro_gan._typing import Generator, Params
from pyro_gan.checks import count, rows, shaped, tensor
from pyro_gan.latent import LatentPrior
from pyro_gan.residuals.loss import ResidualLoss, check_regularization, residual_loss

__all__ = ["EntropicModel"]


@final
class EntropicModel(nn.Module):
    r"""A generator with the observation noise that a transport loss implies.

    .. math:: p(z, y) = p_0(z)\; C\, e^{-\ell(y, G(z)) / \lambda}

    Calling it is a Pyro model with sites `z` and `y`, for `SVI`, `NUTS` and `Predictive`. It is also the batched
    potential of the posterior over the latent of one data point, for the kernels of `pyro_gan.mcmc`:
    `VectorizedMCMC(MALA(model), ...).run(y=y)`. And its methods give the likelihood in the parts that the estimators of
    `pyro_gan.likelihood` use.

    The generator is held as a frozen twin: it shares weights with the user's and takes no gradient.

    Args:
        generator: `z: (batch, *latent) -> x: (batch, *event)`, row by row, without noise of its own.
        prior: The latents' distribution, with an empty batch shape.
        loss: "squared_l2", "half_squared_l2", "l1" or "l2".
        regularization: Lambda, positive.
        reduction: "sum" of the loss over the event, or its "mean".
        chunk_size: Rows per pass through the generator; if None 500 on a CPU, 10 000 elsewhere.

    Raises:
        ValueError: as `EntropicGAN`.

    Example:
        >>> import pyro.distributions as dist
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(nn.Linear(2, 3), prior, regularization=0.5)
        >>> z, y = model.simulate(5)
        >>> model.log_likelihood(z[:, None], y).shape
        torch.Size([5, 1])
    """

    site = "z"

    def __init__(
        self,
        generator: Generator,
        prior: dist.TorchDistribution,
        *,
        loss: str = "squared_l2",
        regularization: float,
        reduction: str = "sum",
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.loss: ResidualLoss = residual_loss(loss, reduction)
        self.regularization = check_regularization(regularization)
        self.latents = LatentPrior(generator, prior, site=self.site, chunk_size=chunk_size)
        self.latents.validate()
        self.prior = prior
        self.chunk_size, self.transforms = self.latents.chunk_size, self.latents.transforms
        with own_generators():
            z = prior.sample((8,))
        x = rows("generated data", self.latents.decode(z), cure="Look at generator(z) on draws of the prior.")
        if x.dim() < 2 or x.dtype != z.dtype:
            raise ValueError(
                f"Expected generated data of shape (batch, *event) and of the latents' dtype {z.dtype}; got shape "
                f"{tuple(x.shape)} and {x.dtype}."
            )
        self.event_shape = x.shape[1:]
        self.dtype = x.dtype
        super().train(False)

    def train(self, mode: bool = True) -> EntropicModel:
        """Stay in evaluation mode: the generator is frozen in use."""
        return super().train(False)

    @property
    def event_size(self) -> int:
        """Coordinates of a data point, d."""
        return math.prod(self.event_shape)

    @property
    def log_constant(self) -> float:
        """Log C in nats, the constant that makes the observation noise a density."""
        return self.loss.log_constant(self.event_size, self.regularization)

    def observation(self, x: Float[Tensor, "*batch_event"]) -> dist.TorchDistribution:
        """Return the noise distribution of y around generated data `(*batch, *event)`."""
        return self.loss.noise(x, self.regularization, event_dim=len(self.event_shape))

    def forward(self, y: Tensor | None = None) -> Tensor:
        """Run the Pyro model.

        Args:
            y: Observed: one data point `(*event)`, or data `(datum, *event)`, which open a plate "data" with one latent
                for each. Nothing is observed if None.

        Returns:
            The observation, `(*batch, *event)`.
        """
        if y is None or self.check_data(y).dim() == len(self.event_shape):
            return self._joint(y)
        with pyro.plate("data", len(y)):
            return self._joint(y)

    def _joint(self, y: Tensor | None) -> Tensor:
        return pyro.sample("y", self.observation(self.latents()), obs=y)

    def decode(self, z: Float[Tensor, "*batch_latent"]) -> Float[Tensor, "*batch_event"]:
        """Return the generated data of latents `(*batch, *latent)`, in chunks; differentiable in them."""
        return self.latents.evaluate(z)

    def log_likelihood(
        self, z: Float[Tensor, "datum particle *latent"], y: Float[Tensor, "datum *event"]
    ) -> Float[Tensor, "datum particle"]:
        """Return `log f(y | z)` in nats; each data point has its own particles.

        Args:
            z: Latents.
            y: Data.

        Returns:
            Nats, differentiable in both.
        """
        flat = self._flat("y", y)
        shaped("latents", z, (len(flat), "particle", *self.prior.event_shape))
        latents = z.flatten(0, 1)
        owner = torch.arange(len(flat), device=flat.device).repeat_interleave(z.shape[1])
        size = chunk_rows(self.chunk_size, latents)
        losses = [
            self.loss.rows(flat[mine] - self.latents.generate(part).flatten(1))
            for part, mine in zip(latents.split(size), owner.split(size), strict=True)
        ]
        return self._log_density(torch.cat(losses)).reshape(z.shape[:2])

    def pairwise_log_likelihood(
        self, x: Float[Tensor, "row *event"], y: Float[Tensor, "datum *event"]
    ) -> Float[Tensor, "datum row"]:
        """Return `log f(y | z)` in nats of each data point given each row of generated data.

        Args:
            x: Generated data, `decode(z)`.
            y: Data.

        Returns:
            Nats, differentiable in both.
        """
        return self._log_density(self.loss.pairwise(self._flat("y", y), self._flat("x", x)))

    @torch.no_grad()
    def simulate(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """Draw latents `(draw, *latent)` and data `(draw, *event)` from the joint model."""
        z = self.prior.sample((count("num_draws", num_draws),))
        return z, self.observation(self.decode(z)).sample()

    def check_data(self, y: Tensor) -> Tensor:
        """Return one data point `(*event)` or data `(datum, *event)`, or raise what is wrong with them."""
        if not tensor("data", y).is_floating_point():
            raise ValueError(
                f"Expected data as real numbers; got {y.dtype}. The model is a density on R^d, and whole numbers have "
                "no density: dequantise pixels first, (y + torch.rand(y.shape)) / 256."
            )
        batch = y[None] if y.dim() == len(self.event_shape) else y
        rows("data", batch, minimum=0, event_shape=self.event_shape)
        if y.dtype != self.dtype:
            raise ValueError(f"Expected data of the generator's dtype {self.dtype}; got {y.dtype}.")
        return y

    # What kernels see: the posterior over the latent of one data point.

    def validate(self, *, y: Tensor | None = None) -> None:
        """Raise if the posterior cannot be sampled: y is missing or a batch, or the generator became unfit."""
        if y is None or self.check_data(y).dim() != len(self.event_shape):
            got = "none" if y is None else f"shape {tuple(y.shape)}"
            raise ValueError(
                f"Expected one data point of shape {tuple(self.event_shape)}, run(y=y); got {got}. All chains of a "
                "batch have one posterior. Sample the latents of many data points with pyro.infer.NUTS, or weigh them "
                "with an estimator."
            )
        self.latents.validate()

    def potential_fn(self, params: Params, *, y: Tensor) -> Tensor:
        """Return `-log p0(z) - log f(y | z)` of unconstrained latents `{"z": (*batch, *latent)}`, `(*batch,)`."""
        return -(self.log_prior(params) + self.log_weight(params, y=y))

    def log_prior(self, params: Params) -> Tensor:
        """Return the prior's log density in unconstrained space, `(*batch,)`."""
        return self.latents.log_prior(params)

    def log_weight(self, params: Params, *, y: Tensor) -> Tensor:
        """Return `log f(y | z)` of unconstrained latents, `(*batch,)`, constants included.

        Args:
            params: `{"z": (*batch, *latent)}`.
            y: One data point `(*event)`, or one for each latent, `(*batch, *event)`.
        """
        x = self.decode(self.latents.constrained(params))
        return self._log_density(self.loss.rows(self._flat("y", y) - self._flat("x", x)))

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior, `{"z": (num_draws, *latent)}`."""
        return self.latents.sample_prior(num_draws)

    def _flat(self, name: str, value: Tensor) -> Tensor:
        """Return values `(*batch, *event)` with their event in one dimension."""
        if not shaped(name, value, ("*batch", *self.event_shape)).is_floating_point():
            raise ValueError(f"Expected {name} as real numbers; got {value.dtype}. Dequantise whole numbers first.")
        return value.flatten(value.dim() - len(self.event_shape))

    def _log_density(self, loss: Tensor) -> Tensor:
        return self.log_constant - loss / self.regularization
