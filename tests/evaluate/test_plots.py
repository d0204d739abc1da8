"""Every plot draws on the Axes it is given, or on one of its own, and shows the numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from pyro_gan.evaluate import plot_frontier, plot_images, plot_points, plot_reliability, plot_scores

PLOTS: dict[str, Callable[..., Axes]] = {
    "images": lambda ax=None: plot_images(torch.rand(7, 1, 4, 4), ax=ax, title="t"),
    "points": lambda ax=None: plot_points(torch.randn(9, 2), torch.randn(8, 2), ax=ax, title="t"),
    "reliability": lambda ax=None: plot_reliability(TABLE, ax=ax, label="l"),
    "scores": lambda ax=None: plot_scores({"a": torch.randn(9), "b": torch.randn(8)}, ax=ax),
    "frontier": lambda ax=None: plot_frontier([0.5, 0.1], [0.6, 0.4], ax=ax, label="l"),
}
TABLE = (torch.tensor([0.1, 0.5, 0.8]), torch.tensor([0.2, math.nan, 0.75]), torch.tensor([100, 0, 48]))


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")


@pytest.mark.parametrize("name", PLOTS)
def test_draws_on_the_axes_given_and_returns_them(name: str) -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    assert PLOTS[name](ax=ax) is ax
    assert PLOTS[name]() is not ax
    figure.canvas.draw()


@pytest.mark.parametrize("name", PLOTS)
def test_without_matplotlib_the_cure_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError) as error:
        PLOTS[name]()
    assert error.value.__notes__ == ["pip install pyro-gan[plot]"]


def test_images_lie_row_by_row() -> None:
    images = torch.arange(5.0)[:, None, None].expand(5, 2, 3) / 4 * 2 - 1
    picture = np.asarray(plot_images(images, num_columns=3).images[0].get_array())
    assert picture.shape == (5, 11, 3)
    assert picture[0, ::4, 0].tolist() == [0.0, 0.25, 0.5]
    assert picture[3, [0, 4, 8], 0].tolist() == [0.75, 1.0, 1.0]
    assert picture[2].min() == 1 and picture[:, 3].min() == 1
    assert plot_images(torch.rand(2, 3, 4, 4), value_range=(0, 1)).images[0].get_array().shape == (4, 9, 3)


def test_reliability_leaves_empty_bins_out() -> None:
    line = plot_reliability(TABLE).lines[1]
    np.testing.assert_allclose(line.get_xdata(), [0.1, 0.8], atol=1e-6)
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.75], atol=1e-6)


def test_scores_share_bins_and_integrate_to_one() -> None:
    ax = plot_scores({"a": torch.randn(500), "b": torch.randn(300) + 2}, num_bins=10)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    edges = [sorted(set(patch.get_xy()[:, 0])) for patch in ax.patches]
    np.testing.assert_allclose(edges[0], edges[1])
    for patch in ax.patches:
        x, y = patch.get_xy().T
        assert np.trapezoid(y, x) == pytest.approx(1.0)
    plot_scores({"constant": torch.zeros(5)})


def test_points_and_frontier_show_their_numbers() -> None:
    x = torch.randn(6, 2)
    np.testing.assert_allclose(plot_points(x).collections[0].get_offsets(), x.numpy())
    ax = plot_frontier([0.5, 0.02], [0.6, 0.4], ylabel="score")
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "score"
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.5, 0.6], [0.02, 0.4]])


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda: plot_images(torch.rand(5, 16)), "Unflatten"),
        (lambda: plot_images(torch.rand(5, 2, 4, 4)), r"\(5, 2, 4, 4\)"),
        (lambda: plot_images(torch.rand(0, 4, 4)), r"\(0, 1, 4, 4\)"),
        (lambda: plot_points(torch.rand(5, 3)), "samples"),
        (lambda: plot_points(torch.rand(5, 2), torch.rand(5)), "data"),
        (lambda: plot_reliability((torch.rand(3), torch.rand(3), torch.zeros(3))), "some bin"),
        (lambda: plot_reliability((torch.rand(3), torch.rand(2), torch.ones(3))), "one shape"),
        (lambda: plot_scores({}), "at least one set"),
        (lambda: plot_scores({"a": torch.tensor([0.0, math.inf])}), "'a'.*1 not finite"),
        (lambda: plot_frontier([], []), "at least one"),
        (lambda: plot_frontier([0.5], [0.5, 0.4]), "got 1 and 2"),
        (lambda: plot_frontier([0.0], [0.5]), r"\(0, 1\]"),
    ],
)
def test_bad_input_gets_a_clear_error(draw: Callable[[], Axes], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw()
