"""Small targets, data and networks shared by tutorials, demo and tests; every density ratio here is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["MLP", "Digits", "GridMixture", "Toy", "affine_gaussian", "digits", "gaussian_shift", "grid"]


class Toy(NamedTuple):
    """A generator, its exact log density ratio, its prior and its data.

    `LatentPosterior(toy.generator, toy.log_ratio, toy.prior)` samples it.
    """

    #: Maps latents `(batch, dim)` to data `(batch, dim)`.
    generator: nn.Module
    #: Maps data `(batch, dim)` to log p_data - log p_G, `(batch,)`, in nats and with every constant.
    log_ratio: nn.Module
    #: The latents' distribution: `batch_shape ()`, `event_shape (dim,)`.
    prior: TorchDistribution
    #: Draws that many data from torch's generator, `(draw, dim)`.
    sample_data: Callable[[int], Tensor]
    #: The latent posterior p0(z) r(G(z))^(1/temperature), normalised: its `sample`, `mean`, `variance` are exact.
    posterior: TorchDistribution


def affine_gaussian(
    matrix: Float[Tensor, "dim dim"],
    bias: Float[Tensor, " dim"] | None = None,
    *,
    mean: Float[Tensor, " dim"] | None = None,
    covariance: Float[Tensor, "dim dim"] | None = None,
    temperature: float = 1.0,
) -> Toy:
    """Build an affine generator of Gaussian data, whose latent posterior is Gaussian.

    With z ~ N(0, I), x = A z + b and data N(m, C), the generated law is N(b, A A'), log r is a quadratic in x, and

        p0(z) r(A z + b)^beta  ~  N(mu, L^-1),   beta = 1 / temperature,
        L = (1 - beta) I + beta A' C^-1 A,       mu = beta L^-1 A' C^-1 (m - b).

    At temperature 1 that is N(A^-1 (m - b), A^-1 C A^-T): A carries it exactly onto the data.

    Args:
        matrix: A, invertible. Everything follows its dtype and device.
        bias: b; zero by default.
        mean: m; zero by default.
        covariance: C; the identity by default.
        temperature: The temperature at which `posterior` is stated; the ratio itself is not tempered.

    Returns:
        The toy.

    Raises:
        ValueError: if a shape is wrong, A is singular, C is not positive definite, or the posterior is improper
            (which only a temperature below 1 can make it).

    Example:
        >>> toy = affine_gaussian(1.5 * torch.eye(2), torch.ones(2))
        >>> toy.posterior.mean, toy.posterior.stddev
        (tensor([-0.6667, -0.6667]), tensor([0.6667, 0.6667]))
    """
    dim = len(matrix)
    eye = torch.eye(dim, dtype=torch.float64, device=matrix.device)
    a = matrix.double()
    b = torch.zeros_like(eye[0]) if bias is None else bias.double()
    m = torch.zeros_like(eye[0]) if mean is None else mean.double()
    c = eye if covariance is None else covariance.double()
    if a.shape != eye.shape or b.shape != (dim,) or m.shape != (dim,) or c.shape != eye.shape:
        raise ValueError(
            f"Expected matrix and covariance of shape ({dim}, {dim}), bias and mean of shape ({dim},); got "
            f"{tuple(a.shape)}, {tuple(c.shape)}, {tuple(b.shape)}, {tuple(m.shape)}."
        )
    if not torch.linalg.cond(a) < 1 / torch.finfo(matrix.dtype).eps:
        raise ValueError("Expected an invertible matrix; a singular one gives the generated law no density.")
    if temperature <= 0:
        raise ValueError(f"Expected a temperature above 0; got {temperature}.")
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

    # skip_init: a layer's random start would move torch's generator only to be overwritten.
    generator = nn.utils.skip_init(nn.Linear, dim, dim, dtype=matrix.dtype, device=matrix.device)
    with torch.no_grad():
        generator.weight.copy_(a)
        generator.bias.copy_(b)
    zero, one = matrix.new_zeros(dim), matrix.new_ones(dim)
    data = dist.MultivariateNormal(m.to(matrix), covariance_matrix=c.to(matrix))
    posterior = dist.MultivariateNormal(posterior_mean.to(matrix), precision_matrix=precision.to(matrix))
    prior = dist.Normal(zero, one).to_event(1)
    return Toy(generator, log_ratio.to(matrix), prior, partial(_draw, data), posterior)


def gaussian_shift(auc: float, *, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build the pair N(0, 1) and N(delta, 1) that the best critic tells apart with a given AUC.

    AUC = Phi(delta / sqrt 2) and log r(x) = delta x - delta^2 / 2; the generator is the identity. With this
    ratio the independence sampler accepts 2 (1 - AUC) of its proposals.

    Args:
        auc: Area under the critic's ROC curve, in [.5, 1).
        dtype: Of all tensors; torch's default if None.
        device: Of all tensors.

    Returns:
        The toy, with latents and data of shape `(batch, 1)`.

    Raises:
        ValueError: if the AUC is outside [.5, 1).

    Example:
        >>> toy = gaussian_shift(0.8)
        >>> toy.posterior.mean
        tensor([1.1902])
    """
    if not 0.5 <= auc < 1:
        raise ValueError(f"Expected an AUC in [0.5, 1); got {auc}. Two equal laws have 0.5, disjoint ones 1.")
    zero = torch.zeros(1, dtype=dtype, device=device)
    delta = (math.sqrt(2) * torch.special.ndtri(torch.tensor([auc], dtype=torch.float64))).to(zero)
    log_ratio = _Quadratic(torch.zeros_like(zero)[:, None], delta, -0.5 * delta.square().sum())
    data = dist.Normal(delta, torch.ones_like(zero)).to_event(1)
    prior = dist.Normal(zero, torch.ones_like(zero)).to_event(1)
    return Toy(nn.Identity(), log_ratio, prior, partial(_draw, data), data)


class GridMixture(TorchDistribution):
    """A mixture of narrow Gaussians on a square grid of means, with a broad Gaussian around the origin.

        p(x) = (1 - v) sum_ij w_ij N(x; (g_i, g_j), s^2 I) + v N(x; 0, t^2 I)

    A term's exponential is a product of one factor an axis, so a value costs 2 m exponentials and not m^2; the
    largest factor of each axis is taken out first, so that nothing underflows.

    Args:
        axis: g, the m means of an axis.
        weights: w, positive, with sum 1: rows follow the first axis.
        scale: s.
        broad_weight: v; 0 leaves the broad Gaussian out.
        broad_scale: t.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self,
        axis: Float[Tensor, " m"],
        weights: Float[Tensor, "m m"],
        *,
        scale: float,
        broad_weight: float = 0.0,
        broad_scale: float = 1.0,
    ) -> None:
        if not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
            raise ValueError("Expected positive weights with sum 1; divide them by their sum.")
        self.axis, self.weights, self.scale = axis, weights, scale
        self.broad_weight, self.broad_scale = broad_weight, broad_scale
        super().__init__(torch.Size(), torch.Size([2]), validate_args=False)

    @property
    def means(self) -> Float[Tensor, "mode 2"]:
        """The narrow Gaussians' means, in the order of `weights.flatten()`."""
        return torch.cartesian_prod(self.axis, self.axis)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw `(*sample_shape, 2)` values from torch's generator."""
        count = math.prod(sample_shape)
        index = torch.multinomial(self.weights.flatten(), max(count, 1), replacement=True)[:count]
        noise = torch.randn(count, 2, dtype=self.axis.dtype, device=self.axis.device)
        narrow = self.means[index] + self.scale * noise
        is_broad = torch.rand(count, 1, dtype=self.axis.dtype, device=self.axis.device) < self.broad_weight
        return torch.where(is_broad, self.broad_scale * noise, narrow).reshape(*sample_shape, 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats of `(*batch, 2)` values, `(*batch,)`."""
        exponent = (value.unsqueeze(-1) - self.axis).square() * (-0.5 / self.scale**2)
        # A constant as far as the gradient goes: it cancels.
        top = exponent.detach().amax(-1, keepdim=True)
        factor = (exponent - top).exp()
        total = ((factor[..., 0, :] @ self.weights) * factor[..., 1, :]).sum(-1)
        narrow = total.log() + top.sum((-1, -2)) - math.log(2 * math.pi * self.scale**2)
        if self.broad_weight == 0:
            return narrow
        broad = value.square().sum(-1) * (-0.5 / self.broad_scale**2)
        broad = broad + math.log(self.broad_weight / (2 * math.pi * self.broad_scale**2))
        return torch.logaddexp(narrow + math.log1p(-self.broad_weight), broad)


def grid(*, seed: int = 0, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build the exact 5 x 5 grid: a flawed generator of 25 Gaussians with both densities known.

    The data are uniform over the means {-2, ..., 2}^2, sd .05. The generator is the identity; its prior is what a
    GAN might make of them: 90 % on the same means, with log-normal(.8) weights and sd .08, and 10 % N(0, 1.5^2 I).

    Args:
        seed: Of the local generator that draws the weights; torch's own is not moved.
        dtype: Of all tensors; torch's default if None.
        device: Of all tensors.

    Returns:
        The toy; its `prior` and `posterior` (the data's law) are `GridMixture`s.

    Example:
        >>> toy = grid()
        >>> toy.log_ratio(toy.posterior.means).shape
        torch.Size([25])
    """
    axis = torch.linspace(-2, 2, 5, dtype=dtype, device=device)
    # Drawn on the CPU in float64, so that every device and dtype gets the same weights.
    noise = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weights = (0.8 * noise).exp()
    generated = GridMixture(
        axis, (weights / weights.sum()).to(axis), scale=0.08, broad_weight=0.1, broad_scale=1.5
    )
    data = GridMixture(axis, torch.full_like(generated.weights, 1 / 25), scale=0.05)
    return Toy(nn.Identity(), _DensityRatio(data, generated), generated, partial(_draw, data), data)


class Digits(NamedTuple):
    """Handwritten digits and what they show."""

    #: Grey levels in [-1, 1], `(draw, 1, 8, 8)`, float32.
    images: Float[Tensor, "draw 1 8 8"]
    #: The digit, 0 to 9, `(draw,)`.
    labels: Int[Tensor, " draw"]


def digits() -> Digits:
    """Return scikit-learn's 1 797 handwritten digits of 8 x 8 pixels, which ship inside it.

    Returns:
        Images and labels, in the data set's own order.

    Raises:
        ImportError: without scikit-learn.

    References:
        Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998,
        https://archive.ics.uci.edu/dataset/80

    Example:
        >>> digits().images.shape
        torch.Size([1797, 1, 8, 8])
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        error.add_note("pip install pyro-gan[demo]")
        raise
    bunch = load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return Digits(images, torch.as_tensor(bunch.target))


class MLP(nn.Module):
    """A stack of linear layers with an activation between them, and none after the last.

    Args:
        sizes: Width of the input, of every hidden layer and of the output.
        activation: Makes one activation module.

    Raises:
        ValueError: with fewer than two sizes.

    Example:
        >>> MLP([2, 64, 1])(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.SiLU) -> None:
        if len(sizes) < 2:
            raise ValueError(f"Expected at least an input and an output size; got {list(sizes)}.")
        layers: list[nn.Module] = []
        for width_in, width_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(width_in, width_out), activation()]
        super().__init__()
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map `(*batch, sizes[0])` to `(*batch, sizes[-1])`."""
        return self.layers(x)


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


class _DensityRatio(nn.Module):
    """The log ratio of two known densities."""

    def __init__(self, data: TorchDistribution, generated: TorchDistribution) -> None:
        super().__init__()
        self.data, self.generated = data, generated

    def forward(self, x: Tensor) -> Tensor:
        return self.data.log_prob(x) - self.generated.log_prob(x)


def _draw(law: TorchDistribution, num_draws: int) -> Tensor:
    return law.sample((num_draws,))


def _cholesky(matrix: Tensor, what: str) -> None:
    """Raise unless a matrix is symmetric and positive definite."""
    if not torch.allclose(matrix, matrix.T) or torch.linalg.cholesky_ex(matrix).info != 0:
        raise ValueError(f"Expected {what} to be symmetric and positive definite; got {matrix.tolist()}.")
