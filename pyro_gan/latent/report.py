"""The report on a latent posterior before sampling: tail, mean ratio, moments, and what is wrong in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from pyro_gan.importance import WeightTail
from pyro_gan.ratio.mean_ratio import MeanRatio
from pyro_gan.ratio.moments import MomentChange

__all__ = ["PosteriorReport"]


@final
@dataclass(frozen=True, eq=False)
class PosteriorReport:
    """What a latent posterior says about itself before it is sampled. `print` it for a table."""

    #: The temperature T of the posterior; the weights of draws are `r^(1/T)`.
    temperature: float
    #: What the weights of prior draws say about themselves.
    tail: WeightTail
    #: Whether E_G[r] can be 1, for the ratio r itself. Its verdict counts at temperature 1 alone.
    mean_ratio: MeanRatio
    #: What the weights do to the moments of features; None without real rows.
    moments: MomentChange | None
    #: Whether the log ratios can only be probabilities, all of them in [0, 1].
    is_probability: bool
    #: What is wrong, each as a sentence or two with the cure. Empty if nothing is.
    problems: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # The only way to set a field of a frozen record that follows from the others.
        object.__setattr__(self, "problems", tuple(self._problems()))

    @property
    def mean_ratio_verdict(self) -> str:
        """The verdict on E_G[r]; at another temperature than 1 the ratio has been flattened, and is not judged."""
        return self.mean_ratio.verdict if self.temperature == 1 else f"not judged at temperature {self.temperature:g}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the table, each row as name, value, and what the value should be."""
        tail, mean, moments = self.tail, self.mean_ratio, self.moments
        table = [
            ("ESS fraction", f"{tail.ess_fraction:.4f}", "above .01"),
            ("effective draws", f"{tail.ess:.0f} of {tail.num_draws}", "100 or more"),
            ("largest weight / mean", f"{tail.largest_weight_share * tail.num_draws:.3g}", "below 100"),
            ("Pareto k", f"{tail.pareto_k:.2f}", "below .7, if the largest weight is 10 times the mean"),
            ("E_G[r]", f"{mean.value:.3g} +- {mean.standard_error:.2g}", f"1: {self.mean_ratio_verdict}"),
        ]
        if tail.top_error is not None:
            table.insert(4, ("largest weights, nats", f"+- {tail.top_error:.3g}", "below 1"))
        if mean.constant is not None:
            removed = f"{mean.constant:+.3f} +- {mean.constant_se:.3f}"
            table.append(("constant removed, nats", removed, "any; it harms no sampler"))
        if moments is not None:
            change = f"{moments.change:+.4f} +- {moments.change_se:.4f}"
            table += [
                ("moments: gap of G", f"{moments.before:.4f}", "0 if G has the distribution of the data"),
                ("moments: gap weighted", f"{moments.after:.4f}", "below the gap of G"),
                ("moments: change", change, f"negative: {moments.verdict}"),
            ]
        return table

    def __str__(self) -> str:
        lines = [f"{name:<22} {value:>20}   {target}" for name, value, target in self.rows()]
        head = f"{'figure':<22} {'value':>20}   should be"
        if self.moments is None:
            lines.append("moments: not compared; pass real rows, check(real)")
        return "\n".join([f"temperature {self.temperature:g}", head, *lines, *(f"! {text}" for text in self.problems)])

    def _problems(self) -> Iterator[str]:
        tail, mean, moments = self.tail, self.mean_ratio, self.moments
        if self.is_probability:
            yield (
                "All log ratios lie in [0, 1], which an exact log ratio cannot: the critic seems to return "
                "probabilities. Build the log ratio by LogRatio.from_probability(discriminator)."
            )
        heavy = [text for text in tail.complaints if text != tail.uncertainty]
        if tail.uncertainty:
            yield (
                f"The log ratio is not known well enough where it is large: {tail.uncertainty}, by the spread of its "
                f"networks over the {tail.num_draws} draws. Fit it to more rows or with more overlap, or raise the "
                "temperature."
            )
        if heavy:
            helps = moments is not None and moments.verdict == "better"
            verdict = (
                "yet the weights move the moments towards the data; the samples need many draws"
                if helps
                else "and a longer chain gives worse samples, not better"
            )
            yield (
                f"The log ratio has a heavy tail on this generator ({'; '.join(heavy)}; {tail.num_draws} "
                f"draws): the target sits on few latents, {verdict}. Cap the ratio (calibrate(..., "
                "max_log_ratio='auto')), raise the temperature, or fit a ratio with more overlap "
                "(fit_log_ratio(..., min_ess_fraction=...))."
            )
        if self.mean_ratio_verdict == "wrong":
            removed = " after removing the constant that real rows show" if mean.constant is not None else ""
            unknown = "" if removed else " If it is off by a constant alone, samplers do not mind: check(real) tells."
            yield (
                f"The log ratio is wrong: the mean ratio over generated data is {mean.value:.3g} +- "
                f"{mean.standard_error:.2g}{removed}, and must be 1. Such a critic tells most outputs from data, and "
                "its ratio says little about those that look right. Fit a ratio with more overlap, or on features; or "
                f"raise the temperature and compare the samples with real rows that nothing else has used.{unknown}"
            )
        if moments is not None and moments.verdict == "worse":
            yield (
                f"The weights make the generated data worse: the gap of their moments to the real ones goes from "
                f"{moments.before:.3g} to {moments.after:.3g} ({moments.change:+.2g} +- {moments.change_se:.2g}). "
                "Sample the generator alone, raise the temperature, or make another ratio."
            )
        elif moments is not None and moments.verdict == "too few effective draws":
            yield (
                f"Whether the weights help cannot be said: {tail.ess:.0f} of {tail.num_draws} draws are effective. "
                "Draw more (num_draws), raise the temperature, or fit a ratio with more overlap."
            )
