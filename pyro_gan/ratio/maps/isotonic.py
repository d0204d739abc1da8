"""The isotonic calibration map, a staircase: it takes any monotone shape, and has no gradient."""

from __future__ import annotations

import warnings
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import extra
from pyro_gan.ratio.maps.base import Calibrator

__all__ = ["Isotonic"]


@final
class Isotonic(Calibrator):
    r"""Isotonic regression, the likeliest of all maps that never fall. Fitting needs scikit-learn, using does not.

    Beyond the last row of the other class, plain isotonic regression is certain: the log ratio is infinite. The
    smoothed targets limit what n rows of each class can claim,

    .. math:: |\log r| \le \log(n + 1).

    With unequal classes the other class sets the limit: n generated rows support no ratio above about n, and n real
    rows none below about 1 / n.

    The gradient of a staircase is zero. Use this map with gradient-free kernels (`IndependenceMH`) and with importance
    resampling; a gradient kernel would follow the prior alone. The first call that asks for a gradient warns. Every
    copy warns again, because kernels call a copy.

    References:
        Transforming classifier scores into accurate multiclass probability estimates, B. Zadrozny and C. Elkan, 2002,
        https://doi.org/10.1145/775047.775151

    Example:
        >>> isotonic = Isotonic()
        >>> score = torch.linspace(-1, 1, 200, dtype=torch.float64)
        >>> isotonic.fit(score[50:], score[:150])
        >>> bool((isotonic(score).diff() >= 0).all())
        True
    """

    is_smooth = False
    edges: Tensor
    levels: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A staircase cannot be the identity. This one is a single step, a ratio of 1.
        self.register_buffer("edges", torch.zeros(0))
        self.register_buffer("levels", torch.zeros(1))
        self._has_warned = False

    def __getstate__(self) -> dict[str, Any]:
        # A call of the original outside no_grad must not use up the warning of the kernel's copy.
        return self.__dict__ | {"_has_warned": False}

    def parameters_by_name(self) -> dict[str, float]:
        """Return the number of steps, and the lowest and the highest level."""
        return {"steps": len(self.levels), "lowest": float(self.levels[0]), "highest": float(self.levels[-1])}

    def forward(self, score: Tensor) -> Tensor:
        """Return the level of each score's step; NaN stays NaN.

        Warns:
            UserWarning: once, if the score requires a gradient.
        """
        if not self._has_warned and score.requires_grad and torch.is_grad_enabled():
            self._has_warned = True
            warnings.warn(
                "The gradient of an isotonic calibration is zero: a kernel that follows it (MALA, BatchHMC, NUTS) "
                "follows the prior alone. Use IndependenceMH or ImportanceResampler, or calibrate with "
                "method=MonotoneSpline().",
                stacklevel=2,
            )
        step = torch.searchsorted(self.edges.to(score.dtype), score.detach().contiguous())
        # The second term is zero, or NaN where the score is. It gives the result a gradient of zero.
        return self.levels.to(score.dtype)[step] + 0 * score.clamp(-1, 1)

    def solve(self, score: Float[Tensor, " row"], target: Float[Tensor, " row"], *, offset: float) -> dict[str, Tensor]:
        """Return the edges and levels of the staircase.

        Raises:
            ImportError: if scikit-learn is missing.
        """
        with extra("sklearn"):
            from sklearn.isotonic import IsotonicRegression
        order = score.argsort()
        score, target = score[order], target[order]
        share = torch.as_tensor(IsotonicRegression().fit_transform(score.numpy(), target.numpy()))
        ends = (share.diff() > 0).nonzero().squeeze(1)
        return {
            "edges": (score[ends] + score[ends + 1]) / 2,
            "levels": torch.logit(share[torch.cat([ends, torch.tensor([-1])])]) - offset,
        }
