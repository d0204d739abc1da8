"""Lipschitz constants that the weights of a critic certify, and a critic that is easy to certify."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pyro_gan.checks import count, instance, tensor

__all__ = ["MaxMin", "lipschitz_constant", "lipschitz_mlp"]


@final
class MaxMin(nn.Module):
    """Sort neighbouring pairs of features: an activation that keeps the length of every gradient.

    A network of orthonormal layers and ReLUs is 1-Lipschitz too, but ReLU shortens gradients, and the slope of the
    network stays far below 1.

    References:
        Sorting out Lipschitz function approximation, C. Anil, J. Lucas and R. Grosse, 2019,
        https://arxiv.org/abs/1811.05381

    Example:
        >>> MaxMin()(torch.tensor([[1.0, 3.0, 5.0, 4.0]]))
        tensor([[1., 3., 4., 5.]])
    """

    def forward(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Return each pair in order.

        Raises:
            ValueError: if the number of features is odd.
        """
        if tensor("x", x).dim() < 1 or x.shape[-1] % 2:
            raise ValueError(f"Expected an even number of features, to be paired; got x {tuple(x.shape)}.")
        return x.unflatten(-1, (-1, 2)).sort(-1).values.flatten(-2)


def lipschitz_constant(network: nn.Module) -> float:
    r"""Return a constant L with :math:`\lvert c(x) - c(y) \rvert \le L \lVert x - y \rVert` for all x and y.

    It is the product over layers of their largest singular values (from a full decomposition, in float64) and of the
    largest slopes of their activations. The bound holds everywhere but is not the smallest one: with ReLUs the true
    constant is often many times smaller.

    A penalty cannot give such a bound. WGAN-GP pulls slopes towards 1 at some points between the two sets and says
    nothing of other points, and slopes measured at any number of points bound the constant from below, not from above.
    Spectral normalisation by a few power iterations also falls a little short of the norm.

    Args:
        network: An `nn.Sequential` of `Linear`, `Flatten`, `Identity`, `MaxMin` and activations with a known slope.

    Returns:
        L, up to rounding.

    Raises:
        ValueError: if the network holds a layer of another kind, has hooks, or has weights that change when they are
            read.

    References:
        Spectral Normalization for Generative Adversarial Networks, T. Miyato et al., 2018,
        https://arxiv.org/abs/1802.05957

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> layer.weight.data = torch.tensor([[3.0, 4.0]])
        >>> lipschitz_constant(nn.Sequential(layer, nn.Sigmoid()))
        1.25
    """
    # torch has no public way to ask for hooks.
    if any(vars(instance("network", network, nn.Module))[name] for name in ("_forward_hooks", "_forward_pre_hooks")):
        raise ValueError(
            f"Expected layers without hooks, which may change what they compute; got a {type(network).__name__} with "
            "some. Use torch.nn.utils.parametrizations in place of the older spectral_norm and weight_norm."
        )
    if isinstance(network, nn.Sequential) and _is_plain(network, nn.Sequential):
        # children() would list a layer that stands in two places only once.
        return math.prod(lipschitz_constant(layer) for layer in network)
    if isinstance(network, nn.Linear) and _is_plain(network, nn.Linear):
        weight = network.weight.detach()
        if not torch.equal(weight, network.weight):
            raise ValueError(
                "Expected constant weights; got a Linear whose weight changes when it is read, as a spectral norm in "
                "training mode makes it. Call eval() first."
            )
        return float(torch.linalg.matrix_norm(weight.to("cpu", torch.float64), ord=2))
    if isinstance(network, nn.LeakyReLU) and _is_plain(network, nn.LeakyReLU):
        return max(1.0, abs(network.negative_slope))
    for layer_type, slope in _SLOPES.items():
        if isinstance(network, layer_type) and _is_plain(network, layer_type):
            return slope
    raise ValueError(
        f"Expected an nn.Sequential of Linear and activations with a known slope; got {type(network).__name__}. Use "
        "lipschitz_mlp, or work the constant out yourself and pass it to critic_distance as lipschitz=."
    )


def lipschitz_mlp(num_features: int, *, width: int = 64, num_hidden: int = 2) -> nn.Sequential:
    """Build a network of orthonormal layers and MaxMin: 1-Lipschitz for all weights, and able to have slope 1.

    Args:
        num_features: Entries of a row.
        width: Width of the hidden layers, even.
        num_hidden: Number of hidden layers, 1 or more.

    Returns:
        The network, which maps rows `(batch, num_features)` to `(batch, 1)`; any optimiser can train it.

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> round(lipschitz_constant(lipschitz_mlp(5)), 4)
        1.0
    """
    if count("width", width, minimum=2) % 2:
        raise ValueError(f"Expected an even width, because MaxMin pairs features; got {width}.")
    sizes = [count("num_features", num_features), *[width] * count("num_hidden", num_hidden)]
    layers: list[nn.Module] = []
    for num_in, num_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [_orthonormal(nn.Linear(num_in, num_out)), MaxMin()]
    return nn.Sequential(*layers, _orthonormal(nn.Linear(width, 1)))


# GELU, SiLU and Mish are missing: their slopes exceed 1.
_SLOPES: dict[type[nn.Module], float] = dict.fromkeys(
    (nn.Flatten, nn.Identity, nn.ReLU, nn.ReLU6, nn.Softplus, nn.Tanh, nn.Softsign, MaxMin), 1.0
) | {nn.Sigmoid: 0.25}


def _is_plain(network: nn.Module, layer_type: type[nn.Module]) -> bool:
    # A subclass with its own forward computes another function; a reparametrised layer keeps the forward of its type.
    return type(network).forward is layer_type.forward


@final
class _Orthonormal(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        tall = weight.shape[0] >= weight.shape[1]
        basis, triangle = torch.linalg.qr(weight if tall else weight.T)
        # The signs of Gram and Schmidt; otherwise a column would flip when an entry crosses 0.
        basis = basis * triangle.diagonal().sign()
        return basis if tall else basis.T


def _orthonormal(layer: nn.Linear) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", _Orthonormal())
