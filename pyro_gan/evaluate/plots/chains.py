"""Pictures of the chains: how often each accepts, and what a metric does as they grow longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_gan.evaluate.expected import ExpectedMetric
from pyro_gan.evaluate.plots._axes import BAD, GUIDE, OUTPUTS, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_acceptance", "plot_expected"]


def plot_acceptance(
    sample_stats: Mapping[str, Tensor],
    *,
    rates: Mapping[str, float] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Plot every chain's mean acceptance probability, sorted, and mark the chains that never moved.

    A mean over chains hides those that stand still: an independence chain that started at an extreme score, or a
    Langevin chain in a corner, accepts nothing while the others do well. Here they are the crosses at the left.

    Args:
        sample_stats: Of a `VectorizedMCMC` that has run (`mcmc.sample_stats`): `accept_prob` and `moved`, `(chain,
            draw)` each. A chain that moved during warmup has moved.
        rates: Mean acceptance of every chain over all its steps, in the chains' order, in place of the mean of
            `accept_prob`: `mcmc.diagnostics()["acceptance rate"]`. Needed with one draw a chain, as of `keep="last"`,
            whose `accept_prob` is that of one step.
        ax: Where to draw; a new figure if None.
        title: Over the picture.

    Returns:
        The Axes; the legend counts the chains.

    Raises:
        ValueError: if a statistic is missing, shapes differ, there is no draw, or one draw and no `rates`, or an
            acceptance is not in [0, 1].

    Example:
        >>> stats = {"accept_prob": torch.rand(50, 20), "moved": torch.ones(50, 20, dtype=torch.bool)}
        >>> ax = plot_acceptance(stats)
    """
    missing = {"accept_prob", "moved"} - sample_stats.keys()
    if missing:
        raise ValueError(
            f"Expected sample_stats with accept_prob and moved, as VectorizedMCMC keeps them; got no {sorted(missing)}."
        )
    accept_prob, moved = (sample_stats[name].detach().cpu() for name in ("accept_prob", "moved"))
    if accept_prob.dim() != 2 or moved.shape != accept_prob.shape or not accept_prob.numel():
        raise ValueError(
            f"Expected accept_prob and moved of one shape (chain, draw); got {tuple(accept_prob.shape)} and "
            f"{tuple(moved.shape)}."
        )
    if rates is None and accept_prob.shape[1] == 1:
        raise ValueError(
            "Expected several draws a chain; got one, whose accept_prob is that of a single step. Pass the rates over "
            'all steps as well: rates=mcmc.diagnostics()["acceptance rate"].'
        )
    if rates is not None and len(rates) != len(accept_prob):
        raise ValueError(f"Expected a rate for each of {len(accept_prob)} chains; got {len(rates)}.")
    mean = accept_prob.double().mean(1) if rates is None else torch.tensor([*rates.values()]).double()
    # Written so that NaN fails too.
    if not bool(((accept_prob >= 0) & (accept_prob <= 1)).all() and ((mean >= 0) & (mean <= 1)).all()):
        raise ValueError("Expected acceptance probabilities in [0, 1]; some are not.")
    stuck = ~moved[:, -1].bool()
    # Of equal acceptance, the stuck first.
    order = torch.tensor(sorted(range(len(mean)), key=lambda chain: (float(mean[chain]), not stuck[chain])))
    mean, stuck = mean[order], stuck[order]
    share = (torch.arange(len(mean)) + 0.5) / len(mean)
    ax = axes_or_new(ax)
    overall = float(mean.mean())
    ax.axhline(overall, color=GUIDE, zorder=0, label=f"mean of all: {overall:.2f}")
    ax.plot(
        share[~stuck].numpy(),
        mean[~stuck].numpy(),
        linestyle="",
        marker="o",
        markersize=3,
        color=OUTPUTS,
        label=f"moved: {int((~stuck).sum())} chains",
    )
    ax.plot(
        share[stuck].numpy(),
        mean[stuck].numpy(),
        linestyle="",
        marker="x",
        color=BAD,
        clip_on=False,
        label=f"never moved: {int(stuck.sum())} ({float(stuck.double().mean()):.1%})",
    )
    ax.set(xlabel="share of chains, sorted", ylabel="mean acceptance probability", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper left")
    if title is not None:
        ax.set_title(title)
    return ax


def plot_expected(
    expected: ExpectedMetric,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    ylabel: str = "expected metric",
) -> Axes:
    """Plot what a metric is expected to be after every number of steps, with a band of two standard errors.

    Args:
        expected: Of a metric that is one number, `(step + 1,)`, by `expected_after_steps`.
        ax: Where to draw, so that several ratios share a picture; a new figure if None.
        label: Of the curve.
        ylabel: What the metric is.

    Returns:
        The Axes; steps are on a logarithmic scale that begins at the start, step 0.

    Raises:
        ValueError: if the metric has further dimensions, or a value is not finite.

    Example:
        >>> from pyro_gan.evaluate import expected_after_steps
        >>> ax = plot_expected(expected_after_steps(torch.randn(20, 50), torch.randn(20, 50)))
    """
    value, error = expected.value.detach().cpu(), expected.standard_error.detach().cpu()
    if value.dim() != 1 or value.shape != error.shape or not bool(value.isfinite().all()):
        raise ValueError(
            f"Expected finite values of shape (step + 1,); got {tuple(value.shape)}, of which "
            f"{int((~value.isfinite()).sum())} not finite. Of several metrics plot one, as "
            "ExpectedMetric(*(part[:, 0] for part in expected))."
        )
    ax = axes_or_new(ax)
    steps = range(len(value))
    (line,) = ax.plot(steps, value.numpy(), label=label)
    low, high = (value - 2 * error).numpy(), (value + 2 * error).numpy()
    ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    ax.set_xscale("symlog", linthresh=1)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="steps", ylabel=ylabel, xlim=(0, None))
    if label is not None:
        ax.legend()
    return ax
