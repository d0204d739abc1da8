"""Every plot draws on the Axes it is given, or on new Axes, and shows the numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.evaluate import (
    Estimate,
    plot_acceptance,
    plot_before_after,
    plot_expected,
    plot_frontier,
    plot_images,
    plot_points,
    plot_reliability,
    plot_scores,
)
from pyro_gan.mcmc import MALA, IndependenceMH

PLOTS: dict[str, Callable[..., Axes]] = {
    "images": lambda ax=None: plot_images(torch.rand(7, 1, 4, 4), ax=ax, title="t"),
    "before after": lambda ax=None: plot_before_after(torch.rand(7, 4, 4), torch.rand(9, 4, 4), ax=ax),
    "acceptance": lambda ax=None: plot_acceptance(STATS, ax=ax, title="t"),
    "expected": lambda ax=None: plot_expected(Estimate(torch.rand(9), torch.rand(9)), ax=ax, label="l", ylabel="share"),
    "points": lambda ax=None: plot_points(torch.randn(9, 2), torch.randn(8, 2), ax=ax, title="t"),
    "reliability": lambda ax=None: plot_reliability(TABLE, ax=ax, label="l"),
    "scores": lambda ax=None: plot_scores({"a": torch.randn(9), "b": torch.randn(8)}, ax=ax),
    "frontier": lambda ax=None: plot_frontier([0.5, 0.1], [0.6, 0.4], ax=ax, label="l"),
}
TABLE = (torch.tensor([0.1, 0.5, 0.8]), torch.tensor([0.2, math.nan, 0.75]), torch.tensor([100, 0, 48]))
STATS = {
    "accept_prob": torch.tensor([[0.9, 0.7], [0.0, 0.0], [0.1, 0.3], [0.02, 0.0]]),
    "moved": torch.tensor([[True, True], [False, False], [False, True], [False, False]]),
}


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


def test_before_and_after_stand_apart_on_one_picture() -> None:
    before, after = torch.zeros(2, 4, 4), torch.ones(5, 4, 4)
    ax = plot_before_after(before, after, num_columns=2, value_range=(0, 2), labels=("in", "out"))
    picture = np.asarray(ax.images[0].get_array())
    assert picture.shape == (14, 9 + 3 + 9, 3)
    assert (picture[:4, :4] == 0).all() and (picture[4:, :9] == 1).all() and (picture[:, 9:12] == 1).all()
    assert (picture[:4, 12:16] == 0.5).all() and (picture[10:, 12:16] == 0.5).all()
    assert (picture[10:, 17:] == 1).all()
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == [("in", 4.0), ("out", 16.0)]


def test_acceptance_is_sorted_and_chains_that_never_moved_are_counted() -> None:
    ax = plot_acceptance(STATS)
    overall, moved, stuck = ax.lines
    np.testing.assert_allclose(stuck.get_xydata(), [[0.125, 0.0], [0.375, 0.01]], atol=1e-7)
    np.testing.assert_allclose(moved.get_xydata(), [[0.625, 0.2], [0.875, 0.8]], atol=1e-7)
    assert overall.get_ydata()[0] == pytest.approx(0.2525)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["mean of all: 0.25", "moved: 2 chains", "never moved: 2 (50.0%)"]


def test_acceptance_of_a_run() -> None:
    toy = toys.gaussian_shift(auc=0.8)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(MALA(gan), num_samples=5, num_chains=7, disable_progbar=True)
    mcmc.run()
    assert sum(len(line.get_xdata()) for line in plot_acceptance(mcmc.sample_stats).lines[1:]) == 7


def test_acceptance_of_one_draw_is_that_of_all_steps_or_refused() -> None:
    toy = toys.gaussian_shift(auc=0.8)
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    mcmc = VectorizedMCMC(IndependenceMH(gan), 50, 10, num_chains=7, keep="last", disable_progbar=True)
    mcmc.run()
    with pytest.raises(ValueError, match="rates=mcmc.diagnostics"):
        plot_acceptance(mcmc.sample_stats)
    rates = mcmc.diagnostics()["acceptance rate"]
    ax = plot_acceptance(mcmc.sample_stats, rates=rates)
    drawn = np.concatenate([line.get_ydata() for line in ax.lines[1:]])
    np.testing.assert_allclose(np.sort(drawn), np.sort([*rates.values()]), rtol=1e-6)
    with pytest.raises(ValueError, match="each of 7 chains; got 1"):
        plot_acceptance(mcmc.sample_stats, rates={"chain 000": 0.5})


def test_expected_metric_is_a_curve_in_a_band() -> None:
    value, error = torch.tensor([0.5, 0.7, 0.8]), torch.tensor([0.1, 0.05, 0.02])
    ax = plot_expected(Estimate(value, error))
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.5], [1, 0.7], [2, 0.8]], atol=1e-6)
    (band,) = ax.collections[0].get_paths()
    assert band.vertices[:, 1].min() == pytest.approx(0.3) and band.vertices[:, 1].max() == pytest.approx(0.84)
    # One chain gives no error: there is a curve without a band.
    plot_expected(Estimate(value, torch.full((3,), math.nan))).figure.canvas.draw()


def test_a_far_tail_is_counted_at_the_edge_and_squeezes_nothing() -> None:
    body = torch.linspace(-1, 1, 99)
    ax = plot_scores({"a": torch.cat([body, torch.tensor([-1000.0])]), "b": body}, num_bins=10)
    x, y = ax.patches[0].get_xy().T
    assert -6 < x.min() and "outermost" in ax.get_xlabel()
    assert y[x == x.min()].max() * (x.max() - x.min()) / 10 == pytest.approx(0.01, rel=0.01)
    assert "outermost" not in plot_scores({"b": body}).get_xlabel()


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
        (lambda: plot_images(torch.rand(5, 4, 4), value_range=(0, 0)), r"black below white.*\(0, 0\)"),
        (lambda: plot_images(torch.rand(5, 4, 4), value_range=(0, math.inf)), "finite value_range; got inf"),
        (lambda: plot_before_after(torch.rand(5, 4, 4), torch.rand(5, 4, 5)), r"\(5, 4, 4\) and \(5, 4, 5\)"),
        (lambda: plot_before_after(torch.rand(0, 4, 4), torch.rand(5, 4, 4)), r"\(0, 1, 4, 4\)"),
        (lambda: plot_acceptance({"moved": torch.ones(2, 2)}), "accept_prob and moved.*got None"),
        (lambda: plot_acceptance({"accept_prob": torch.rand(3), "moved": torch.rand(3)}), r"\(3,\)"),
        (lambda: plot_acceptance({**STATS, "accept_prob": torch.full((4, 2), math.nan)}), r"\[0, 1\]"),
        (lambda: plot_expected(Estimate(torch.rand(3, 2), torch.rand(3, 2))), r"\(3, 2\)"),
        (
            lambda: plot_expected(Estimate(torch.full((3,), math.inf), torch.rand(3))),
            "finite values; got NaN or infinity in 3 of 3 rows",
        ),
        (lambda: plot_points(torch.rand(5, 3)), "samples"),
        (lambda: plot_points(torch.rand(5, 2), torch.rand(5)), "data"),
        (lambda: plot_points(torch.full((5, 2), math.nan)), "finite samples; got NaN or infinity in 5 of 5 rows"),
        (
            lambda: plot_points(torch.rand(5, 2), torch.tensor([[0, math.inf], [0, 1]])),
            "finite data; got NaN or infinity in 1 of 2 rows",
        ),
        (lambda: plot_reliability((torch.rand(3), torch.rand(3), torch.zeros(3))), "some bin"),
        (lambda: plot_reliability((torch.rand(3), torch.rand(2), torch.ones(3))), "one shape"),
        (lambda: plot_scores({}), "sets in log_ratios of at least 1; got 0"),
        (lambda: plot_scores({"a": torch.tensor([0.0, math.inf])}), "'a'; got NaN or infinity in 1 of 2"),
        (lambda: plot_frontier([], []), "at least one"),
        (lambda: plot_frontier([0.5], [0.5, 0.4]), "a quality for each ESS fraction; got 2 and 1"),
        (lambda: plot_frontier([0.0], [0.5]), r"\(0, 1\]"),
    ],
)
def test_bad_input_gets_a_clear_error(draw: Callable[[], Axes], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw()
