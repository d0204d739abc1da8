"""What a calibration map is: numbers found in data, one way to fit them, and one way to load them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan.checks import rows
from pyro_gan.ratio.logistic import fit_logistic

__all__ = ["Calibrator", "Fitted", "platt_line"]


class Fitted(nn.Module, ABC):
    """A module whose buffers are numbers found in data. Loading a state takes over its dtypes and shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_make_room)

    @abstractmethod
    def forward(self, value: Tensor, /) -> Tensor:
        """Return values of the same shape."""


class Calibrator(Fitted, ABC):
    """A monotone map from a critic's score to a log ratio.

    A subclass registers its numbers as buffers in `__init__`, with values that make it a map before it is fitted (the
    identity, if it can be that), and writes `solve` and `forward`. Everything else follows from the buffers: fitting,
    saving, copies and the report.
    """

    #: Whether the map has a gradient that rises with the score. A gradient kernel needs one.
    is_smooth: bool = True
    #: Whether the map rises or stays level for every possible fit. If not, scores that fall as the ratio rises can make
    #: the map fall.
    never_falls: bool = True

    @final
    def fit(self, real: Float[Tensor, " row"], generated: Float[Tensor, " row"]) -> None:
        """Set the map's buffers from the scores of real and generated rows, as many of each as there are.

        Unequal classes shift the log odds of "real" by log(n_real / n_generated): that is the offset of the fit, so the
        map gives a log ratio whatever the numbers. The targets are Platt's smoothed labels, (n + 1) / (n + 2) and
        1 / (n + 2) for n rows of a class, so that scores that separate the classes still give finite numbers. The
        numbers are found in float64, and stored in the scores' dtype and on their device.

        Args:
            real: Scores of real rows, `(row,)`.
            generated: Scores of generated rows, `(row,)`.

        Raises:
            ValueError: if the scores are all equal, not finite, or no vectors of floats.
        """
        parts = [
            rows(f"scores of {name} rows", part, event_shape=())
            for name, part in (("real", real), ("generated", generated))
        ]
        score = torch.cat(parts).to("cpu", torch.float64)
        # The standard deviation of a constant is a rounding error.
        if not score.std() > 1e-12 * score.abs().max():
            raise _no_slope(score)
        target = torch.full_like(score, 1 / (len(generated) + 2))
        target[: len(real)] = (len(real) + 1) / (len(real) + 2)
        offset = math.log(len(real) / len(generated))
        for name, value in self.solve(score, target, offset=offset).items():
            setattr(self, name, value.to(real))

    @abstractmethod
    def solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float) -> dict[str, Tensor]:
        """Return the buffers by name, in float64, of the map f for which sigma(f(score) + offset) fits the target.

        Args:
            score: Scores of both classes on the CPU, `(row,)`, finite and not all equal.
            target: Smoothed labels, the wanted probability of "real" for each row, `(row,)`, strictly between 0 and 1;
                above one half for real rows, below for generated ones.
            offset: Log odds of "real" where the log ratio is 0, log(n_real / n_generated); 0 for equal classes.
        """

    @abstractmethod
    def forward(self, score: Tensor, /) -> Tensor:
        """Return log ratios of the scores' shape and dtype; NaN stays NaN."""

    def parameters_by_name(self) -> dict[str, float]:
        """Return the fitted numbers for the report, by default every buffer as one number."""
        return {name: float(value) for name, value in self.named_buffers()}


def platt_line(
    score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float = 0.0
) -> tuple[float, float]:
    """Return the slope and intercept of logistic regression.

    Args:
        score: `(row,)`, finite.
        target: Probability of "real" for each row, `(row,)`.
        offset: Known log odds, which are not fitted.

    Raises:
        ValueError: if there is no finite slope.
    """
    fit = fit_logistic(score, target, offset=offset)
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
