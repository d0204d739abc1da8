"""Is the mean of a ratio over generated data 1? A condition on every exact ratio, judged up to a harmless constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.importance import has_enough_draws, log_mean_weight

__all__ = ["MeanRatio", "judge_mean_ratio"]

#: A mean is wrong if it is off by more than this factor and four of its errors. Ratios that help are off by some per
#: cent (a capped tail, a part of the data out of the generator's reach); those that harm were off by seven and more.
MAX_FACTOR, NUM_ERRORS = 1.5, 4.0

#: Largest number of steps to the constant: even halvings alone would end at the rounding of a double.
MAX_STEPS = 60


@final
@dataclass(frozen=True, eq=False)
class MeanRatio:
    """The mean of a ratio over generated data, which is 1 for the exact ratio, and what that says."""

    #: E_G[r] and its standard error, which does not see a tail without draws; after removing the constant, if any.
    value: float
    standard_error: float
    #: The constant in nats that real rows show, and its standard error: it was added to the log ratio. Samplers never
    #: notice a constant. None without real rows.
    constant: float | None
    constant_se: float | None
    #: "near 1"; "wrong", off by more than a factor of 1.5 and four errors; "not normalised", which is the same for a
    #: function that does not claim to be a log ratio; or "not determined", because too few draws carry the mean.
    verdict: str


def judge_mean_ratio(
    generated: Float[Tensor, " generated"], real: Float[Tensor, " real"] | None = None, *, is_normalised: bool = True
) -> MeanRatio:
    r"""Judge whether the mean of a ratio over generated data can be 1, as that of the exact ratio is.

    With real rows a constant error is removed first, because it harms no sampler. The constant b is the intercept of
    the logistic regression of "real" on the log ratio, with slope 1 and the offset :math:`\log(m/n)` of the numbers of
    rows. So what is compared are two estimates of one constant: b, which both sides determine where they overlap, and
    :math:`-\log E_G[r]`, which only the largest ratios of generated data determine. A wrong slope or tail moves the two
    apart; so does a critic that separates the sides. The standard error of their sum counts that they share rows.

    Args:
        generated: Log ratios of generated rows, in nats, of temperature 1; minus infinity is a ratio of zero.
        real: Log ratios of real rows that made neither the ratio nor its calibration, finite; or None.
        is_normalised: Whether the log ratio claims to have no constant error. If not, and without real rows, a mean
            that is off is no fault.

    Returns:
        The record. With fewer than 100 effective draws, or ten draws that hold half of the sum, the verdict is "not
        determined".

    Raises:
        ValueError: if a shape is wrong, a log ratio is NaN or plus infinity, or no ratio is above zero.

    References:
        Simulating Normalizing Constants: From Importance Sampling to Bridge Sampling to Path Sampling, A. Gelman and
        X.-L. Meng, 1998, https://doi.org/10.1214/ss/1028905934

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(10_000, generator=generator)
        >>> y = 1 + torch.randn(2000, generator=generator)
        >>> judge_mean_ratio(x - 0.5).verdict, judge_mean_ratio(x + 1.5, y + 1.5).verdict
        ('near 1', 'near 1')
        >>> judge_mean_ratio(x + 1.5).verdict
        'wrong'
    """
    is_determined = has_enough_draws(generated)
    generated = generated.detach().to("cpu", torch.float64)
    number = len(generated)
    log_mean = float(log_mean_weight(generated).value)
    if not math.isfinite(log_mean):
        raise ValueError(f"Expected a ratio above zero; got {number} zeros. Look at log_ratio(generator(z)).")
    # What each row adds to the estimate, relative to the mean: the delta method sums their squares.
    influence = ((generated - log_mean).exp() - 1) / number
    constant = constant_se = None
    variance = float(influence.square().sum())
    if real is not None:
        cure = "A saturated sigmoid gives infinite log ratios: see LogRatio.from_probability."
        real = checks.rows("log ratios of real rows", real, event_shape=(), cure=cure)
        constant, of_real, of_generated = _constant(real.detach().to("cpu", torch.float64), generated)
        constant_se = math.sqrt(float(of_real.square().sum() + of_generated.square().sum()))
        variance = float((influence + of_generated).square().sum() + of_real.square().sum())
    log_mean += constant or 0.0
    error = math.sqrt(variance)
    is_off = abs(log_mean) > math.log(MAX_FACTOR) + NUM_ERRORS * error
    if not is_determined:
        verdict = "not determined"
    elif not is_off:
        verdict = "near 1"
    else:
        verdict = "wrong" if is_normalised or real is not None else "not normalised"
    # The mean of ratios without a cap may exceed what a float holds.
    value = math.exp(min(log_mean, 700.0))
    return MeanRatio(value, value * error, constant, constant_se, verdict)


def _constant(real: Tensor, generated: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the intercept at slope 1, and what each real and each generated row adds to it."""
    offset = math.log(len(real) / len(generated))
    finite = generated[generated.isfinite()]
    reach = float(torch.cat([real, finite]).abs().max()) + abs(offset) + math.log(len(real) + len(generated)) + 1
    low, high, constant = -2 * reach, 2 * reach, 0.0
    for _ in range(MAX_STEPS):
        of_real, of_generated = torch.sigmoid(-(real + constant + offset)), torch.sigmoid(generated + constant + offset)
        missing = float(of_real.sum() - of_generated.sum())
        low, high = (constant, high) if missing > 0 else (low, constant)
        information = float((of_real * (1 - of_real)).sum() + (of_generated * (1 - of_generated)).sum())
        proposed = constant + missing / information if information > 0 else low
        # Newton's step, or half of the interval where that leaves it.
        proposed = proposed if low < proposed < high else (low + high) / 2
        change, constant = abs(proposed - constant), proposed
        if change < 1e-10:
            break
    of_real, of_generated = torch.sigmoid(-(real + constant + offset)), torch.sigmoid(generated + constant + offset)
    # p (1 - p) keeps its digits as the product of two sigmoids.
    fisher = (of_real * torch.sigmoid(real + constant + offset)).sum()
    fisher = fisher + (of_generated * torch.sigmoid(-(generated + constant + offset))).sum()
    return constant, (of_real - of_real.mean()) / fisher, -(of_generated - of_generated.mean()) / fisher
