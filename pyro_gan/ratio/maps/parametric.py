"""Calibration maps of one, two and three numbers: temperature, Platt's line and the beta map."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_gan.ratio.logistic import fit_monotone
from pyro_gan.ratio.maps.base import Calibrator, platt_line

__all__ = ["Beta", "Platt", "Temperature"]


@final
class Platt(Calibrator):
    r"""Platt's map, a line: :math:`\log r = a\,s + b`, fitted by logistic regression.

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

    never_falls = False
    slope: Tensor
    intercept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(1.0))
        self.register_buffer("intercept", torch.tensor(0.0))

    def forward(self, score: Tensor) -> Tensor:
        """Return `slope * score + intercept`."""
        return self.slope * score + self.intercept

    def solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float) -> dict[str, Tensor]:
        """Return the slope and intercept of logistic regression."""
        slope, intercept = platt_line(score, target, offset=offset)
        return {"slope": score.new_tensor(slope), "intercept": score.new_tensor(intercept)}


@final
class Temperature(Calibrator):
    r"""Temperature scaling, a line through the origin: :math:`\log r = s / T`, with :math:`T > 0`.

    It has no intercept and takes the critic's zero as given. So it is for logits, where 0 means even odds. The zero of
    a Wasserstein critic is arbitrary, and a slope fitted about the wrong zero is a wrong slope. A critic that scores
    real rows no higher than generated ones gets :math:`T = \infty`, a ratio of 1 everywhere.

    References:
        On Calibration of Modern Neural Networks, C. Guo et al., 2017, https://arxiv.org/abs/1706.04599

    Example:
        >>> temperature = Temperature()
        >>> score = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> temperature.fit(score[50:], score[:150])
        >>> float(temperature(torch.zeros(())))
        0.0
    """

    inverse_temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inverse_temperature", torch.tensor(1.0))

    def parameters_by_name(self) -> dict[str, float]:
        """Return the temperature."""
        return {"temperature": float(1 / self.inverse_temperature)}

    def forward(self, score: Tensor) -> Tensor:
        """Return `score / temperature`."""
        return self.inverse_temperature * score

    def solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float) -> dict[str, Tensor]:
        """Return the inverse temperature."""
        # Measured in units of the largest score, the problem has the same scale for every critic.
        unit = score.abs().max()
        coefficient = fit_monotone((score / unit).unsqueeze(1), target, offset=offset).coefficients[0]
        return {"inverse_temperature": coefficient / unit}


@final
class Beta(Calibrator):
    r"""The beta map: one slope where the critic says "real", another where it says "generated".

    With :math:`l = w s + m`, the score as a logit, it is

    .. math:: \log r = a \log\sigma(l) - c \log(1 - \sigma(l)) + b, \qquad a, c \ge 0,

    which rises as :math:`c\,l` far above zero and as :math:`a\,l` far below. In the paper :math:`l` is the critic's own
    logit, :math:`w = 1, m = 0`. The score of a Wasserstein or hinge critic is not a logit, and the bend would be at an
    arbitrary place; for such a critic :math:`l` is Platt's line. Both are fitted, and the likelier of the two is kept.
    (Where the two slopes are equal both are Platt's line.)

    References:
        Beta calibration: a well-founded and easily implemented improvement on logistic calibration for binary
        classifiers, M. Kull, T. M. Silva Filho and P. Flach, 2017, https://proceedings.mlr.press/v54/kull17a.html

    Example:
        >>> beta = Beta()
        >>> score = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> beta.fit(score[50:], score[:150])
        >>> bool((beta(score).diff() >= 0).all())
        True
    """

    a: Tensor
    b: Tensor
    c: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("a", 1.0), ("b", 0.0), ("c", 1.0), ("scale", 1.0), ("shift", 0.0)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, score: Tensor) -> Tensor:
        """Return `a log D - c log(1 - D) + b`, from the logit of D."""
        logit = self.scale * score + self.shift
        return self.a * logsigmoid(logit) - self.c * logsigmoid(-logit) + self.b

    def solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float) -> dict[str, Tensor]:
        """Return the three numbers, and the line that makes a logit of the score."""
        platt = platt_line(score, target, offset=offset)
        # The line of a flipped critic falls, but the logit must rise: then the score itself is the only candidate.
        lines = [(1.0, 0.0), platt] if platt[0] > 0 else [(1.0, 0.0)]
        fits = []
        for scale, shift in lines:
            logit = scale * score + shift
            sides = torch.stack([logsigmoid(logit), -logsigmoid(-logit)], 1)
            fit = fit_monotone(sides, target, intercept=True, offset=offset)
            fits.append((fit.loss, scale, shift, fit.coefficients))
        _, scale, shift, (a, c, b) = min(fits, key=lambda fit: fit[0])
        return {"a": a, "b": b, "c": c, "scale": score.new_tensor(scale), "shift": score.new_tensor(shift)}
