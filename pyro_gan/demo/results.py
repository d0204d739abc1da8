"""What a run of the demo found, as one record for table, figures and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pyro_gan.demo.gan import GAN, Splits
from pyro_gan.demo.judge import Judge, Verdict
from pyro_gan.demo.ratios import Ratio
from pyro_gan.demo.samplers import Outputs
from pyro_gan.demo.settings import Settings
from pyro_gan.ratio.diagnostics import RatioReport

__all__ = ["Results", "Row"]


@dataclass
class Row:
    """One line of the table: a set of digits, what made it, and what the judge says."""

    ratio: str
    sampler: str
    images: Float[Tensor, "draw 1 8 8"]
    verdict: Verdict
    outputs: Outputs | None = None


@dataclass
class Results:
    """All that a run found."""

    settings: Settings
    splits: Splits
    gan: GAN
    ratios: list[Ratio]
    judge: Judge
    real: Row
    alone: Row
    rows: list[Row]
    #: Samplers that refused, and why.
    refused: dict[tuple[str, str], str]
    #: Held-out verdicts on the judge's digits by name of the critic.
    reports: dict[str, RatioReport]
    seconds: dict[str, float]
    #: What the package warned of.
    warnings: list[str]
