"""Ladders of temperatures from the prior to the target: fixed ladders, and the next rung of an adaptive one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.importance import effective_size

__all__ = ["check_ladder", "geometric", "linear", "next_beta", "sigmoid"]

#: Halvings of the interval that contains the next rung; float64 has 52 bits.
MAX_HALVINGS = 50


def linear(num_rungs: int) -> tuple[float, ...]:
    """Return equally spaced powers of the weight, `num_rungs` steps from 0 to 1.

    Args:
        num_rungs: Steps of the ladder.

    Returns:
        `num_rungs + 1` powers, the first 0 and the last 1.

    Raises:
        ValueError: if `num_rungs` is not positive.

    Example:
        >>> linear(4)
        (0.0, 0.25, 0.5, 0.75, 1.0)
    """
    num_rungs = _num_rungs(num_rungs)
    return tuple(rung / num_rungs for rung in range(num_rungs + 1))


def sigmoid(num_rungs: int, *, sharpness: float = 4.0) -> tuple[float, ...]:
    r"""Return powers that are closest together at both ends of the ladder.

    .. math:: \beta_t = \frac{\sigma(\delta (2t/T - 1)) - \sigma(-\delta)}{\sigma(\delta) - \sigma(-\delta)}

    Args:
        num_rungs: Steps of the ladder, T.
        sharpness: :math:`\delta`; near 0 the ladder is linear.

    Returns:
        `num_rungs + 1` powers, the first 0 and the last 1.

    Raises:
        ValueError: if `num_rungs` or `sharpness` is not positive.

    References:
        On the Quantitative Analysis of Decoder-Based Generative Models, Y. Wu et al., 2017,
        https://arxiv.org/abs/1611.04273

    Example:
        >>> [round(beta, 3) for beta in sigmoid(4)]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    num_rungs = _num_rungs(num_rungs)
    sharpness = checks.real("sharpness", sharpness, above=0, cure="A small one makes a linear ladder.")
    # The logistic function is (1 + tanh) / 2, whose constants drop out.
    top = math.tanh(sharpness / 2)
    inner = [math.tanh(sharpness / 2 * (2 * rung / num_rungs - 1)) for rung in range(1, num_rungs)]
    return (0.0, *((value + top) / (2 * top) for value in inner), 1.0)


def geometric(num_rungs: int, *, first: float = 1e-3) -> tuple[float, ...]:
    """Return 0 and then powers with a constant ratio, for a target much narrower than its prior.

    Args:
        num_rungs: Steps of the ladder.
        first: The first power above 0, in (0, 1); a ladder of one rung has the powers 0 and 1 only.

    Returns:
        `num_rungs + 1` powers, the first 0 and the last 1.

    Raises:
        ValueError: if `num_rungs` is not positive, or `first` outside (0, 1).

    Example:
        >>> [round(beta, 4) for beta in geometric(4, first=0.001)]
        [0.0, 0.001, 0.01, 0.1, 1.0]
    """
    num_rungs = _num_rungs(num_rungs)
    first = checks.real("first", first, above=0, below=1, cure="It is the first power of the weight above 0.")
    inner = [first ** (1 - rung / (num_rungs - 1)) for rung in range(num_rungs - 1)]
    return (0.0, *inner, 1.0)


def check_ladder(betas: Sequence[float]) -> tuple[float, ...]:
    """Return powers as a tuple, or raise unless they rise from 0 to 1."""
    if isinstance(betas, int | float):
        raise ValueError(f"Expected a ladder of powers; got {betas}. linear({betas}) makes one.")
    powers = tuple(checks.numbers("ladder", betas))
    rises = all(low < high for low, high in zip(powers, powers[1:], strict=False))
    if len(powers) < 2 or powers[0] != 0 or powers[-1] != 1 or not rises:
        shown = str(powers) if len(powers) <= 6 else f"{len(powers)} powers, {powers[:2]} to {powers[-2:]}"
        raise ValueError(
            f"Expected a ladder that rises from 0 (the prior) to 1 (the target); got {shown}. linear, sigmoid and "
            "geometric make one."
        )
    return powers


def next_beta(
    log_weight: Float[Tensor, " particle"], log_share: Float[Tensor, " particle"], *, beta: float, min_ess: float
) -> float:
    r"""Return the largest power up to 1 at which reweighted particles keep an effective sample size.

    .. math:: \mathrm{ESS}(\beta') = \frac{(\sum_i W_i w_i^{\beta' - \beta})^2}{\sum_i (W_i w_i^{\beta' - \beta})^2}

    The effective sample size falls as the power rises, so bisection finds the power. Particles of weight zero are lost
    at any power; only the others count towards the effective sample size.

    Args:
        log_weight: Log of the full weight w, nats; minus infinity for a weight of zero.
        log_share: Log of the particles' running weights W, up to a constant.
        beta: Present power of the particles, in [0, 1).
        min_ess: Effective size to keep. If it is above the present one, 99 % of the present one is kept.

    Raises:
        ValueError: if the log weights are not tensors of one shape, or a number is outside its range.

    References:
        Sequential Monte Carlo samplers, P. Del Moral, A. Doucet and A. Jasra, 2006,
        https://doi.org/10.1111/j.1467-9868.2006.00553.x

    Example:
        >>> log_weight = torch.linspace(0, 20, 1000)
        >>> round(next_beta(log_weight, torch.zeros(1000), beta=0.0, min_ess=500.0), 3)
        0.191
    """
    checks.shaped("log_share", log_share, checks.shaped("log_weight", log_weight, ("particle",)).shape)
    beta = checks.real("beta", beta, minimum=0, below=1)
    min_ess = checks.real("min_ess", min_ess, above=0)
    alive = ~torch.isneginf(log_weight + log_share)
    log_weight, log_share = (values[alive].double().cpu() for values in (log_weight, log_share))

    def ess(power: float) -> float:
        return float(effective_size(log_share + (power - beta) * log_weight))

    # With too few particles of positive weight no power keeps the size; then most of the present size is kept.
    min_ess = min(min_ess, 0.99 * ess(beta))
    low, high = beta, 1.0
    if ess(high) >= min_ess:
        return high
    for _ in range(MAX_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if ess(middle) >= min_ess else (low, middle)
    return high


def _num_rungs(num_rungs: Any) -> int:
    return checks.count("num_rungs", num_rungs, cure="One rung is importance sampling.")
