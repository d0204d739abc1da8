"""What a run of the demo found: figures, and what pictures and files need beside them."""

from __future__ import annotations

from typing import Any, NamedTuple, final

from jaxtyping import Float
from torch import Tensor

from pyro_gan import VectorizedMCMC
from pyro_gan.demo.networks import Ratio
from pyro_gan.ratio.diagnostics import RatioReport

__all__ = ["Results", "Row"]


@final
class Row(NamedTuple):
    """One line of the table."""

    #: Name of the ratio; empty for digits that are judged without one.
    ratio: str
    sampler: str
    images: Float[Tensor, "draw 1 8 8"]
    #: What the judge, the ratio and the sampler itself say.
    figures: dict[str, Any]
    mcmc: VectorizedMCMC | None = None


@final
class Results(NamedTuple):
    """All that a run found."""

    #: Every figure, as in `results.json`. The table is made from it.
    record: dict[str, Any]
    #: Real digits and G alone, and both and every sampler for each ratio.
    rows: list[Row]
    ratios: dict[str, Ratio]
    #: Verdict on each critic, on the judge's digits.
    reports: dict[str, RatioReport]
