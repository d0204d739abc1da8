"""A generator with a density: a Real NVP flow, the squashing of its outputs into pixels, and bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform, ComposeTransform, SigmoidTransform, Transform

__all__ = ["RealNVP", "bits_per_dim", "squashing"]


@final
class RealNVP(nn.Module):
    r"""A generator that can be run backwards, so that its density is known.

    Affine couplings :math:`g`, each of which moves every second coordinate by what the others say, carry
    :math:`z \sim N(0, I)` to :math:`x = G(z) = t(g(z))`, and

    .. math:: \log p_G(x) = \log N(z; 0, I) - \log \left| \det \frac{\partial x}{\partial z} \right|,
        \qquad z = G^{-1}(x).

    It trains by maximum likelihood, minimising `-flow.log_prob(x).mean()`, and like any generator by
    `objectives.fit_gan`. Two flows have an exact log ratio, the difference of their `log_prob`.

    Args:
        num_features: Size of latents and of data.
        num_couplings: Two or more, so that every coordinate is moved.
        hidden: Widths of the hidden layers of each coupling's network.
        activation: Makes one activation module of those. A bounded one bounds the scales, exponentials of the networks'
            outputs, and thereby log ratios of flows far out.
        output: t, an elementwise map with a known slope, as from `squashing`; nothing by default.

    Raises:
        ValueError: with fewer than two features or couplings.
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
        if num_features < 2 or num_couplings < 2:
            raise ValueError(
                f"Expected 2 features and 2 couplings or more; got {num_features} and {num_couplings}. A coupling "
                "moves one half of the features by what the other half says."
            )
        try:
            from zuko.flows import NICE
        except ImportError as error:
            error.add_note("pip install pyro-gan[flows]")
            raise
        super().__init__()
        self.num_features = num_features
        self.output = output
        # Zuko's NICE has affine couplings by default, which makes it a Real NVP; it runs from data to latents.
        self.couplings = NICE(
            num_features, transforms=num_couplings, hidden_features=tuple(hidden), activation=activation
        )

    def forward(self, z: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Return the data that these latents stand for."""
        x = self.couplings().transform.inv(z)
        return x if self.output is None else self.output(x)

    def inverse(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Return the latents of data: standard normal, if the data have the flow's law."""
        return self.couplings().transform(x if self.output is None else self.output.inv(x))

    def log_prob(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch"]:
        """Return log p_G of data in nats and with every constant, per unit of volume of the data."""
        if self.output is None:
            return self.couplings().log_prob(x)
        inner = self.output.inv(x)
        return self.couplings().log_prob(inner) - self.output.log_abs_det_jacobian(inner, x).sum(-1)


def squashing(low: float, high: float, *, margin: float = 0.05) -> Transform:
    r"""Build the map of real numbers y to a bounded range in which pixels have densities.

    .. math:: \mathrm{sigmoid}(y) = \alpha + (1 - \alpha) \frac{x - low}{high - low}

    The margin :math:`\alpha` keeps the logits of black pixels finite; through it the flow reaches values a little
    below `low` too.

    Args:
        low: The darkest value, in the data's unit.
        high: The brightest, which no value reaches.
        margin: :math:`\alpha`, in [0, 1).

    Returns:
        A transform of torch's, elementwise.

    Raises:
        ValueError: if the range is empty or the margin outside [0, 1).

    References:
        Density estimation using Real NVP, L. Dinh, J. Sohl-Dickstein and S. Bengio, 2017,
        https://arxiv.org/abs/1605.08803

    Example:
        >>> import torch
        >>> squashing(0.0, 256.0)(torch.tensor([-20.0, 0.0, 20.0]))
        tensor([-13.4737, 121.2632, 256.0000])
    """
    if not (low < high and 0 <= margin < 1):
        raise ValueError(f"Expected low < high and a margin in [0, 1); got {low}, {high} and {margin}.")
    scale = (high - low) / (1 - margin)
    return ComposeTransform([SigmoidTransform(), AffineTransform(low - margin * scale, scale)])


def bits_per_dim(
    log_prob: Float[Tensor, "*batch"], num_features: int, *, bin_width: float = 1.0
) -> Float[Tensor, "*batch"]:
    r"""Return what a density pays for a datum of grey levels, in bits a pixel.

    Levels :math:`k` were spread evenly over their bins, :math:`x = (k + u) w`, :math:`u \sim U(0, 1)`, with bins
    :math:`w` wide in the unit of x. Then

    .. math:: - \frac{\log p(x) + d \log w}{d \log 2}

    is on average no less than what the levels' own law pays, and a uniform density over L levels pays
    :math:`\log_2 L`.

    Args:
        log_prob: log p(x) in nats, of the dequantised data in their own unit.
        num_features: d, pixels of a datum.
        bin_width: w; 1 for levels that are whole numbers.

    Returns:
        Bits, of the shape of `log_prob`.

    Raises:
        ValueError: if there are no pixels or a bin has no width.

    References:
        A note on the evaluation of generative models, L. Theis, A. van den Oord and M. Bethge, 2016,
        https://arxiv.org/abs/1511.01844

    Example:
        >>> import torch
        >>> uniform = torch.tensor([-10 * math.log(256.0)])
        >>> bits_per_dim(uniform, 10)
        tensor([8.])
    """
    if num_features < 1 or bin_width <= 0:
        raise ValueError(
            f"Expected pixels and a positive bin_width; got {num_features} pixels and a width of {bin_width}."
        )
    return -(log_prob / num_features + math.log(bin_width)) / math.log(2)
