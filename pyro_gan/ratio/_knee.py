"""Where the tail guard begins to bend: where real rows end, or earlier, where generated rows contradict the map."""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan.ratio.maps import Calibrator
from pyro_gan.ratio.maps.guard import GUARD_WIDTH, bend

__all__ = ["MIN_GAIN", "contradicted_from", "last_supported", "out_of_fold"]

#: Parts that the fitting rows are cut into, so that each part is judged by a map that the other parts fitted.
NUM_FOLDS = 5

#: Real rows beyond the knee where nothing contradicts the map: a fiftieth of them and one more, at most twenty.
MAX_BEYOND = 20

#: Growth of the number of real rows beyond the knee, from one candidate to the next.
GROWTH = 1.15

# Log likelihood in nats that a lower knee must gain. For one knee fixed beforehand and an exact ratio, the probability
# of such a gain is at most e^-3; a search over all of them finds it in about one set of rows in a hundred.
MIN_GAIN = 3.0


def out_of_fold(
    method: Calibrator, real: Float[Tensor, " real"], generated: Float[Tensor, " generated"]
) -> list[Tensor]:
    """Return log ratios of rows, each from a map that was fitted without it.

    Args:
        method: The map to fit; it stays as it is.
        real: Scores of real rows in random order, `(real,)`.
        generated: Scores of generated rows in random order, `(generated,)`.

    Returns:
        The log ratios of the real and of the generated rows.
    """
    values = [torch.empty_like(real), torch.empty_like(generated)]
    for fold in range(NUM_FOLDS):
        fitted = copy.deepcopy(method)
        fitted.fit(
            *(torch.cat([part[i::NUM_FOLDS] for i in range(NUM_FOLDS) if i != fold]) for part in (real, generated))
        )
        for value, part in zip(values, (real, generated), strict=True):
            value[fold::NUM_FOLDS] = fitted(part[fold::NUM_FOLDS])
    return values


def last_supported(real: Float[Tensor, " real"]) -> float:
    """Return the log ratio that only the last few real rows exceed: nothing supports a ratio beyond them."""
    return float(real.topk(_num_last(real)).values[-1])


def contradicted_from(
    real: Float[Tensor, " real"], generated: Float[Tensor, " generated"], *, min_gain: float = MIN_GAIN
) -> float | None:
    """Return the log ratio from which on generated rows contradict the map, or None if they do not.

    Where an exact ratio is large, generated rows are as rare as it says. A guard with its knee at a real row is taken
    if all rows together are likelier under it than under a guard of the last few rows, by `min_gain` nats; of all such
    guards the likeliest.

    Args:
        real: Log ratios of real rows that did not fit the map, `(real,)`.
        generated: Log ratios of generated rows that did not fit the map, `(generated,)`.
        min_gain: Log likelihood in nats that the lower knee must gain.
    """
    real, generated = (
        part.detach().to("cpu", torch.float64).sort(descending=True).values for part in (real, generated)
    )
    offset = math.log(len(real) / len(generated))
    beyond, losses = _num_last(real), {}
    while beyond <= len(real):
        losses[float(real[beyond - 1])] = _loss_of_guard(real[beyond - 1], real, generated, offset)
        beyond = max(beyond + 1, int(GROWTH * beyond))
    best, highest = min(losses, key=losses.__getitem__), max(losses)
    return best if losses[highest] - losses[best] > min_gain else None


def _num_last(real: Tensor) -> int:
    return min(MAX_BEYOND, 1 + len(real) // 50)


def _loss_of_guard(knee: Tensor, real: Tensor, generated: Tensor, offset: float) -> float:
    """Return what a guard adds to the negative log likelihood of rows that are sorted from above, in nats."""
    change = 0.0
    for part, sign in ((real, -1), (generated, 1)):
        above = part[: int((part > knee).sum())]
        before, after = (softplus(sign * (value + offset)).sum() for value in (above, bend(above, knee + GUARD_WIDTH)))
        change += float(after - before)
    return change
