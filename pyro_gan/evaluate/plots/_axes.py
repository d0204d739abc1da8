"""Where a plot draws, in which colours, and the checks that several plots need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyro_gan.checks import extra, instance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BAD", "DATA", "GUIDE", "OUTPUTS", "axes_or_new", "finished"]

DATA, OUTPUTS, GUIDE, BAD = "0.6", "C0", "0.8", "C3"


def axes_or_new(ax: Axes | None, *texts: str | None) -> Axes:
    """Return the Axes given, or those of a new figure, after a check of the texts that will stand there."""
    for text in texts:
        instance("a title, label or ylabel", text, str, type(None))
    with extra("plot"):
        import matplotlib.pyplot as plt
        from matplotlib.axes import Axes
    return plt.subplots()[1] if ax is None else instance("ax", ax, Axes, cure="Take one from plt.subplots().")


def finished(ax: Axes, *, title: str | None = None, label: str | None = None, **settings: Any) -> Axes:
    """Return the Axes, with a title if there is one and a legend if its curve has a label."""
    if title is not None:
        ax.set_title(title)
    if label is not None:
        ax.legend(**settings)
    return ax
