"""The joint model of an entropic GAN, `z ~ prior; y ~ noise around G(z)`: Pyro model, batched potential, likelihood."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import by_chunk, chunk_rows
from pyro_gan._random import rng_fork
from pyro_gan._typing import Generator, Params
from pyro_gan.latent import LatentPosterior
from pyro_gan.residuals.loss import ResidualLoss, check_regularization, residual_loss
from pyro_gan.residuals.radial import RadialExponential

__all__ = ["EntropicModel"]


class EntropicModel(nn.Module):
    r"""A generator with the observation noise that a transport loss implies.

    .. math:: p(z, y) = p_0(z)\; C\, e^{-\ell(y, G(z)) / \lambda}

    Calling it is a Pyro model with sites `z` and `y`, for `SVI`, `NUTS` and `Predictive`. It is also a batched
    potential of the posterior of one datum's latent, for the kernels of `pyro_gan.mcmc`:
    `VectorizedMCMC(MALA(model), ...).run(y=y)`. And it has the likelihood that the estimators of
    `pyro_gan.likelihood` take apart.

    The generator is held as a frozen twin: it shares weights with the user's and takes no gradient.

    Args:
        generator: As for `EntropicGAN`, and so are the others.
        prior: The latents' law.
        loss: The loss's name.
        regularization: Lambda.
        reduction: "sum" or "mean".
        chunk_size: Rows per pass through the generator.

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
        check_regularization(regularization)
        self.regularization = float(regularization)
        # It finds what makes generator and prior unfit: noise of their own, coupled rows, training mode, two dtypes.
        self._latent = LatentPosterior(generator, _row_sum, prior, site=self.site, chunk_size=chunk_size)
        self.prior = prior
        self.chunk_size = chunk_size
        self.transforms = self._latent.transforms
        with rng_fork(), torch.no_grad():
            z = prior.sample((8,))
            x = self._latent.generator(z)
        if x.dim() < 2:
            raise ValueError(f"Expected generated data of shape (batch, *event); got {tuple(x.shape)}.")
        _refuse_nan(x, "data")
        self.event_shape = x.shape[1:]
        self.dtype = x.dtype
        super().train(False)

    def train(self, mode: bool = True) -> EntropicModel:
        """Stay in evaluation mode: the generator is frozen in use."""
        return super().train(False)

    @property
    def event_size(self) -> int:
        """Coordinates of a datum, d."""
        return math.prod(self.event_shape)

    @property
    def log_constant(self) -> float:
        """Log C in nats, the constant that makes the observation noise a density."""
        return self.loss.log_constant(self.event_size, self.regularization)

    def observation(self, x: Float[Tensor, "*batch_event"]) -> dist.TorchDistribution:
        """Return the law of y around generated data `(*batch, *event)`: normal, Laplace or radial exponential."""
        scale = self.loss.scale(self.event_size, self.regularization)
        event_dim = len(self.event_shape)
        if self.loss.name == "l2":
            return RadialExponential(x, scale, event_dim=event_dim)
        if self.loss.name == "l1":
            return dist.Laplace(x, scale).to_event(event_dim)
        return dist.Normal(x, math.sqrt(scale / 2)).to_event(event_dim)

    def forward(self, y: Tensor | None = None) -> Tensor:
        """Run the Pyro model.

        Args:
            y: Observed: one datum `(*event)`, or data `(datum, *event)`, which opens a plate "data" over latents of
                their own. Nothing is observed if None.

        Returns:
            The observation, `(*batch, *event)`.
        """
        if y is None:
            return self._joint(None)
        y = self.check_data(y)
        if y.dim() == len(self.event_shape):
            return self._joint(y)
        with pyro.plate("data", len(y)):
            return self._joint(y)

    def _joint(self, y: Tensor | None) -> Tensor:
        z = pyro.sample(self.site, self.prior)
        return pyro.sample("y", self.observation(self.decode(z)), obs=y)

    def decode(self, z: Float[Tensor, "*batch_latent"]) -> Float[Tensor, "*batch_event"]:
        """Return the generated data of latents `(*batch, *latent)`, in chunks; differentiable in them."""
        latent = self.prior.event_shape
        batch = z.shape[: z.dim() - len(latent)]
        if z.shape[len(batch) :] != latent:
            raise ValueError(f"Expected latents of shape (*batch, *{tuple(latent)}); got {tuple(z.shape)}.")
        x = by_chunk(self._latent.generator, z.reshape(-1, *latent), self.chunk_size)
        return x.reshape(batch + self.event_shape)

    def log_likelihood(
        self, z: Float[Tensor, "datum particle *latent"], y: Float[Tensor, "datum *event"]
    ) -> Float[Tensor, "datum particle"]:
        """Return `log f(y | z)` in nats for particles that every datum has of its own.

        Args:
            z: Latents.
            y: Data.

        Returns:
            Nats, differentiable in both.
        """
        num_data, num_particles = z.shape[:2]
        rows, flat = z.flatten(0, 1), y.flatten(1)
        size = chunk_rows(self.chunk_size, rows)
        parts = []
        for start in range(0, len(rows), size):
            x = self._latent.generator(rows[start : start + size]).flatten(1)
            owner = torch.arange(start, start + len(x), device=y.device) // num_particles
            parts.append(self.loss.rows(flat[owner] - x))
        return self._log_density(torch.cat(parts)).reshape(num_data, num_particles)

    def pairwise_log_likelihood(
        self, x: Float[Tensor, "row *event"], y: Float[Tensor, "datum *event"]
    ) -> Float[Tensor, "datum row"]:
        """Return `log f(y | z)` in nats of every datum given every one of already generated data.

        Args:
            x: Generated data, `decode(z)`.
            y: Data.

        Returns:
            Nats, differentiable in both.
        """
        return self._log_density(self.loss.pairwise(y.flatten(1), x.flatten(1)))

    @torch.no_grad()
    def simulate(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """Draw latents `(draw, *latent)` and data `(draw, *event)` from the joint model."""
        z = self.prior.sample((num_draws,))
        return z, self.observation(self.decode(z)).sample()

    def check_data(self, y: Tensor) -> Tensor:
        """Return one datum `(*event)` or data `(datum, *event)`, or raise what is wrong with them."""
        if not isinstance(y, Tensor) or not y.is_floating_point():
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"Expected data as a tensor of real numbers; got {kind}. The model is a density on R^d, which whole "
                "numbers have none of: dequantise pixels first, (y + torch.rand(y.shape)) / 256."
            )
        event_dim = len(self.event_shape)
        if y.dim() not in (event_dim, event_dim + 1) or y.shape[y.dim() - event_dim :] != self.event_shape:
            raise ValueError(
                f"Expected data of shape (datum, {', '.join(map(str, self.event_shape))}), what the generator gives, "
                f"or one such datum; got {tuple(y.shape)}."
            )
        if y.dtype != self.dtype:
            raise ValueError(f"Expected data of the generator's dtype {self.dtype}; got {y.dtype}.")
        if not bool(torch.isfinite(y).all()):
            raise ValueError("Expected finite data; got NaN or infinity. Drop or mend those rows.")
        return y

    # What kernels see: the posterior of one datum's latent.

    def validate(self, *, y: Tensor | None = None) -> None:
        """Raise if the posterior of `y` cannot be sampled: no datum, several, or a generator that became unfit."""
        if y is None or y.dim() != len(self.event_shape):
            got = "none" if y is None else f"shape {tuple(y.shape)}"
            raise ValueError(
                f"Expected one datum of shape {tuple(self.event_shape)}, run(y=y); got {got}. A batch of chains has "
                "one posterior; sample the latents of many data with pyro.infer.NUTS, or weigh them with an estimator."
            )
        self.check_data(y)
        self._latent.validate()

    def potential_fn(self, params: Params, *, y: Tensor) -> Tensor:
        """Return `-log p0(z) - log f(y | z)` of unconstrained latents `{"z": (*batch, *latent)}`, `(*batch,)`."""
        return -(self.log_prior(params) + self.log_weight(params, y=y))

    def log_prior(self, params: Params) -> Tensor:
        """Return the prior's log density in unconstrained space, `(*batch,)`."""
        return self._latent.log_prior(params)

    def log_weight(self, params: Params, *, y: Tensor) -> Tensor:
        """Return `log f(y | z)` of unconstrained latents, `(*batch,)`, constants included.

        Args:
            params: `{"z": (*batch, *latent)}`.
            y: One datum `(*event)`, or one for every latent, `(*batch, *event)`.
        """
        x = self.decode(self.transforms[self.site].inv(params[self.site]))
        return self._log_density(self.loss.rows((y - x).flatten(-len(self.event_shape))))

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior, `{"z": (num_draws, *latent)}`."""
        return self._latent.sample_prior(num_draws)

    def _log_density(self, loss: Tensor) -> Tensor:
        return self.log_constant - loss / self.regularization


def _row_sum(x: Tensor, /, **context: Tensor) -> Tensor:
    return x.flatten(1).sum(-1)


def _refuse_nan(value: Tensor, what: str) -> None:
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"Expected finite generated {what}; got NaN or infinity for prior draws. Look at generator(z) first."
        )
