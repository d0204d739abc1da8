"""A GAN as a Pyro distribution over data: the likelihood of an entropic GAN, estimated by fixed draws."""

from __future__ import annotations

import copy
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_gan._random import own_generators
from pyro_gan._typing import Generator
from pyro_gan.checks import random_seed, shown, tensor
from pyro_gan.likelihood.estimator import Estimator, LikelihoodEstimate
from pyro_gan.likelihood.importance import ImportanceWeighted
from pyro_gan.likelihood.joint import EntropicModel

__all__ = ["EntropicGAN"]


@final
class EntropicGAN(TorchDistribution):
    r"""The distribution of generated data under the observation noise that a transport loss implies.

    .. math:: f(y) = \int p_0(z)\; C\, e^{-\ell(y, G(z)) / \lambda}\, dz

    .. list-table::
       :header-rows: 1

       * - loss
         - log C
         - noise around G(z)
       * - `squared_l2`
         - :math:`-\tfrac d2 \log \pi\lambda`
         - normal, variance :math:`\lambda / 2`
       * - `half_squared_l2`
         - :math:`-\tfrac d2 \log 2\pi\lambda`
         - normal, variance :math:`\lambda`
       * - `l1`
         - :math:`-d \log 2\lambda`
         - Laplace, scale :math:`\lambda`
       * - `l2`, not squared
         - see `RadialExponential`
         - radial exponential, scale :math:`\lambda`

    With `reduction="mean"` the loss is divided by the event's size d, which is the same as :math:`d\lambda` in place
    of :math:`\lambda` in this table.

    `log_prob` is an **estimate** in nats with all constants, not the density: for the default estimator a lower bound
    on average. It is deterministic, since its base draws are fixed by `seed`, and differentiable in y, so that it can
    stand in a potential. `estimate` returns its error. Draws with `sample` are exact.

    Args:
        generator: `z: (batch, *latent) -> x: (batch, *event)`, row by row, without noise of its own. Held as a frozen
            twin: it shares weights with the user's and takes no gradient.
        prior: The latents' distribution, with an empty batch shape.
        loss: "squared_l2", "half_squared_l2", "l1" or "l2". Only functions of y - G(z) are possible: for any other loss
            the constant would depend on z.
        regularization: Lambda, positive: the entropic GAN's, and so the size of the noise.
        reduction: "sum" of the loss over the event, or its "mean".
        estimator: The estimator of `log_prob`; `ImportanceWeighted()` on 1000 prior draws if None.
        seed: Fixes the base draws. Distributions with one seed share their draws, so differences between them have
            smaller errors than either value.
        chunk_size: Rows per pass through the generator; if None 500 on a CPU, 10 000 elsewhere.
        validate_args: As everywhere in Pyro.

    Raises:
        ValueError: if the generator is in training mode where that matters, draws noise, couples the rows of a batch,
            gives NaN or does not fit the prior; if loss, reduction or lambda is not one of the above; if the estimator
            is not differentiable in y.

    References:
        Entropic GANs meet VAEs: A Statistical Approach to Compute Sample Likelihoods in GANs, Y. Balaji, H. Hassani,
        R. Chellappa and S. Feizi, 2019, https://arxiv.org/abs/1810.04147

    Example:
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> gan = EntropicGAN(torch.nn.Linear(2, 3), prior, regularization=0.5)
        >>> gan.log_prob(torch.zeros(7, 3)).shape
        torch.Size([7])
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(
        self,
        generator: Generator,
        prior: dist.TorchDistribution,
        *,
        loss: str = "squared_l2",
        regularization: float,
        reduction: str = "sum",
        estimator: Estimator | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        estimator = ImportanceWeighted() if estimator is None else _checked(estimator)
        if not estimator.is_differentiable:
            raise ValueError(
                f"Expected an estimator that is a differentiable function of y, such as ImportanceWeighted('prior') or "
                f"Surrogate; got {estimator!r}. Pass that one to estimate(y, ...)."
            )
        self._model = EntropicModel(
            generator, prior, loss=loss, regularization=regularization, reduction=reduction, chunk_size=chunk_size
        )
        self.estimator = estimator
        self.seed = random_seed(seed)
        super().__init__(torch.Size(), self._model.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """All of R^d."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> EntropicGAN:
        """Return this distribution for a batch, with the same base draws."""
        new = copy.copy(self)
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=self._validate_args)
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw data, noise included, `(*sample_shape, *batch, *event)`."""
        shape = self._extended_shape(torch.Size(sample_shape))
        batch = shape[: len(shape) - len(self.event_shape)]
        return self._model.simulate(batch.numel())[1].reshape(shape)

    def log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Return the estimated log likelihood of data `(*sample, *batch, *event)` in nats, `(*sample, *batch)`.

        Raises:
            ValueError: if the data are not finite real numbers of the generator's shape and dtype, or a likelihood is
                NaN.
        """
        batch = tensor("data", value).shape[: max(value.dim() - len(self.event_shape), 0)]
        rows = self._model.check_data(value.flatten(0, len(batch) - 1) if len(batch) > 1 else value)
        if not batch:
            rows = rows[None]
        with own_generators(self.seed):
            log_prob = self.estimator.log_prob(self._model, rows)
        return log_prob.reshape(batch).expand(torch.broadcast_shapes(batch, self.batch_shape))

    def estimate(self, y: Float[Tensor, "datum *event"], estimator: Estimator | None = None) -> LikelihoodEstimate:
        """Return log likelihoods with standard error, ESS and kind of bound.

        Args:
            y: Data `(datum, *event)`, or one data point, which counts as a batch of one.
            estimator: If None the one that `log_prob` uses, on the same base draws if those are draws of the prior.

        Returns:
            The estimate, the same at every call until `resample`. Call an estimator directly for fresh draws.

        Warns:
            UserWarning: where the effective number of particles is small.
        """
        with own_generators(self.seed):
            return (self.estimator if estimator is None else _checked(estimator))(self._model, y)

    def resample(self) -> None:
        """Use other base draws from now on, those of the next seed."""
        self.seed += 1

    def model(self) -> EntropicModel:
        """Return the joint Pyro model of latent and data point, which is a batched potential too."""
        return self._model

    def __repr__(self) -> str:
        model = self._model
        return (
            f"EntropicGAN(loss={model.loss.name!r}, reduction={model.loss.reduction!r}, "
            f"regularization={model.regularization:g}, estimator={self.estimator!r})"
        )


def _checked(estimator: Any) -> Estimator:
    if not isinstance(estimator, Estimator):
        raise ValueError(f"Expected an estimator of pyro_gan.likelihood; got {shown(estimator)}.")
    return estimator
