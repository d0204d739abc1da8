"""Linear generators with normal latents: likelihood, posterior, transport coupling and cost in closed form."""

from __future__ import annotations

import math
from typing import final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._random import own_generators
from pyro_gan.checks import rows, shaped, shown
from pyro_gan.likelihood.joint import EntropicModel
from pyro_gan.residuals.loss import check_regularization

__all__ = ["AffineGuide", "LinearGaussian"]


@final
class AffineGuide:
    """A normal distribution over latents with a mean that is affine in the data point: `z | y ~ N(A (y - m), S)`.

    Args:
        gain: A, `(latent, dim)`.
        centre: m, `(dim,)`.
        covariance: S, `(latent, latent)`, positive definite.

    Raises:
        ValueError: if shapes disagree or the covariance is not positive definite.

    Example:
        >>> guide = AffineGuide(torch.ones(2, 3), torch.zeros(3), torch.eye(2))
        >>> guide(torch.zeros(5, 3)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self,
        gain: Float[Tensor, "latent dim"],
        centre: Float[Tensor, " dim"],
        covariance: Float[Tensor, "latent latent"],
    ) -> None:
        self.gain = shaped("gain", gain, ("latent", "dim"))
        self.centre = shaped("centre", centre, gain.shape[1:])
        self.covariance = covariance
        self._scale_tril = _cholesky(covariance, len(gain))

    def __call__(self, y: Float[Tensor, "datum dim"]) -> dist.MultivariateNormal:
        """Return the distribution of the latent of each data point, batch shape `(datum,)`."""
        y = rows("data", y, minimum=0, event_shape=self.centre.shape)
        mean = (y - self.centre) @ self.gain.mT
        return dist.MultivariateNormal(mean, scale_tril=self._scale_tril.expand(len(y), -1, -1))


@final
class LinearGaussian:
    r"""The entropic GAN of `G(z) = W z + b`, `z ~ N(0, I)`, squared L2 loss: everything is normal.

    .. math:: f = \mathcal N\big(b,\; W W^\top + \tfrac\lambda2 I\big), \qquad
        z \mid y \sim \mathcal N\big(\tfrac2\lambda \Sigma_p W^\top (y - b),\; \Sigma_p\big), \quad
        \Sigma_p = \big(I + \tfrac2\lambda W^\top W\big)^{-1}

    Estimators are tested on it, and its posterior is a proposal for generators that are nearly linear.

    Args:
        weight: W, `(dim, latent)`.
        bias: b, `(dim,)`.
        regularization: Lambda of the squared L2 loss, summed: twice the noise variance.

    Raises:
        ValueError: if shapes disagree or lambda is not positive.

    References:
        Entropic optimal transport between unbalanced Gaussian measures has a closed form, H. Janati et al., 2020,
        https://arxiv.org/abs/2006.02572

    Example:
        >>> linear = LinearGaussian(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.5)
        >>> round(float(linear.log_prob(torch.zeros(1, 2, dtype=torch.float64))), 4)
        -2.061
    """

    def __init__(self, weight: Float[Tensor, "dim latent"], bias: Float[Tensor, " dim"], regularization: float) -> None:
        self.weight = shaped("weight", weight, ("dim", "latent"))
        self.bias = shaped("bias", bias, weight.shape[:1])
        self.regularization = check_regularization(regularization)

    @classmethod
    def of(cls, model: EntropicModel) -> LinearGaussian:
        """Read weight and bias off a model with a linear generator.

        Raises:
            ValueError: if the prior is not standard normal over vectors, the generator is not linear, or the loss is
                not squared L2.
        """
        if not isinstance(model, EntropicModel):
            raise ValueError(f"Expected model to be an EntropicModel; got {shown(model)}.")
        prior = model.prior
        dim = prior.event_shape.numel()
        with own_generators():
            z = prior.sample((8,))
        standard = dist.Normal(torch.zeros_like(z[0]), 1.0).to_event(1)
        if len(prior.event_shape) != 1 or not torch.allclose(prior.log_prob(z), standard.log_prob(z)):
            raise ValueError(
                f"Expected a standard normal prior over vectors; got {prior}. The closed form holds for that one only: "
                "put mean and scale of another normal into the generator; for other priors take ImportanceWeighted."
            )
        if model.loss.name not in ("squared_l2", "half_squared_l2"):
            raise ValueError(f"Expected a squared L2 loss, with normal noise; got {model.loss.name!r}.")
        with torch.no_grad():
            bias = model.decode(torch.zeros_like(z[0])).flatten()
            weight = model.decode(torch.eye(dim).to(z)).flatten(1).mT - bias[:, None]
            x = model.decode(z).flatten(1)
        if not torch.allclose(x, z @ weight.mT + bias, rtol=1e-3, atol=1e-4 * float(1 + x.abs().max())):
            raise ValueError("Expected a linear generator, W z + b; got one that bends. Take ImportanceWeighted.")
        return cls(weight, bias, model.loss.scale(model.event_size, model.regularization))

    @property
    def marginal(self) -> dist.MultivariateNormal:
        """The distribution f of the data, noise included."""
        noise = 0.5 * self.regularization * torch.eye(len(self.bias)).to(self.bias)
        return dist.MultivariateNormal(self.bias, covariance_matrix=self.weight @ self.weight.mT + noise)

    def log_prob(self, y: Float[Tensor, "datum dim"]) -> Float[Tensor, " datum"]:
        """Return the exact log likelihood in nats."""
        return self.marginal.log_prob(y)

    def posterior(self) -> AffineGuide:
        """Return the model's distribution of the latent given the data point."""
        precision = torch.eye(self.weight.shape[1]).to(self.weight) + self._twice @ self.weight
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        return AffineGuide(covariance @ self._twice, self.bias, covariance)

    def coupling(self, mean: Float[Tensor, " dim"], covariance: Float[Tensor, "dim dim"]) -> AffineGuide:
        r"""Return the optimal coupling of the generator with data `N(mean, covariance)`, as a guide.

        With the singular value decomposition :math:`\tfrac2\lambda S^{1/2} W = U \mathrm{diag}(t) V^\top` and
        :math:`\kappa = 2t / (1 + \sqrt{1 + 4t^2})`, the covariance of data point and latent is
        :math:`K = S^{1/2} U \mathrm{diag}(\kappa) V^\top`.

        Args:
            mean: Mean of the data.
            covariance: S, their covariance, positive definite.
        """
        root = self._root_of_data(mean, covariance)
        _cholesky(covariance, len(root))
        u, t, vh = torch.linalg.svd(root @ self._twice.mT, full_matrices=False)
        cross = root @ (u * (2 * t / (1 + (1 + 4 * t.square()).sqrt()))) @ vh
        gain = torch.linalg.solve(covariance, cross).mT
        remaining = torch.eye(self.weight.shape[1]).to(self.weight) - gain @ cross
        return AffineGuide(gain, mean, (remaining + remaining.mT) / 2)

    def surrogate(self, y: Float[Tensor, "datum dim"], guide: AffineGuide) -> Float[Tensor, " datum"]:
        """Return the lower bound on the log likelihood that a normal guide gives, in nats."""
        if not isinstance(guide, AffineGuide):
            raise ValueError(f"Expected guide to be an AffineGuide, such as posterior(); got {shown(guide)}.")
        mean, covariance = guide(y).mean, guide.covariance
        residual = y - mean @ self.weight.mT - self.bias
        spread = torch.trace(self.weight @ covariance @ self.weight.mT)
        log_constant = -0.5 * y.shape[-1] * math.log(math.pi * self.regularization)
        rest = torch.trace(covariance) - len(covariance) - torch.linalg.slogdet(covariance).logabsdet
        divergence = 0.5 * (rest + mean.square().sum(-1))
        return log_constant - (residual.square().sum(-1) + spread) / self.regularization - divergence

    def transport_cost(self, mean: Float[Tensor, " dim"], covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, ""]:
        r"""Return :math:`\min_\pi E_\pi \ell + \lambda KL(\pi \Vert P_Y \otimes P_G)` for data `N(mean, covariance)`.

        The minimum is over plans with the data and the generated data, without noise, as marginals. The expected
        surrogate of the coupling is log C minus this divided by lambda.
        """
        dim, s = len(self.bias), 0.5 * self.regularization
        eye = torch.eye(dim).to(self.weight)
        root = self._root_of_data(mean, covariance)
        generated = self.weight @ self.weight.mT
        d = _root(4 * root @ generated @ root + s * s * eye)
        traces = torch.trace(covariance) + torch.trace(generated) - torch.trace(d)
        log_det = torch.linalg.slogdet(d + s * eye).logabsdet
        return (mean - self.bias).square().sum() + traces + dim * s * (1 - math.log(2 * s)) + s * log_det

    def _root_of_data(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Return the symmetric root of a covariance of data, or raise if it or the mean does not fit."""
        shaped("mean", mean, self.bias.shape)
        return _root(shaped("covariance", covariance, 2 * self.bias.shape))

    @property
    def _twice(self) -> Tensor:
        return 2 / self.regularization * self.weight.mT


def _cholesky(covariance: Tensor, size: int) -> Tensor:
    """Return the lower Cholesky factor, or raise unless the covariance is positive definite and of that size."""
    factor, failed = torch.linalg.cholesky_ex(shaped("covariance", covariance, (size, size)))
    if bool(failed):
        raise ValueError("Expected a positive definite covariance; got one that is not. Add to its diagonal.")
    return factor


def _root(matrix: Tensor) -> Tensor:
    """Return the symmetric root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.mT
