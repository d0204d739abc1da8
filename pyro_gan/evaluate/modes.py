"""Samples against a mixture of known means: how many are good, and whether every mode gets its share."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import real
from pyro_gan.evaluate._rows import as_rows
from pyro_gan.evaluate.scores import histogram

__all__ = ["ModeReport", "assign_modes", "mode_jsd", "mode_report"]


@final
class ModeReport(NamedTuple):
    """The result of `mode_report`."""

    #: Share of samples within `num_sds` standard deviations of a mean.
    high_quality: float
    #: Binomial standard error of that share, for independent samples.
    standard_error: float
    #: Modes that hold at least one high-quality sample.
    num_modes: int
    #: Standard deviation (ddof 0) inside a mode, averaged over its coordinates and over the modes found.
    mode_sd: float
    #: Jensen-Shannon divergence in nats between the k + 1 frequencies and uniform over the k modes.
    jsd: float
    #: Samples of each mode, in the order of the means, and last the samples that are not high quality, `(k + 1,)`.
    counts: Int[Tensor, "category"]


def assign_modes(
    samples: Float[Tensor, "draw dim"], means: Float[Tensor, "mode dim"], *, sd: float, num_sds: float = 4.0
) -> Int[Tensor, " draw"]:
    """Assign every sample to its nearest mean, or to no mean.

    Args:
        samples: The samples to judge, `(draw, dim)`.
        means: The mixture's means, `(mode, dim)`.
        sd: Standard deviation of a component, in every coordinate.
        num_sds: A sample farther than `num_sds * sd` (Euclidean) from every mean belongs to no mean.

    Returns:
        Index of the mean, or `len(means)` for no mean, `(draw,)`.

    Raises:
        ValueError: if shapes disagree, a number is not finite, or `sd` or `num_sds` is not positive.

    Example:
        >>> means = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> assign_modes(torch.tensor([[0.1, 0.0], [0.5, 0.0], [1.0, 0.2]]), means, sd=0.05)
        tensor([0, 2, 1])
    """
    centres = as_rows(means, "means")
    rows = as_rows(samples, "samples", event_shape=tuple(means.shape[1:]))
    radius = real("num_sds", num_sds, above=0) * real("sd", sd, above=0)
    # Differences, not the quadratic expansion, which loses digits that a 4-sigma rule needs.
    distance = torch.cdist(rows, centres.to(rows), compute_mode="donot_use_mm_for_euclid_dist")
    nearest, index = distance.min(-1)
    return index.where(nearest <= radius, index.new_full((), len(means)))


def mode_jsd(counts: Int[Tensor, "category"] | Float[Tensor, "category"]) -> float:
    """Return the Jensen-Shannon divergence between observed frequencies and uniform over the modes.

        JSD(p, q) = (KL(p || m) + KL(q || m)) / 2,   m = (p + q) / 2,   0 <= JSD <= log 2 nats

    with p the k + 1 observed frequencies and q = (1/k, ..., 1/k, 0).

    Args:
        counts: Samples of each of k modes and, last, samples of no mode; or their shares, `(k + 1,)`.

    Returns:
        The divergence in nats. It does not reach 0 for n exact samples: about k / (8 n) remains.

    Raises:
        ValueError: with fewer than two categories, no sample, or a count that is negative or not finite.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner, J. Hung, E. Frank, Y. Saatci and
        J. Yosinski, 2019, https://arxiv.org/abs/1811.11357

    Example:
        >>> mode_jsd(torch.tensor([10, 10, 0])), mode_jsd(torch.tensor([0, 0, 20]))
        (0.0, 0.6931...)
    """
    observed = histogram("counts", counts, minimum=2) / counts.sum()
    uniform = torch.full_like(observed, 1 / (len(counts) - 1))
    uniform[-1] = 0
    middle = (observed + uniform) / 2
    divergence = torch.xlogy(observed, observed / middle) + torch.xlogy(uniform, uniform / middle)
    # 0 / 0 in a category that neither distribution has.
    return max(float(divergence.nan_to_num(0.0).sum() / 2), 0.0)


def mode_report(
    samples: Float[Tensor, "draw dim"], means: Float[Tensor, "mode dim"], *, sd: float, num_sds: float = 4.0
) -> ModeReport:
    """Judge samples of a mixture of equal, isotropic Gaussians.

    A sample is of high quality if it lies within `num_sds` standard deviations of a mean. Papers differ in that
    radius (2 sigma, 4 sigma, a chi-squared quantile): shares of different radii do not compare.

    Args:
        samples: The samples to judge, `(draw, dim)`; the standard error holds for independent samples.
        means: The mixture's means, `(mode, dim)`.
        sd: Standard deviation of a component, in every coordinate.
        num_sds: Radius of a mode in standard deviations.

    Returns:
        The report.

    Raises:
        ValueError: as `assign_modes`.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner, J. Hung, E. Frank, Y. Saatci and
        J. Yosinski, 2019, https://arxiv.org/abs/1811.11357

    Example:
        >>> from pyro_gan import toys
        >>> toy = toys.grid()
        >>> report = mode_report(toy.prior.sample((4000,)), toy.posterior.means, sd=0.05)
        >>> 0.8 < report.high_quality < 0.93
        True
    """
    index = assign_modes(samples, means, sd=sd, num_sds=num_sds)
    num_modes = len(means)
    counts = torch.bincount(index, minlength=num_modes + 1)
    share = 1 - int(counts[-1]) / len(samples)

    # Offsets from the given means stay small and lose no digits.
    good = index < num_modes
    offset = samples.detach().double()[good] - means.to(samples.device).double()[index[good]]
    size = counts[:-1].clamp(min=1).double().unsqueeze(-1)
    zero = offset.new_zeros(num_modes, samples.shape[1])
    first = zero.index_add(0, index[good], offset) / size
    second = zero.index_add(0, index[good], offset.square()) / size
    spread = (second - first.square()).clamp(min=0).sqrt().mean(-1)
    # One sample has no spread; counting it as 0 would reward a sampler that drops a mode almost entirely.
    found = counts[:-1] > 1
    return ModeReport(
        high_quality=share,
        standard_error=math.sqrt(share * (1 - share) / len(samples)),
        num_modes=int((counts[:-1] > 0).sum()),
        mode_sd=float(spread[found].mean()) if bool(found.any()) else math.nan,
        jsd=mode_jsd(counts),
        counts=counts,
    )
