"""Where a plot draws, and in which colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BAD", "DATA", "GUIDE", "OUTPUTS", "axes_or_new"]

DATA, OUTPUTS, GUIDE, BAD = "0.6", "C0", "0.8", "C3"


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the Axes given, or those of a new figure."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        error.add_note("pip install pyro-gan[plot]")
        raise
    return plt.subplots()[1]
