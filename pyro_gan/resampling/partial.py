"""What a sampler had finished when an exception ended its call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.interrupts import interruptible
from pyro_gan.resampling.draws import Draws, joined
from pyro_gan.targets import WeightedTarget

__all__ = ["Partial", "keeping", "outputs", "scored"]


@final
class Partial(NamedTuple):
    """Weighted draws that were finished; with their weights they represent the target.

    `pyro_gan.importance.systematic(log_weights, n)` chooses rows of equal weight, and `weight_tail(log_weights)` tells
    how many draws they are worth.

    Attributes:
        samples: Constrained latents by site, `(draw, *event)`.
        log_weights: Log weights of the draws over the target, `(draw,)`, nats, up to a constant.
        beta: Power of the weight that the draws had reached: 0 for prior draws, 1 for draws of the target, between them
            for particles on a ladder.
    """

    samples: dict[str, Tensor]
    log_weights: Float[Tensor, " draw"]
    beta: float


class _Sampler(Protocol):
    partial: Partial | None


@contextlib.contextmanager
def keeping(sampler: _Sampler, finished: Callable[[], Partial | None]) -> Iterator[None]:
    """Set `sampler.partial` to what is finished if an exception ends the block; the exception is raised on.

    SIGTERM ends it as Ctrl-C does.

    Args:
        sampler: Whose call it is.
        finished: Returns what is finished, None if nothing is.
    """
    sampler.partial = None
    with interruptible():
        try:
            yield
        except BaseException as error:
            # The exception that ended the call must not give way to one of this.
            with contextlib.suppress(Exception):
                sampler.partial = finished()
            if sampler.partial is not None:
                error.add_note(
                    f"Kept: {len(sampler.partial.log_weights)} weighted draws that had reached a power of "
                    f"{sampler.partial.beta:.3g}, as `partial` of the {type(sampler).__name__}."
                )
            raise


def scored(target: WeightedTarget, blocks: Sequence[Draws]) -> Partial | None:
    """Return prior draws that were scored; None if there are none."""
    if not blocks:
        return None
    z, log_weight = joined(blocks)
    return Partial(target.constrained(z), log_weight, 0.0)


def outputs(target: WeightedTarget, blocks: Sequence[Draws]) -> Partial | None:
    """Return draws that were accepted, with equal weights; None if there are none."""
    found = scored(target, blocks)
    return None if found is None else found._replace(log_weights=torch.zeros_like(found.log_weights), beta=1.0)
