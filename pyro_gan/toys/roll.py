"""The exact Swiss roll: data along a spiral in the plane, a flawed generator of them, and distances to the curve."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from pyro_gan import checks
from pyro_gan.toys.base import DensityRatio, Toy, draw, seeded_noise, zeros
from pyro_gan.toys.normals import normal_mixture

__all__ = ["roll_distance", "swiss_roll"]

#: The curve is PITCH (t cos t, t sin t) for t between FIRST and LAST. Each turn lies 2 pi PITCH outside the one before.
PITCH, FIRST, LAST = 1 / 7.5, 1.5 * math.pi, 4.5 * math.pi

#: Standard deviation of the data about the curve, and of the generator's narrow part.
DATA_SD, GENERATED_SD = 0.05, 0.1

#: Weight and standard deviation of the generator's broad Gaussian, which makes points between the layers.
BROAD_WEIGHT, BROAD_SD = 0.15, 1.0

#: Distance along the curve from one Gaussian of a mixture to the next, in their standard deviations. With spacing h the
#: density along the curve varies by a share of 2 exp(-2 pi^2 / h^2) = 7e-6.
SPACING = 1.25

#: Number of waves in the generator's log weights along the curve, and standard deviation of the log weights.
NUM_WAVES, LOG_WEIGHT_SD = 5, 0.8

#: Steps of Newton's method along the curve.
NUM_REFINEMENTS = 10


def swiss_roll(*, seed: int = 0, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build the exact Swiss roll: a spiral of data, and a generator that is blurred, uneven and leaves the curve.

    The data are uniform in arc length along one and a half turns of a spiral, whose layers are 0.84 apart, plus
    Gaussian noise of sd 0.05. Their density is a mixture of many Gaussians along the curve, too close to be told
    apart. The generator is the identity; its prior is what a GAN might make of the data: 85 % along the same curve,
    with sd 0.1 and a density that rises and falls, and 15 % N(0, I), much of which lies between the layers.

    Args:
        seed: Seed of the local generator that draws the weights along the curve. Torch's own generator does not move.
        dtype: Dtype of all tensors; torch's default if None.
        device: Device of all tensors.

    Returns:
        The toy; its `prior` and `posterior` (the distribution of the data) are both a `NormalMixture`.
        `roll_distance` judges samples of it.

    Raises:
        ValueError: if the seed is no count, or torch has no such dtype or device.

    References:
        Reparameterized Sampling for Generative Adversarial Networks, Y. Wang, Y. Wang, J. Yang and Z. Lin, 2021,
        https://arxiv.org/abs/2107.00352, which counts points that lie off the roll.

    Example:
        >>> toy = swiss_roll()
        >>> toy.log_ratio(toy.sample_data(100)).shape
        torch.Size([100])
    """
    share, points = _along_curve(SPACING * DATA_SD)
    like = zeros(dtype=dtype, device=device)
    data = normal_mixture(torch.zeros_like(share), points.to(like), torch.full_like(share, DATA_SD))

    share, points = _along_curve(SPACING * GENERATED_SD)
    wave = torch.arange(1, NUM_WAVES + 1, dtype=torch.float64)[:, None]
    waves = math.sqrt(2 / NUM_WAVES) * torch.cos(math.pi * wave * share)
    log_weights = (LOG_WEIGHT_SD * seeded_noise(seed, NUM_WAVES) @ waves).log_softmax(0)
    # The broad Gaussian is one more point, the origin.
    generated = normal_mixture(
        pad(log_weights + math.log1p(-BROAD_WEIGHT), (0, 1), value=math.log(BROAD_WEIGHT)),
        pad(points, (0, 0, 0, 1)).to(like),
        pad(torch.full_like(share, GENERATED_SD), (0, 1), value=BROAD_SD),
    )
    return Toy(nn.Identity(), DensityRatio(data, generated), generated, partial(draw, data), data)


@torch.no_grad()
def roll_distance(samples: Float[Tensor, "draw 2"]) -> Float[Tensor, " draw"]:
    """Return how far samples lie from the Swiss roll's curve, in standard deviations of the data's noise.

    The distances of the data follow the absolute value of a standard normal, because the curve is nearly straight on
    the scale of the noise. Halfway between two layers the distance is 8. Points beyond 4 are off the roll: REP-GAN
    calls them discontinuous. A share of 2 Phi(-4) = 6.3e-5 of the data lies there.

    Args:
        samples: `(draw, 2)`.

    Returns:
        Distances, `(draw,)`, in the samples' dtype.

    Raises:
        ValueError: if samples are not points of the plane, or one is not finite.

    Example:
        >>> toy = swiss_roll()
        >>> discontinuous = roll_distance(toy.prior.sample((4000,))) > 4
        >>> bool(0.1 < discontinuous.double().mean() < 0.2)
        True
    """
    x = checks.rows("samples", samples, minimum=0, event_shape=(2,)).double()
    # The nearest point is near the angle of the sample, on either layer. For samples in the middle it may be the end.
    angle = torch.atan2(x[:, 1], x[:, 0])
    starts = torch.stack([angle + 2 * math.pi, angle + 4 * math.pi, torch.full_like(angle, FIRST)])
    t = starts.clamp(FIRST, LAST)
    for _ in range(NUM_REFINEMENTS):
        offset, slope = x - _curve(t), _slope(t)
        # Newton's method on the outer side of the bend. On the inner side the curvature of the distance may vanish, and
        # the bend's term is left out.
        bend = (offset * _bend(t)).sum(-1).clamp(max=0)
        t = (t + (offset * slope).sum(-1) / (slope.square().sum(-1) - bend)).clamp(FIRST, LAST)
    return ((x - _curve(t)).norm(dim=-1).amin(0) / DATA_SD).to(samples)


def _along_curve(spacing: float) -> tuple[Float[Tensor, " point"], Float[Tensor, "point 2"]]:
    """Return the midpoints of equal arcs of about that length: the share of the curve before each, and the points."""
    start, end = _arc_length(torch.tensor([FIRST, LAST], dtype=torch.float64))
    num_points = math.ceil(float(end - start) / spacing)
    share = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    length = start.lerp(end, share)
    # Newton's method finds the curve's parameter; it converges because the length is convex in it.
    t = (2 * length / PITCH).sqrt()
    for _ in range(NUM_REFINEMENTS):
        t = t - (_arc_length(t) - length) / (PITCH * (1 + t * t).sqrt())
    return share, _curve(t)


def _curve(t: Tensor) -> Float[Tensor, "*t 2"]:
    return PITCH * t.unsqueeze(-1) * torch.stack([t.cos(), t.sin()], -1)


def _slope(t: Tensor) -> Float[Tensor, "*t 2"]:
    return PITCH * torch.stack([t.cos() - t * t.sin(), t.sin() + t * t.cos()], -1)


def _bend(t: Tensor) -> Float[Tensor, "*t 2"]:
    return PITCH * torch.stack([-2 * t.sin() - t * t.cos(), 2 * t.cos() - t * t.sin()], -1)


def _arc_length(t: Tensor) -> Tensor:
    """Return the length of the curve between 0 and t."""
    return PITCH / 2 * (t * (1 + t * t).sqrt() + t.asinh())
