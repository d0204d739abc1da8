"""What a calibration map is: buffers found in data, one way to fit them, and one to load them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan.ratio._logistic import fit_logistic

__all__ = ["Calibrator", "Fitted", "platt_line"]


class Fitted(nn.Module):
    """A module whose buffers are numbers found in data: loading takes over their dtype and shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_make_room)


class Calibrator(Fitted, ABC):
    """A monotone map from a critic's score to a log ratio."""

    def fit(self, real: Float[Tensor, " row"], generated: Float[Tensor, " row"]) -> None:
        """Set the map's buffers from the scores of equally many real and generated rows.

        Targets are smoothed as Platt did, (n + 1) / (n + 2) and 1 / (n + 2) for n rows a class: scores that separate
        the classes still give finite numbers. Fitted in float64; stored in the scores' dtype and on their device.

        Args:
            real: Scores of real rows, `(row,)`.
            generated: Scores of generated rows, `(row,)`.

        Raises:
            ValueError: if the scores are all equal, or not finite.
        """
        score = torch.cat([real, generated]).to("cpu", torch.float64)
        # A constant's standard deviation is rounding; NaN fails too.
        if not score.std() > 1e-12 * score.abs().max():
            raise _no_slope(score)
        target = torch.full_like(score, 1 / (len(generated) + 2))
        target[: len(real)] = (len(real) + 1) / (len(real) + 2)
        for name, value in self._solve(score, target).items():
            setattr(self, name, value.to(real))

    @abstractmethod
    def parameters_by_name(self) -> dict[str, float]:
        """Return the fitted numbers, for the report."""

    @abstractmethod
    def forward(self, score: Tensor) -> Tensor:
        """Return log ratios of the scores' shape."""

    @abstractmethod
    def _solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"]) -> dict[str, Tensor]:
        """Return the buffers by name, in float64, for scores of both classes and the smoothed labels."""


def platt_line(score: Float[Tensor, " row"], target: Float[Tensor, " row"]) -> tuple[float, float]:
    """Return the slope and intercept of logistic regression, or raise if there are none."""
    fit = fit_logistic(score, target)
    if not math.isfinite(fit.slope):
        raise _no_slope(score)
    return fit.slope, fit.intercept


def _no_slope(score: Tensor) -> ValueError:
    return ValueError(
        f"Expected scores that vary; the logistic regression found no slope in {len(score)} scores between "
        f"{float(score.min()):.6g} and {float(score.max()):.6g}. A constant critic carries no ratio."
    )


def _make_room(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, buffer in module.named_buffers(recurse=False):
        saved = state.get(prefix + name)
        if saved is not None:
            setattr(module, name, torch.empty_like(saved, device=buffer.device))
