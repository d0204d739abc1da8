"""Monotone maps from a critic's score to nats, and the guard on their upper tail; all store what they fit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan.ratio._logistic import fit_logistic

__all__ = ["METHODS", "Calibrator", "Platt", "TailGuard"]

#: Nats below the cap at which the guard begins to bend.
GUARD_WIDTH = 1.0


class _Fitted(nn.Module):
    """A module whose buffers are numbers found in data: loading takes over their dtype and shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_make_room)


class Calibrator(_Fitted, ABC):
    """A monotone map from a critic's score to a log ratio."""

    @abstractmethod
    def fit(self, real: Float[Tensor, " row"], generated: Float[Tensor, " row"]) -> None:
        """Set the map's buffers from the scores of equally many real and generated rows."""

    @abstractmethod
    def parameters_by_name(self) -> dict[str, float]:
        """Return the fitted numbers, for the report."""

    @abstractmethod
    def forward(self, score: Tensor) -> Tensor:
        """Return log ratios of the scores' shape."""


@final
class Platt(Calibrator):
    r"""Platt's map, a line: :math:`\log r = a\,s + b`, fitted by logistic regression.

    The targets are smoothed as Platt did, (n + 1) / (n + 2) and 1 / (n + 2) for n rows a class, so that scores that
    separate the classes still give a finite slope.

    References:
        Probabilistic outputs for support vector machines, J. Platt, 1999,
        https://www.cs.colorado.edu/~mozer/Teaching/syllabi/6622/papers/Platt1999.pdf

    Example:
        >>> platt = Platt()
        >>> score = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> platt.fit(score[50:], score[:150])
        >>> platt(score).shape
        torch.Size([200])
    """

    slope: Tensor
    intercept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(1.0))
        self.register_buffer("intercept", torch.tensor(0.0))

    def fit(self, real: Float[Tensor, " row"], generated: Float[Tensor, " row"]) -> None:
        """Fit by Newton's method in float64; store in the scores' dtype and on their device.

        Raises:
            ValueError: if the scores are all equal.
        """
        score = torch.cat([real, generated]).to("cpu", torch.float64)
        target = torch.full_like(score, 1 / (len(generated) + 2))
        target[: len(real)] = (len(real) + 1) / (len(real) + 2)
        fit = fit_logistic(score, target)
        if not math.isfinite(fit.slope):
            raise ValueError(
                f"Expected scores that vary; the logistic regression found no slope in {len(score)} scores between "
                f"{float(score.min()):.6g} and {float(score.max()):.6g}. A constant critic carries no ratio."
            )
        self.slope, self.intercept = real.new_tensor(fit.slope), real.new_tensor(fit.intercept)

    def parameters_by_name(self) -> dict[str, float]:
        """Return slope and intercept."""
        return {"slope": float(self.slope), "intercept": float(self.intercept)}

    def forward(self, score: Tensor) -> Tensor:
        """Return `slope * score + intercept`."""
        return self.slope * score + self.intercept


@final
class TailGuard(_Fitted):
    r"""A ceiling on log ratios that is reached smoothly, so that the gradient never dies.

    The identity up to one nat below the cap, and above that, with :math:`t` the nats by which it is exceeded,

    .. math:: l \mapsto \mathrm{cap} - \frac{1}{1 + t},

    which has a continuous derivative :math:`1 / (1 + t)^2`. A hard clamp would leave a gradient kernel nothing to
    follow out of the tail.

    Args:
        cap: The ceiling in nats; None is no ceiling.

    Raises:
        ValueError: if the cap is not a finite number.

    Example:
        >>> TailGuard(3.0)(torch.tensor([1.0, 2.0, 3.0, 100.0]))
        tensor([1.0000, 2.0000, 2.5000, 2.9899])
    """

    cap: Tensor

    def __init__(self, cap: float | None) -> None:
        super().__init__()
        if cap is not None and not math.isfinite(cap):
            raise ValueError(f"Expected a finite cap in nats, or None to switch the guard off; got {cap}.")
        self.register_buffer("cap", torch.tensor(math.inf if cap is None else cap))

    @property
    def knee(self) -> Tensor:
        """Where the guard begins to bend."""
        return self.cap - GUARD_WIDTH

    def forward(self, log_ratio: Tensor) -> Tensor:
        """Return guarded log ratios of the same shape; NaN passes."""
        above = log_ratio > self.knee
        # The inner `where` keeps the branch not taken finite, or its gradient would be NaN.
        excess = torch.where(above, log_ratio - self.knee, 0.0) / GUARD_WIDTH
        return torch.where(above, self.cap - GUARD_WIDTH / (1 + excess), log_ratio)


#: The maps by the name that `calibrate` knows them by.
METHODS: dict[str, type[Calibrator]] = {"platt": Platt}


def _make_room(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, buffer in module.named_buffers(recurse=False):
        saved = state.get(prefix + name)
        if saved is not None:
            setattr(module, name, torch.empty_like(saved, device=buffer.device))
