"""How much of a log ratio to trust: the inverse temperature that brings resampled outputs closest to real data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import numbers, real
from pyro_gan.evaluate.change import FrechetChange, frechet_change
from pyro_gan.importance import finite_weights, has_enough_draws

__all__ = ["INVERSE_TEMPERATURES", "TemperatureStep", "certify_temperature", "choose_temperature"]

#: From nearly the generator alone to the whole ratio, in steps of the root of 2.
INVERSE_TEMPERATURES = tuple(2 ** (-step / 2) for step in range(8, -1, -1))

#: The error of a step is then known to 7 %.
_NUM_BOOTSTRAP = 100
#: While choosing a rough error is enough, known to 10 %.
_FEW_BOOTSTRAP = 50


@final
class TemperatureStep(NamedTuple):
    """One inverse temperature that was tried, and what it does to the Frechet distance."""

    #: The power `1/T` of the ratio.
    inverse_temperature: float
    #: Frechet distances before and after, the change with its error, and the effective number of draws.
    change: FrechetChange
    #: Whether the distance falls, tested one-sided by itself, with 100 effective draws or more: the error does not see
    #: the draws that are missing where few carry the weight. Several such tests are no certificate.
    improves: bool

    def row(self) -> list[str]:
        """Return the cells of a table: 1/T, effective draws, distance before and after, change, verdict."""
        before, after, difference, error, ess = self.change
        verdict = "better" if self.improves else "not shown to be better"
        change = f"{difference:+.4g} +- {error:.2g}"
        return [f"{self.inverse_temperature:.3f}", f"{ess:.0f}", f"{before:.4g}", f"{after:.4g}", change, verdict]


def choose_temperature(
    features: Float[Tensor, "row feature"],
    log_ratio: Float[Tensor, " row"],
    real_features: Float[Tensor, "real feature"],
    *,
    inverse_temperatures: Sequence[float] = INVERSE_TEMPERATURES,
    seed: int = 0,
) -> tuple[float, tuple[TemperatureStep, ...]]:
    r"""Choose the power 1/T of a ratio under which resampled outputs have the smallest Frechet distance to real data.

    The exact ratio wants :math:`1/T = 1`. A ratio that is wrong where the data are not, or whose weight rests on few
    draws, does less harm and often some good at a smaller power. At 0 the generator alone remains; it wins ties.

    The choice is the best of several on one set of rows, so its distance there is too small. Certify it with
    `certify_temperature` on other draws and other real rows.

    Args:
        features: Features of independent draws of the generator, `(row, feature)`.
        log_ratio: Log ratio of each draw, nats.
        real_features: Features of real rows that made neither the ratio nor the features, `(real, feature)`.
        inverse_temperatures: Powers to try beside 0, each above 0 and at most 1.
        seed: Of the resampling.

    Returns:
        The chosen 1/T, 0 for the generator alone, and every step that was tried, from the flattest on.

    Raises:
        ValueError: if a power is out of range, shapes disagree, or there are fewer than 50 rows on a side.

    Example:
        >>> draws = torch.randn(4000, 2)
        >>> real = torch.randn(4000, 2) + 1.0
        >>> power, steps = choose_temperature(draws, draws.sum(1) - 1, real)
        >>> power > 0.5, len(steps)
        (True, 9)
    """
    powers = sorted(numbers("inverse_temperatures", inverse_temperatures, above=0, maximum=1))
    steps = tuple(
        _step(features, log_ratio, real_features, power, level=0.05, num_bootstrap=_FEW_BOOTSTRAP, seed=seed)
        for power in powers
    )
    best = min(steps, key=lambda step: step.change.after, default=None)
    if best is None or best.change.difference >= 0:
        return 0.0, steps
    return best.inverse_temperature, steps


def certify_temperature(
    features: Float[Tensor, "row feature"],
    log_ratio: Float[Tensor, " row"],
    real_features: Float[Tensor, "real feature"],
    *,
    inverse_temperatures: Sequence[float],
    level: float = 0.05,
    seed: int = 0,
) -> tuple[float, tuple[TemperatureStep, ...]]:
    r"""Return the largest power 1/T up to which every tested power is shown to improve on the generator alone.

    The powers are tested from the flattest on, each one-sided at the same level, and the first that fails ends the
    tests. So if the ratio is worth nothing, the probability of returning a power above 0 is at most the level, however
    many powers there are: a false claim needs a false first test. Other draws and rows may choose which powers are
    tested. Test those that improved there: where small powers do harm and large ones good, an untried first test would
    end the tests too early.

    Args:
        features: Features of draws that did not choose the powers, `(row, feature)`.
        log_ratio: Log ratio of each draw, nats.
        real_features: Features of real rows that made neither the ratio, nor the features, nor the choice,
            `(real, feature)`.
        inverse_temperatures: Powers to test, each above 0 and at most 1.
        level: Probability of a false claim, between 0 and .5.
        seed: Of the bootstrap.

    Returns:
        The certified 1/T, 0 for the generator alone, and the steps that were tested.

    Raises:
        ValueError: as `choose_temperature`, or if the level is out of range.

    References:
        Multiple testing in clinical trials: closed and fixed-sequence procedures, P. Westfall and A. Krishen, 2001,
        https://doi.org/10.1016/S0378-3758(01)00077-5

    Example:
        >>> draws, real = torch.randn(4000, 2), torch.randn(4000, 2) + 1.0
        >>> certify_temperature(draws, draws.sum(1) - 1, real, inverse_temperatures=[0.25, 0.5])[0]
        0.5
    """
    powers = sorted(numbers("inverse_temperatures", inverse_temperatures, above=0, maximum=1))
    level = real("level", level, above=0, below=0.5)
    certified, steps = 0.0, []
    for power in powers:
        steps.append(
            _step(features, log_ratio, real_features, power, level=level, num_bootstrap=_NUM_BOOTSTRAP, seed=seed)
        )
        if not steps[-1].improves:
            break
        certified = power
    return certified, tuple(steps)


def _step(
    features: Tensor,
    log_ratio: Tensor,
    real_features: Tensor,
    power: float,
    *,
    level: float,
    num_bootstrap: int,
    seed: int,
) -> TemperatureStep:
    weights = power * finite_weights(log_ratio)
    change = frechet_change(features, weights, real_features, num_bootstrap=num_bootstrap, seed=seed)
    quantile = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - level)))
    # A NaN is no improvement.
    falls = change.difference + quantile * change.standard_error < 0
    return TemperatureStep(power, change, falls and has_enough_draws(weights))
