"""Finds a log weight whose gradient does not say how it changes, by trying a few rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._random import own_generators
from pyro_gan.targets.base import Target, WeightedTarget
from pyro_gan.targets.rows import ValueAndGrad

__all__ = ["NUM_TRIED", "GradientFault", "gradient_fault", "target_gradient_fault"]

#: Rows that are tried.
NUM_TRIED = 48

#: Steps towards another row, in units of the distance to it. The shorter ones show whether the gradient is right, the
#: whole way shows a change in steps, of which short ways see nothing.
WAYS = (1.0, 1e-2, 1e-3)

#: The gradient must predict between this share of the changes and its inverse. A gradient that is right predicts all of
#: a short way, whatever the function, if the function has no jumps.
MIN_SHARE = 0.8

#: Below this share of the changes on the whole way a gradient counts as zero.
ZERO_SHARE = 1e-3

#: Changes of fewer units of rounding of the largest value say nothing.
ROUNDING_UNITS = 1000

#: Size of the steps from the starts of chains to the rows tried, where no prior is known, in units of the start plus 1.
JITTER = 0.1


@final
class GradientFault(NamedTuple):
    """What is wrong with a gradient.

    Attributes:
        text: The fault and its likely cause, in sentences.
        consequence: What it does to a kernel with an accept step, in a sentence.
    """

    text: str
    consequence: str


def gradient_fault(evaluate: Callable[[Tensor], ValueAndGrad], z: Float[Tensor, "row dim"]) -> GradientFault | None:
    """Return what is wrong with the gradient of a function, or None.

    It is wrong if it is not finite where the value is, or if it does not predict how the value changes: zero where
    values vary, or of a part of the function alone.

    Args:
        evaluate: Maps rows to one value each and its gradient. A row keeps its place in all calls.
        z: Different rows to try.
    """
    value, grad = evaluate(z)
    blind = torch.isfinite(value) & ~torch.isfinite(grad).all(-1)
    if blind.any():
        return GradientFault(
            f"The gradient of the log weight is NaN or infinite at {int(blind.sum())} of {len(z)} draws where the log "
            "weight itself is finite. torch.where passes on the NaN of the branch that it does not take: instead of "
            "where(a > 0, a.sqrt(), 0) write where(a > 0, where(a > 0, a, 1).sqrt(), 0).",
            "Every proposal there is rejected, so that chains sample the other places alone.",
        )
    step = z.roll(1, 0) - z
    shares = []
    for way in WAYS:
        other, other_grad = evaluate(z + way * step)
        change = other - value
        predicted = way * (step * (grad + other_grad)).sum(-1) / 2
        usable = torch.isfinite(change) & torch.isfinite(predicted)
        change, predicted = change[usable], predicted[usable]
        if not len(change) or float(change.abs().max()) <= _rounding(value):
            continue
        if way == 1:
            if float(predicted.norm() / change.norm()) < ZERO_SHARE:
                shares = [0.0]
                break
        else:
            shares.append(float((predicted * change).sum() / change.square().sum()))
    if not shares or any(MIN_SHARE <= share <= 1 / MIN_SHARE for share in shares):
        return None
    share = min(shares, key=lambda share: abs(share - 1))
    return GradientFault(
        f"The gradient of the log weight predicts {max(0.0, share):.0%} of its changes at {len(z)} draws: the weight, "
        "or a part of it, is cut off from autograd (.detach(), torch.no_grad(), .item(), NumPy), or changes in steps "
        "(round, argmax, a comparison, a quantised network).",
        "The accept step corrects for it, so the target stays the right one, but proposals do not aim at it.",
    )


def target_gradient_fault(target: Target, starts: Float[Tensor, "chain dim"] | None) -> GradientFault | None:
    """Return what is wrong with the gradient of a target's log weight, or None.

    The rows tried are prior draws; without a prior they lie around the starts of chains, and the log weight is the
    whole log density. Torch's generators are left as they were.

    Args:
        target: What is to be sampled.
        starts: Where chains start; needed for a target without a prior.
    """
    with own_generators(), torch.no_grad():
        if isinstance(target, WeightedTarget):
            return gradient_fault(lambda z: _weight_and_grad(target, z), target.sample_prior(NUM_TRIED))
        assert starts is not None
        few = starts[[i % len(starts) for i in range(NUM_TRIED)]]
        few = few + JITTER * (1 + few.abs()) * torch.randn_like(few)
        return gradient_fault(lambda z: _negative(target.potential_and_grad(z)), few)


def _weight_and_grad(target: WeightedTarget, z: Tensor) -> ValueAndGrad:
    potential, grad = target.potential_and_grad(z)
    log_prior, prior_grad = target.log_prior_and_grad(z)
    return -potential - log_prior, -grad - prior_grad


def _negative(values: ValueAndGrad) -> ValueAndGrad:
    return -values[0], -values[1]


def _rounding(value: Tensor) -> float:
    finite = value[torch.isfinite(value)]
    return ROUNDING_UNITS * torch.finfo(value.dtype).eps * float(finite.abs().max()) if len(finite) else math.inf
