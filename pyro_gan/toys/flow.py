"""A generator with a density: a Real NVP flow, a map of its outputs to pixels, and bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform, ComposeTransform, SigmoidTransform, Transform

from pyro_gan import checks
from pyro_gan.toys.networks import check_layers

__all__ = ["RealNVP", "bits_per_dim", "squashing"]


@final
class RealNVP(nn.Module):
    r"""A generator with an inverse, so that its density is known.

    Affine couplings :math:`g` map :math:`z \sim N(0, I)` to :math:`x = G(z) = t(g(z))`. Each coupling moves every
    second coordinate by functions of the others. The density is

    .. math:: \log p_G(x) = \log N(z; 0, I) - \log \left| \det \frac{\partial x}{\partial z} \right|,
        \qquad z = G^{-1}(x).

    Train it by maximum likelihood, which minimises `-flow.log_prob(x).mean()`, or like any generator by
    `objectives.fit_gan`. Two flows have an exact log ratio, the difference of their `log_prob`.

    Args:
        num_features: Size of latents and of data.
        num_couplings: Two or more, so that every coordinate moves.
        hidden: Widths of the hidden layers of each coupling's network.
        activation: Makes one activation module of those layers. The scales are exponentials of the networks' outputs:
            a bounded activation bounds them, and so bounds the log ratios of two flows far from the data.
        output: t, an elementwise map with a known slope, such as that of `squashing`; the identity by default.

    Raises:
        ValueError: if there are fewer than two features or couplings, or another argument is of the wrong kind.
        ImportError: without zuko.

    References:
        Density estimation using Real NVP, L. Dinh, J. Sohl-Dickstein and S. Bengio, 2017,
        https://arxiv.org/abs/1605.08803;
        Comparison of Maximum Likelihood and GAN-based training of Real NVPs, I. Danihelka et al., 2017,
        https://arxiv.org/abs/1705.05263

    Example:
        >>> import torch
        >>> flow = RealNVP(2)
        >>> z = torch.randn(5, 2)
        >>> torch.allclose(flow.inverse(flow(z)), z, atol=1e-4)
        True
        >>> flow.log_prob(flow(z)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_couplings: int = 6,
        hidden: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] = nn.Tanh,
        output: Transform | None = None,
    ) -> None:
        cure = "A coupling moves one half of the features by functions of the other half."
        checks.count("num_features", num_features, minimum=2, cure=cure)
        checks.count("num_couplings", num_couplings, minimum=2, cure=cure)
        check_layers("hidden", hidden, activation)
        if output is not None and not isinstance(output, Transform):
            raise ValueError(f"Expected output to be a transform of torch's; got {checks.shown(output)}.")
        with checks.extra("flows"):
            from zuko.flows import NICE
        super().__init__()
        self.num_features = num_features
        self.output = output
        # Zuko's NICE has affine couplings by default, which makes it a Real NVP. It maps data to latents.
        self.couplings = NICE(
            num_features, transforms=num_couplings, hidden_features=tuple(hidden), activation=activation
        )

    def forward(self, z: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Return the data that the generator makes of these latents."""
        x = self.couplings().transform.inv(z)
        return x if self.output is None else self.output(x)

    def inverse(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Return the latents of data. They are standard normal if the data have the flow's distribution."""
        return self.couplings().transform(x if self.output is None else self.output.inv(x))

    def log_prob(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch"]:
        """Return log p_G of data in nats and with every constant, per unit of volume of the data."""
        if self.output is None:
            return self.couplings().log_prob(x)
        inner = self.output.inv(x)
        return self.couplings().log_prob(inner) - self.output.log_abs_det_jacobian(inner, x).sum(-1)


def squashing(low: float, high: float, *, margin: float = 0.05) -> Transform:
    r"""Build a map of real numbers y to a bounded range, in which pixels have densities.

    .. math:: \mathrm{sigmoid}(y) = \alpha + (1 - \alpha) \frac{x - low}{high - low}

    The margin :math:`\alpha` keeps the logits of black pixels finite. With it the flow also reaches values slightly
    below `low`.

    Args:
        low: The darkest value, in the data's unit.
        high: The upper end, in the data's unit. All values are below it.
        margin: :math:`\alpha`, in [0, 1).

    Returns:
        An elementwise transform of torch's.

    Raises:
        ValueError: if the range is empty or the margin is outside [0, 1).

    References:
        Density estimation using Real NVP, L. Dinh, J. Sohl-Dickstein and S. Bengio, 2017,
        https://arxiv.org/abs/1605.08803

    Example:
        >>> import torch
        >>> squashing(0.0, 256.0)(torch.tensor([-20.0, 0.0, 20.0]))
        tensor([-13.4737, 121.2632, 256.0000])
    """
    low, margin = checks.real("low", low), checks.real("margin", margin, minimum=0, below=1)
    high = checks.real("high", high, above=low)
    scale = (high - low) / (1 - margin)
    return ComposeTransform([SigmoidTransform(), AffineTransform(low - margin * scale, scale)])


def bits_per_dim(
    log_prob: Float[Tensor, "*batch"], num_features: int, *, bin_width: float = 1.0
) -> Float[Tensor, "*batch"]:
    r"""Return the code length of grey levels under a density, in bits per pixel.

    The density is of levels :math:`k` that were spread evenly over their bins, :math:`x = (k + u) w`,
    :math:`u \sim U(0, 1)`, with bins of width :math:`w` in the unit of x. Then

    .. math:: - \frac{\log p(x) + d \log w}{d \log 2}

    is on average at least the code length under the levels' own distribution. A uniform density over L levels has
    :math:`\log_2 L`.

    Args:
        log_prob: log p(x) in nats, of the dequantised data in their own unit.
        num_features: d, the pixels of a data point.
        bin_width: w; it is 1 for levels that are whole numbers.

    Returns:
        Bits, of the shape of `log_prob`.

    Raises:
        ValueError: if there are no pixels, a bin has no width, or `log_prob` is no tensor.

    References:
        A note on the evaluation of generative models, L. Theis, A. van den Oord and M. Bethge, 2016,
        https://arxiv.org/abs/1511.01844

    Example:
        >>> import torch
        >>> uniform = torch.tensor([-10 * math.log(256.0)])
        >>> bits_per_dim(uniform, 10)
        tensor([8.])
    """
    checks.count("num_features", num_features)
    bin_width = checks.real("bin_width", bin_width, above=0)
    return -(checks.tensor("log_prob", log_prob) / num_features + math.log(bin_width)) / math.log(2)
