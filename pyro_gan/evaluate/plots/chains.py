"""Pictures of the chains: how often each one accepts, and how a metric changes as they grow longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_gan.checks import instance, numbers, rows, shown, tensor
from pyro_gan.evaluate.metric import Estimate
from pyro_gan.evaluate.plots._axes import BAD, GUIDE, OUTPUTS, axes_or_new, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_acceptance", "plot_expected"]

_CURE = "Pass sample_stats as VectorizedMCMC keeps them."


def plot_acceptance(
    sample_stats: Mapping[str, Tensor],
    *,
    rates: Mapping[str, float] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Plot every chain's mean acceptance probability, sorted, and mark the chains that never moved.

    A mean over chains hides the chains that do not move: an independence chain that started at an extreme score, or a
    Langevin chain in a corner, accepts nothing while the others do well. Here they are the crosses at the left.

    Args:
        sample_stats: `mcmc.sample_stats` of a `VectorizedMCMC` that has run, with `accept_prob` and `moved`, `(chain,
            draw)` each. A chain that moved during warmup counts as moved.
        rates: Mean acceptance of every chain over all its steps, in the chains' order, in place of the mean of
            `accept_prob`: `mcmc.diagnostics()["acceptance rate"]`. It is needed with one draw a chain, as `keep="last"`
            gives, because `accept_prob` is then that of one step.
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
    stats = [instance("sample_stats", sample_stats, Mapping).get(key) for key in ("accept_prob", "moved")]
    accept_prob, moved = (tensor("accept_prob and moved", stat, cure=_CURE).detach().cpu() for stat in stats)
    if accept_prob.dim() != 2 or moved.shape != accept_prob.shape or not accept_prob.numel():
        raise ValueError(
            f"Expected accept_prob and moved of one shape (chain, draw); got {tuple(accept_prob.shape)} and "
            f"{tuple(moved.shape)}. {_CURE}"
        )
    if rates is None and accept_prob.shape[1] == 1:
        raise ValueError(
            "Expected several draws a chain; got one, whose accept_prob is that of a single step. Pass the rates over "
            'all steps as well: rates=mcmc.diagnostics()["acceptance rate"].'
        )
    mean = accept_prob.double().mean(1)
    if rates is not None:
        found = numbers("rates", instance("rates", rates, Mapping).values(), minimum=0, maximum=1)
        mean = torch.tensor(found, dtype=torch.float64)
    if len(mean) != len(accept_prob):
        raise ValueError(f"Expected a rate for each of {len(accept_prob)} chains; got {len(mean)}.")
    # In this form NaN fails too.
    if not bool(((accept_prob >= 0) & (accept_prob <= 1)).all()):
        raise ValueError(f"Expected accept_prob in [0, 1]; got {shown(accept_prob)} with other values.")
    stuck = ~moved[:, -1].bool()
    # Among chains of equal acceptance those that never moved come first.
    order = torch.tensor(sorted(range(len(mean)), key=lambda chain: (float(mean[chain]), not stuck[chain])))
    mean, stuck = mean[order], stuck[order]
    share = (torch.arange(len(mean)) + 0.5) / len(mean)
    ax = axes_or_new(ax, title)
    overall = float(mean.mean())
    ax.axhline(overall, color=GUIDE, zorder=0, label=f"mean of all: {overall:.2f}")
    moved_label = f"moved: {int((~stuck).sum())} chains"
    stuck_label = f"never moved: {int(stuck.sum())} ({float(stuck.double().mean()):.1%})"
    ax.plot(share[~stuck].numpy(), mean[~stuck].numpy(), "o", markersize=3, color=OUTPUTS, label=moved_label)
    ax.plot(share[stuck].numpy(), mean[stuck].numpy(), "x", color=BAD, clip_on=False, label=stuck_label)
    ax.set(xlabel="share of chains, sorted", ylabel="mean acceptance probability", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper left")
    return finished(ax, title=title)


def plot_expected(
    expected: Estimate[Tensor], *, ax: Axes | None = None, label: str | None = None, ylabel: str = "expected metric"
) -> Axes:
    """Plot the expected metric after every number of steps, with a band of two standard errors.

    Args:
        expected: The result of `expected_after_steps` for a metric that is one number, `(step + 1,)`.
        ax: Where to draw, so that several ratios share a picture; a new figure if None.
        label: Of the curve.
        ylabel: Name of the metric.

    Returns:
        The Axes; steps are on a logarithmic scale that begins at the start, step 0.

    Raises:
        ValueError: if the metric has further dimensions, or a value is not finite.

    Example:
        >>> from pyro_gan.evaluate import expected_after_steps
        >>> ax = plot_expected(expected_after_steps(torch.randn(20, 50), torch.randn(20, 50)))
    """
    instance("expected", expected, Estimate, cure="Take it from expected_after_steps.")
    value, error = (tensor("expected", part).detach().cpu() for part in expected)
    cure = "Plot one metric of several: Estimate(*(part[:, 0] for part in expected))."
    rows("values", value, event_shape=(), cure=cure)
    if value.shape != error.shape:
        raise ValueError(f"Expected an error for each of {len(value)} values; got {tuple(error.shape)}.")
    ax = axes_or_new(ax, label, ylabel)
    steps = range(len(value))
    (line,) = ax.plot(steps, value.numpy(), label=label)
    low, high = (value - 2 * error).numpy(), (value + 2 * error).numpy()
    ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    ax.set_xscale("symlog", linthresh=1)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="steps", ylabel=ylabel, xlim=(0, None))
    return finished(ax, label=label)
