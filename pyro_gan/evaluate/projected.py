"""Transport between projections to few dimensions, which few rows can estimate, as a bound on the whole distance."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.evaluate._blocks import between_blocks, deal, mean_over_repeats, without_floor
from pyro_gan.evaluate.transport import transport_cost

__all__ = ["ProjectedDistance", "projected_distance", "projection_constant"]

_MOST_ROWS = 250


class ProjectedDistance(NamedTuple):
    """Transport between projections of N rows, and the bounds on the distance of the laws that follow."""

    #: Mean over projections and repeats of the distance between N projected outputs and N projected real rows.
    value: float
    #: Its standard error, between repeats that share neither row nor projection.
    standard_error: float
    #: From all projections: (`value` less what two samples of one law have) / `projection_constant`, in expectation
    #: no larger than the distance of the laws.
    lower_bound: float
    #: Its standard error, between repeats.
    lower_bound_error: float
    #: From the projection that shows most, chosen and judged on different rows: in expectation no larger than the
    #: distance of the laws either. The larger bound where the difference is in few directions of few.
    largest: float
    #: Its standard error, between repeats.
    largest_error: float
    #: N, the rows of a block.
    num_rows: int


def projected_distance(
    outputs: Float[Tensor, "draw_a *event"],
    real: Float[Tensor, "draw_b *event"],
    *,
    dim: int = 1,
    order: Literal[1, 2] = 1,
    num_projections: int = 32,
    num_repeats: int = 8,
    num_rows: int | None = None,
    seed: int = 0,
) -> ProjectedDistance:
    r"""Compare two sets through random projections to a few dimensions, and bound the whole distance from below.

    .. math:: W_p(P, Q) \ge \frac{1}{c} \Bigl( E_U W_{p, N}(UP, UQ) - E_U W_{p, N}(UP, UP') \Bigr),
        \qquad c^p = E \lVert U e \rVert^p,

    where U projects orthogonally to a uniformly random k-dimensional subspace (k = `dim`), e is any unit vector, and
    P' a second draw (or Q, Q', if that subtracts less). A projected best coupling couples the projected laws and
    shortens a step :math:`x - y` to :math:`\lVert U (x - y) \rVert`, by the factor c in the mean of powers; what a
    finite N adds is bounded as in `transport_distance`, for each U.

    With k = 1 and p = 1 it is :math:`c = E \lvert \sigma_1 \rvert = \Gamma(n/2) / (\sqrt\pi\, \Gamma((n+1)/2))`, the
    mean of one coordinate of a uniform unit vector, where n is the dimension of the **data**, not the number of rows or
    of projections. It is at most :math:`(E \sigma_1^2)^{1/2} = n^{-1/2}`, so the bound that is often written with
    :math:`\sqrt n` in place of 1 / c holds too, and is smaller, by the factor :math:`\sqrt{2 / \pi} = .80` in many
    dimensions. For a mere shift the one with 1 / c becomes exact as N grows. Either is for the mean over directions:
    the *largest* projected distance bounds W as it is (c = 1), with no factor to gain.

    A projection to k dimensions is estimated at the rate N^(-1/k) (N^(-1/2) for k = 1), whatever n is: this is what
    makes it usable where `transport_distance` is not. It pays with what it sees. Two laws can differ much and agree
    nearly in all projections, so a small value is no proof of closeness, and the bound can lie far below W.

    Args:
        outputs: What is judged, `(draw_a, *event)`, or features of it; independent rows, no copies.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        dim: k, dimensions of a projection. With 1, rows are sorted; more need a transport problem for each.
        order: p, the power of the Euclidean distance: W_1 or W_2.
        num_projections: Projections of each repeat; repeats draw their own.
        num_repeats: Over how many disjoint repeats is averaged, 3 or more.
        num_rows: N; if None, what the rows allow, `draw // (2 * num_repeats)`; 250 at most if `dim` is above 1.
        seed: Of blocks and projections; no global generator is moved.

    Returns:
        The mean projected distance at N rows and two bounds, each with its standard error.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, there are too few rows, or an argument is out of range.
        ImportError: without POT, if `dim` is above 1.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures, N. Bonneel, J. Rabin, G. Peyre and H. Pfister, 2015,
        https://doi.org/10.1007/s10851-014-0506-3

        Max-Sliced Wasserstein Distance and its use for GANs, I. Deshpande et al., 2019,
        https://arxiv.org/abs/1904.05877

        Two-sample Test using Projected Wasserstein Distance, J. Wang, R. Gao and Y. Xie, 2020,
        https://arxiv.org/abs/2010.11970

    Example:
        >>> distance = projected_distance(torch.randn(4000, 30), torch.randn(4000, 30) + 1.0)
        >>> abs(distance.lower_bound - 30**0.5) < 1.0
        True
    """
    num_features = math.prod(outputs.shape[1:])
    if order not in (1, 2):
        raise ValueError(f"Expected order 1 or 2; got {order}.")
    if not 1 <= dim <= num_features:
        raise ValueError(f"Expected dim between 1 and the {num_features} entries of a row; got {dim}.")
    if num_projections < 1:
        raise ValueError(f"Expected 1 projection or more; got {num_projections}.")
    most_rows = None if dim == 1 else _MOST_ROWS
    p, q = deal(outputs, real, num_repeats=num_repeats, num_rows=num_rows, most_rows=most_rows, seed=seed)
    # Not the deal's own stream again.
    generator = torch.Generator().manual_seed(seed + 1)
    shape = (num_repeats, num_projections, num_features, dim)
    # The frame's signs are not uniform, but no distance sees them.
    frames = torch.linalg.qr(torch.randn(shape, dtype=torch.float64, generator=generator)).Q
    own = torch.stack([_distances(a, b, u, order) for a, b, u in zip(p, q, frames, strict=True)])
    across, within = own[..., :2].mean(-1), own[..., 2:]
    corrected, _ = without_floor(across.mean(1), within.mean(1))
    bound = mean_over_repeats(corrected / projection_constant(num_features, dim=dim, order=order))
    return ProjectedDistance(
        *mean_over_repeats(across.mean(1)), *bound, *_largest(p, q, frames, across, within, order), p.shape[2]
    )


def projection_constant(num_features: int, *, dim: int = 1, order: Literal[1, 2] = 1) -> float:
    r"""Return by how much a random orthogonal projection shortens, :math:`c = (E \lVert U e \rVert^p)^{1/p}`.

    .. math:: c^p = \frac{\Gamma((k + p) / 2)\, \Gamma(n / 2)}{\Gamma(k / 2)\, \Gamma((n + p) / 2)},

    because :math:`\lVert U e \rVert^2` follows a beta law with k / 2 and (n - k) / 2; with p = 2, c = sqrt(k / n).

    Args:
        num_features: n, dimensions of the data.
        dim: k, dimensions of the projection.
        order: p.

    Returns:
        The constant, 1 if k = n.

    Example:
        >>> projection_constant(2), projection_constant(100, dim=4, order=2)
        (0.63662, 0.2)
    """
    k, n, p = dim, num_features, order
    log_power = math.lgamma((k + p) / 2) + math.lgamma(n / 2) - math.lgamma(k / 2) - math.lgamma((n + p) / 2)
    return math.exp(log_power / p)


def _distances(
    p: Float[Tensor, "2 row feature"],
    q: Tensor,
    frames: Float[Tensor, "frame feature dim"],
    order: Literal[1, 2],
) -> Float[Tensor, "frame 4"]:
    """Return, for each projection, the distances of one repeat: twice across, within p, within q."""
    pairs = between_blocks(*(torch.einsum("brf,ufk->burk", blocks, frames) for blocks in (p, q)))
    if frames.shape[-1] == 1:
        gaps = [a.sort(1).values - b.sort(1).values for a, b in pairs]
        return torch.stack([gap.abs().pow(order).mean((1, 2)) ** (1 / order) for gap in gaps], dim=-1)
    rows = [[transport_cost(*ab, order=order) for ab in zip(*pair, strict=True)] for pair in pairs]
    return torch.tensor(rows, dtype=torch.float64).T


def _largest(
    p: Tensor, q: Tensor, frames: Tensor, across: Tensor, within: Tensor, order: Literal[1, 2]
) -> tuple[float, float]:
    """Judge each repeat's best projection, and which set's floor is the smaller there, on the next repeat's rows."""
    best = (across - within.min(-1).values).argmax(1)
    judged = []
    for r, choice in enumerate(best.tolist()):
        following = (r + 1) % len(best)
        distances = _distances(p[following], q[following], frames[r, choice : choice + 1], order)[0]
        judged.append(distances[:2].mean() - distances[2 + int(within[r, choice].argmin())])
    return mean_over_repeats(torch.stack(judged))
