"""Gaussian toys: their log ratio is a polynomial, and their latent posterior has a formula."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan.toys.base import Toy, draw, zeros

__all__ = ["affine_gaussian", "gaussian_shift"]


def affine_gaussian(
    matrix: Float[Tensor, "dim dim"],
    bias: Float[Tensor, " dim"] | None = None,
    *,
    mean: Float[Tensor, " dim"] | None = None,
    covariance: Float[Tensor, "dim dim"] | None = None,
    temperature: float = 1.0,
) -> Toy:
    """Build an affine generator of Gaussian data, whose latent posterior is Gaussian.

    With z ~ N(0, I), x = A z + b and data N(m, C), the generated distribution is N(b, A A'), log r is quadratic in
    x, and

        p0(z) r(A z + b)^beta  ~  N(mu, L^-1),   beta = 1 / temperature,
        L = (1 - beta) I + beta A' C^-1 A,       mu = beta L^-1 A' C^-1 (m - b).

    At temperature 1 that is N(A^-1 (m - b), A^-1 C A^-T), which the generator maps exactly to the data.

    Args:
        matrix: A, invertible. All tensors have its dtype and device.
        bias: b; zero by default.
        mean: m; zero by default.
        covariance: C; the identity by default.
        temperature: The temperature of `posterior`. The ratio itself is not tempered.

    Returns:
        The toy.

    Raises:
        ValueError: if a shape is wrong, A is singular, C is not positive definite, or the posterior is improper
            (possible only at a temperature below 1).

    Example:
        >>> toy = affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
        >>> toy.posterior.mean, toy.posterior.stddev
        (tensor([-0.6667, -0.6667]), tensor([0.6667, 0.6667]))
    """
    dim = len(checks.rows("matrix", matrix))
    temperature = checks.real("temperature", temperature, above=0)
    eye = torch.eye(dim, dtype=torch.float64, device=matrix.device)
    a, c = _of_shape("matrix", matrix, eye), _of_shape("covariance", covariance, eye)
    b, m = _of_shape("bias", bias, 0 * eye[0]), _of_shape("mean", mean, 0 * eye[0])
    if not torch.linalg.cond(a) < 1 / torch.finfo(matrix.dtype).eps:
        raise ValueError(
            "Expected an invertible matrix; got a singular one, which gives the generated data no density."
        )
    _cholesky(c, "the data's covariance")

    data_precision, generated_precision = torch.linalg.inv(c), torch.linalg.inv(a @ a.T)
    log_ratio = _Quadratic(
        curvature=data_precision - generated_precision,
        linear=data_precision @ m - generated_precision @ b,
        constant=0.5 * (b @ generated_precision @ b - m @ data_precision @ m)
        + torch.linalg.slogdet(a).logabsdet
        - 0.5 * torch.linalg.slogdet(c).logabsdet,
    )
    beta = 1 / temperature
    pull = a.T @ data_precision
    precision = (1 - beta) * eye + beta * pull @ a
    _cholesky(precision, f"the latent posterior's precision at temperature {temperature}")
    posterior_mean = beta * torch.linalg.solve(precision, pull @ (m - b))

    # skip_init, because a layer's random start would move torch's generator and then be overwritten.
    generator = nn.utils.skip_init(nn.Linear, dim, dim, dtype=matrix.dtype, device=matrix.device)
    with torch.no_grad():
        generator.weight.copy_(a)
        generator.bias.copy_(b)
    zero, one = matrix.new_zeros(dim), matrix.new_ones(dim)
    data = dist.MultivariateNormal(m.to(matrix), covariance_matrix=c.to(matrix))
    posterior = dist.MultivariateNormal(posterior_mean.to(matrix), precision_matrix=precision.to(matrix))
    prior = dist.Normal(zero, one).to_event(1)
    return Toy(generator, log_ratio.to(matrix), prior, partial(draw, data), posterior)


def gaussian_shift(auc: float, *, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build the pair N(0, 1) and N(delta, 1) with a given AUC of the best critic.

    AUC = Phi(delta / sqrt 2) and log r(x) = delta x - delta^2 / 2; the generator is the identity. With this
    ratio the independence sampler accepts 2 (1 - AUC) of its proposals.

    Args:
        auc: Area under the critic's ROC curve, in [0.5, 1).
        dtype: Dtype of all tensors; torch's default if None.
        device: Device of all tensors.

    Returns:
        The toy, with latents and data of shape `(batch, 1)`.

    Raises:
        ValueError: if the AUC is outside [0.5, 1), or torch has no such dtype or device.

    Example:
        >>> toy = gaussian_shift(0.8)
        >>> toy.posterior.mean
        tensor([1.1902])
    """
    cure = "Equal distributions have 0.5, disjoint ones 1."
    auc = checks.real("auc", auc, minimum=0.5, below=1, cure=cure)
    zero = zeros(1, dtype=dtype, device=device)
    delta = (math.sqrt(2) * torch.special.ndtri(torch.tensor([auc], dtype=torch.float64))).to(zero)
    log_ratio = _Quadratic(torch.zeros_like(zero)[:, None], delta, -0.5 * delta.square().sum())
    data = dist.Normal(delta, torch.ones_like(zero)).to_event(1)
    prior = dist.Normal(zero, torch.ones_like(zero)).to_event(1)
    return Toy(nn.Identity(), log_ratio, prior, partial(draw, data), data)


@final
class _Quadratic(nn.Module):
    """x -> constant + linear' x - x' curvature x / 2."""

    curvature: Tensor
    linear: Tensor
    constant: Tensor

    def __init__(self, curvature: Tensor, linear: Tensor, constant: Tensor) -> None:
        super().__init__()
        self.register_buffer("curvature", curvature)
        self.register_buffer("linear", linear)
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        return self.constant + x @ self.linear - 0.5 * ((x @ self.curvature) * x).sum(-1)


def _of_shape(name: str, value: Tensor | None, default: Tensor) -> Tensor:
    if value is None:
        return default
    if checks.rows(name, value).shape != default.shape:
        raise ValueError(f"Expected {name} of shape {tuple(default.shape)}; got {tuple(value.shape)}.")
    return value.double()


def _cholesky(matrix: Tensor, what: str) -> None:
    """Raise unless a matrix is symmetric and positive definite."""
    if not torch.allclose(matrix, matrix.T) or torch.linalg.cholesky_ex(matrix).info != 0:
        raise ValueError(f"Expected {what} to be symmetric and positive definite; got {matrix.tolist()}.")
