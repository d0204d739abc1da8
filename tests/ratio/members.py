"""The calibration maps of the package, how a test makes one, and critics whose exact log ratio is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pyro_gan import ratio, toys
from pyro_gan.ratio import Calibrator
from tests.registry import concrete_members

__all__ = ["MAPS", "bent", "cubic", "doubled", "every_map", "exact", "excess", "far", "far_bent", "fitted", "make"]

Score = Callable[[Tensor], Tensor]

#: Every map that `pyro_gan.ratio` exports, by name.
MAPS = concrete_members(ratio, Calibrator)

every_map = pytest.mark.parametrize("cls", MAPS.values(), ids=MAPS.keys())


def make(cls: type[Calibrator]) -> Calibrator:
    """Return an unfitted map. A map whose constructor needs arguments gets them here."""
    return cls()


def fitted(cls: type[Calibrator], score: Score, number: int = 2000, *, auc: float = 0.85) -> Calibrator:
    """Return a map fitted to the scores of so many real and generated rows."""
    calibrator = make(cls)
    calibrator.fit(*(score(part) for part in exact(number, auc=auc)))
    return calibrator


def exact(number: int, *, auc: float = 0.85) -> tuple[Tensor, Tensor]:
    """Return real and generated rows that are their own exact log ratio, `(number,)` in double precision."""
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    return toy.log_ratio(toy.sample_data(number)), toy.log_ratio(toy.prior.sample((number,)))


def excess(calibrator: Calibrator, score: Score) -> float:
    """Return the expected log loss minus that of the exact ratio, in nats a row.

    It is a mean KL divergence; labels enter by their probabilities and are not drawn.
    """
    truth = torch.cat(exact(100_000))
    claim = calibrator(score(truth))
    share = torch.sigmoid(truth)
    cross, own = (share * softplus(-value) + torch.sigmoid(-truth) * softplus(value) for value in (claim, truth))
    return float((cross - own).mean())


def bent(log_ratio: Tensor) -> Tensor:
    """Return the score of which `log_ratio` is the beta map with a = .4, c = 2, b = .3."""
    low, high = torch.full_like(log_ratio, -100), torch.full_like(log_ratio, 100)
    for _ in range(100):
        middle = (low + high) / 2
        below = 0.4 * logsigmoid(middle) - 2 * logsigmoid(-middle) + 0.3 < log_ratio
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def cubic(log_ratio: Tensor) -> Tensor:
    """A critic like a Wasserstein critic: a cubic polynomial of the logit, off centre."""
    return 5 * (log_ratio + 0.2 * log_ratio**3) + 3


def doubled(log_ratio: Tensor) -> Tensor:
    """A critic that is twice too confident."""
    return 2 * log_ratio


def far(log_ratio: Tensor) -> Tensor:
    """A critic with an arbitrary scale and zero."""
    return 10 * log_ratio + 200


def far_bent(log_ratio: Tensor) -> Tensor:
    """A bent critic with an arbitrary scale and zero."""
    return 10 * bent(log_ratio) + 200
