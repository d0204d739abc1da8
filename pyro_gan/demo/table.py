"""The demo's table, in words and numbers for a terminal."""

from __future__ import annotations

import math

import torch

from pyro_gan.demo.ratios import Ratio
from pyro_gan.demo.results import Results, Row
from pyro_gan.demo.samplers import MAX_RHAT

__all__ = ["COLUMNS", "table"]

#: Headings of the columns, of one line or two, and their widths.
COLUMNS = {
    "": 35,
    "score": 12,
    "Frechet": 8,
    "residual\nAUC": 15,
    "class\nTV": 6,
    "mean\nlog ratio": 13,
    "exact": 6,
    "distinct/\noutputs": 10,
    "accept": 7,
    "R-hat": 9,
    "ESS": 7,
    "ESS/s": 7,
    "never\nmoved": 7,
    "cost/\noutput": 8,
    "seconds": 8,
}


def table(results: Results) -> str:
    """Return the report: what was split and trained, the ratios, the samplers side by side, and warnings."""
    heads = [name.rpartition("\n") for name in COLUMNS]
    lines = [*_setting(results), "", *_ratios(results), ""]
    lines += [_line([first for first, _, _ in heads]), _line([last for _, _, last in heads])]
    lines += ["-" * sum(COLUMNS.values())]
    lines += [_row(results.real), _row(results.alone)]
    for ratio in results.ratios:
        lines += ["", f"{ratio.name} (ESS fraction of its weights {ratio.tail.ess_fraction:.3f})"]
        lines += [_line(["  real digits", "", "", "", "", _mean_log_ratio(ratio, results.real)])]
        lines += [_line(["  G alone", "", "", "", "", _mean_log_ratio(ratio, results.alone)])]
        lines += [_row(row, ratio) for row in results.rows if row.ratio == ratio.name]
        lines += [
            f"  {sampler:<34} refused: {reason}"
            for (name, sampler), reason in results.refused.items()
            if name == ratio.name
        ]
    return "\n".join([*lines, "", *_notes(results)]) + "\n"


def _setting(results: Results) -> list[str]:
    splits, gan, settings = results.splits, results.gan, results.settings
    first, best = gan.history[0], dict(gan.history)[gan.best_step]
    verdict = "its plateau" if gan.reached_plateau else "NO plateau before the steps ran out"
    seconds = results.seconds["training the GAN"]
    return [
        f"seed {settings.seed}, device {settings.device}"
        + (", QUICK: figures worth nothing" * settings.quick),
        f"digits: {len(splits.gan)} train the GAN, {len(splits.ratio)} make the ratios and tell the plateau, "
        f"{len(splits.judge)} only judge (the classifier, trained on the others, is right on "
        f"{results.judge.accuracy:.1%} of them)",
        f"GAN: held-out Frechet distance {first[1]:.2f} at step {first[0]}, {best:.3f} at {gan.best_step}, {verdict} "
        f"(best of {len(gan.history)} evaluations, {gan.history[-1][0]} steps, {seconds:.0f} s)",
    ]


def _ratios(results: Results) -> list[str]:
    lines = [
        f"{'critics, on the judge':<24}{'AUC':>8}{'slope':>16}{'log loss':>10}   (a slope of 1 is calibrated)"
    ]
    for name, report in results.reports.items():
        slope = f"{report.slope:.2f} +- {report.slope_se:.2f}"
        lines.append(f"{name:<24}{report.auc:>8.3f}{slope:>16}{report.log_loss:>10.3f}")
    for ratio in results.ratios:
        tail = ratio.tail
        lines.append(
            f"{ratio.name}: {ratio.made}; weights of {tail.num_draws} draws: ESS fraction {tail.ess_fraction:.3f}, "
            f"largest share {tail.largest_weight_share:.1g}, Pareto k {tail.pareto_k:.2f}"
        )
    return lines


def _row(row: Row, ratio: Ratio | None = None) -> str:
    judged, run = row.verdict, row.outputs
    cells = [
        row.sampler if ratio is None else f"  {row.sampler}",
        f"{judged.score.value:.2f} +-{judged.score.standard_error:.2f}",
        f"{judged.frechet:.3f}",
        f"{judged.residual.value:.3f} +-{judged.residual.standard_error:.3f}",
        f"{judged.class_tv:.3f}",
        "" if ratio is None else _mean_log_ratio(ratio, row),
    ]
    if run is not None:
        is_chain = run.mcmc is not None
        cells += [
            run.exact,
            f"{run.distinct}/{len(run.z)}",
            "n/a" if math.isnan(run.acceptance) else f"{run.acceptance:.3f}",
            f"{run.rhat:.3f}{'' if run.rhat <= MAX_RHAT else ' NO'}" if is_chain else "n/a",
            f"{run.ess:.0f}",
            f"{run.ess / run.seconds:.0f}",
            f"{run.never_moved:.1%}" if is_chain else "n/a",
            f"{run.cost:.0f}",
            f"{run.seconds:.1f}",
        ]
    return _line(cells)


def _line(cells: list[str]) -> str:
    widths = list(COLUMNS.values())
    first = f"{cells[0]:<{widths[0]}}"
    return (
        first + "".join(f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=False))
    ).rstrip()


def _mean_log_ratio(ratio: Ratio, row: Row) -> str:
    with torch.no_grad():
        values = ratio.log_ratio(row.images)
    return f"{float(values.mean()):.2f} +-{float(values.std()) / math.sqrt(len(values)):.2f}"


def _notes(results: Results) -> list[str]:
    chains = results.settings.num_chains
    runs = [(row, row.outputs) for row in results.rows if row.outputs is not None]
    notes = [
        f"Every row: {chains} outputs, of chains the last state of each of {chains}; +- one standard error.",
        f"score: exp of the mutual information between image and class, 10 at best; real digits: the judge's "
        f"{len(results.splits.judge)}.",
        "Frechet: of pixels; residual AUC: of a fresh critic; class TV: of the classes' histogram: all against the "
        "judge's digits. In the row of real digits, those that made the ratios: what no sampler can be asked to beat.",
        "Two sets of 500 outputs of one sampler differ by about .1 in Frechet, now and then by .4, and by .02 in class "
        "TV: rows as close as that are alike.",
        "exact: yes, every output follows the target; limit, it does in the limit of many draws or steps; no, not even "
        "then (a bound estimated from draws is no bound). The target is as good as its ratio, whatever the sampler.",
        f"R-hat: of ArviZ, the worst of all latents and the log ratio; NO: above {MAX_RHAT}, not converged. ESS: the "
        "smallest of the same; of the resampler's weights; of rejection, whose outputs are independent, their number.",
        "accept: of a chain's proposals or of rejection's draws; ULA takes all, and reports what MALA would accept. "
        "n/a: nothing is accepted, or there is no chain.",
        f"cost: forwards and twice the gradients, counted. A chain may cost {results.settings.chain_cost}, whatever "
        "its kernel; samplers without a chain cost what they take.",
    ]
    fewer = [f"{row.sampler} ({row.ratio}) {len(run.z)}" for row, run in runs if len(run.z) < chains]
    if fewer:
        notes.append(
            f"FEWER OUTPUTS: {'; '.join(fewer)}. None is made up; Frechet and class TV of few are too high."
        )
    local = sum(run.mcmc is not None and not run.rhat <= MAX_RHAT for _, run in runs)
    if local:
        notes.append(
            f"NOT CONVERGED: {local} rows, marked NO. Their outputs remember where the chains started."
        )
    return notes + [f"warning: {text}" for text in results.warnings]
