"""What `improve` tried, what it certified, and what was said on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pyro_gan.evaluate.temperature import TemperatureStep
from pyro_gan.latent import PosteriorReport

__all__ = ["ImprovementReport"]


@final
@dataclass(frozen=True, eq=False)
class ImprovementReport:
    """What was tried, what was certified, and what was said on the way. `print` it for a table."""

    #: Name of the chosen ratio, "calibrated critic" or "fresh critic"; None if no ratio could be made.
    ratio: str | None
    #: Certified power of the ratio, 0 for the generator alone.
    inverse_temperature: float
    #: Real rows that made the ratio, that chose the power, and that certified it.
    num_real: tuple[int, int, int]
    #: Every power tried for the chosen ratio, on the rows that choose. Distances are of the features.
    chosen: tuple[TemperatureStep, ...]
    #: The powers tested on the rows that certify, from the flattest on.
    certified: tuple[TemperatureStep, ...]
    #: The chosen ratio at 1/T = 1 on the rows that choose: tail, mean ratio and moments. None without a ratio.
    check: PosteriorReport | None
    #: Warnings and errors that came up, and which ratio they are about.
    messages: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Whether the generator was improved, in one sentence."""
        if self.inverse_temperature:
            change = next(s.change for s in self.certified if s.inverse_temperature == self.inverse_temperature)
            return (
                f"Better: the Frechet distance of the features falls from {change.before:.4g} to {change.after:.4g} "
                f"({change.difference:+.4g} +- {change.standard_error:.2g}) with the {self.ratio} at 1/T = "
                f"{self.inverse_temperature:.3f}."
            )
        if self.ratio is None:
            return "No log ratio could be made, so the generator is used as it is."
        return f"The {self.ratio} was not shown to improve the outputs, so the generator is used as it is."

    def __str__(self) -> str:
        head = ["1/T", "effective draws", "before", "after", "change", "verdict"]
        lines = [self.verdict, "{} real rows fit, {} choose, {} certify".format(*self.num_real)]
        for title, steps in (("chosen among", self.chosen), ("certified", self.certified)):
            table = [head, *(step.row() for step in steps)]
            lines += [title] + ["  {:>6} {:>16} {:>10} {:>10} {:>20}  {}".format(*row) for row in table]
        return "\n".join([*lines, *self.messages])
