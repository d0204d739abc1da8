"""Diversity of outputs: known distances, the MS-SSIM of torchmetrics, and errors that match repeats."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

from pyro_gan.evaluate import ms_ssim, num_distinct, pair_distance
from tests.statistics import assert_close_in_se

WEIGHTS = torch.tensor([0.0448, 0.2856, 0.3001, 0.2363, 0.1333], dtype=torch.float64)
# Shorter side -> number of scales that fit.
SCALES = {11: 1, 21: 1, 22: 2, 28: 2, 43: 2, 44: 3, 64: 3, 98: 3, 99: 4, 175: 4, 176: 5}


def blobs(num_images: int, side: int, channels: int = 1) -> Tensor:
    """Smooth images in [0, 1] that have a common background, so that similarities are not all 0."""
    grid = torch.linspace(0, 1, side)
    centre, width = torch.rand(num_images, channels, 2), 0.15 + 0.1 * torch.rand(num_images, channels, 1)
    x = torch.exp(-((grid - centre[..., :1]) / width).square())
    y = torch.exp(-((grid - centre[..., 1:]) / width).square())
    return 0.5 * x.unsqueeze(-1) * y.unsqueeze(-2) + 0.3 * (grid[:, None] + grid) / 2


def two_alike(side: int) -> Tensor:
    """Two images whose similarity is neither 0 nor 1 at any scale, `(2, 1, side, side)`."""
    grid = torch.linspace(0, 1, side)
    bumps = [torch.exp(-((grid - centre) / 0.25).square()) for centre in (0.4, 0.6)]
    return torch.stack([0.5 * bump[:, None] * bump + 0.3 * grid for bump in bumps])[:, None]


def test_distance_of_gaussian_pairs_is_known_and_its_error_too() -> None:
    found = [pair_distance(torch.randn(200, 2), seed=seed) for seed in range(400)]
    values = torch.tensor([one.value for one in found], dtype=torch.float64)
    assert_close_in_se(values.mean(), math.sqrt(math.pi), values.std() / 20, "mean distance")
    stated = math.sqrt(sum(one.standard_error**2 for one in found) / len(found))
    assert float(values.std()) == pytest.approx(stated, rel=0.17)
    assert found[0].num_pairs == 100


def test_pairs_share_no_sample_and_do_not_move_the_global_generator() -> None:
    x = 4.0 ** torch.arange(8, dtype=torch.float64)[:, None]
    state = torch.get_rng_state()
    total = pair_distance(x).value * 4
    assert torch.equal(state, torch.get_rng_state())
    # The larger of each pair enters with +, the smaller with -; adding all samples gives twice the sum of the larger.
    larger = round((total + float(x.sum())) / 2)
    assert sorted((larger >> (2 * i)) & 3 for i in range(8)) == [0] * 4 + [1] * 4
    assert pair_distance(x, seed=1) == pair_distance(x, seed=1) != pair_distance(x, seed=2)
    assert pair_distance(x, num_pairs=3).num_pairs == 3


def test_collapse_is_seen() -> None:
    assert pair_distance(torch.ones(10, 3)) == (0.0, 0.0, 5)
    assert ms_ssim(blobs(1, 28).expand(10, -1, -1, -1), value_range=(0, 1)).value == pytest.approx(1, abs=1e-5)
    diverse = ms_ssim(blobs(60, 28), value_range=(0, 1))
    assert diverse.value + 4.4 * diverse.standard_error < 1


@pytest.mark.parametrize("side", SCALES)
def test_as_many_scales_as_the_image_has_room_for(side: int) -> None:
    a, b = two_alike(side)
    weights = WEIGHTS[: SCALES[side]] / WEIGHTS[: SCALES[side]].sum()
    expected = reference(a[None], b[None], data_range=1.0, betas=tuple(weights.tolist()))
    assert 0.05 < float(expected) < 0.99
    images = torch.stack([a, b, a, b])
    # One in three of the ways to pair a, b, a, b pairs each image with its copy.
    for seed in range(20):
        value = ms_ssim(images, value_range=(0, 1), seed=seed).value
        assert min(abs(value - 1), abs(value - float(expected))) < 1e-4
    wide = torch.cat([images, images], dim=-1)
    assert 0 < ms_ssim(wide, value_range=(0, 1)).value < 1 + 1e-4


def test_shape_and_range_do_not_matter() -> None:
    images = blobs(30, 28)
    expected = ms_ssim(images, value_range=(0, 1)).value
    assert ms_ssim(images[:, 0], value_range=(0, 1)).value == expected
    assert ms_ssim(images * 2 - 1).value == pytest.approx(expected, abs=1e-4)
    assert ms_ssim(images.double() * 255, value_range=(0, 255)).value == pytest.approx(expected, abs=1e-4)
    shifted = torch.where(images > 0.4, 5.0, -5.0)
    with pytest.warns(UserWarning, match=r"100.0% .* outside value_range .*\(0, 255\)"):
        clipped = ms_ssim(shifted)
    assert clipped.value == pytest.approx(ms_ssim(shifted.clamp(-1, 1)).value, abs=1e-6)
    assert ms_ssim(blobs(6, 30, channels=3), value_range=(0, 1), num_pairs=2).num_pairs == 2


def test_grey_levels_in_the_range_of_tanh_warn() -> None:
    levels = (blobs(20, 28) * 255).to(torch.uint8)
    with pytest.warns(UserWarning, match="are clipped"):
        ms_ssim(levels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ms_ssim(levels, value_range=(0, 255))


def test_many_pairs_go_in_passes() -> None:
    images = blobs(1, 11).expand(2400, -1, -1, -1)
    assert ms_ssim(images, value_range=(0, 1)).value == pytest.approx(1, abs=1e-4)
    assert ms_ssim(images, value_range=(0, 1)).num_pairs == 1200


def test_copies_are_counted_once() -> None:
    x = torch.randn(50, 1, 3, 3)
    assert num_distinct(x) == 50
    assert num_distinct(x[torch.arange(50).repeat(3)]) == 50
    assert num_distinct(x[:1].expand(9, -1, -1, -1)) == 1
    assert num_distinct(torch.tensor([[0.0, 1.0], [-0.0, 1.0]])) == 1


@pytest.mark.parametrize(
    "function, samples, kwargs, words",
    [
        (pair_distance, torch.randn(9), {}, r"\(9,\)"),
        (pair_distance, torch.randn(3, 2), {}, r"at least 4 rows; got \(3, 2\)"),
        (pair_distance, torch.randn(10, 2), {"num_pairs": 6}, "num_pairs between 2 and 5; got 6"),
        (pair_distance, torch.full((10, 2), math.nan), {}, "10 of 10 rows"),
        (num_distinct, torch.randn(9), {}, r"\(9,\)"),
        (num_distinct, torch.full((10, 2), math.nan), {}, "10 of 10 rows"),
        (ms_ssim, torch.rand(10, 784), {}, "Unflatten"),
        (ms_ssim, torch.rand(10, 1, 8, 28), {}, "11 pixels"),
        (ms_ssim, torch.rand(10, 28, 28), {"value_range": (1.0, -1.0)}, "black below white"),
        (ms_ssim, torch.full((10, 28, 28), math.nan), {}, "finite images; got NaN or infinity in 10 of 10 rows"),
        (ms_ssim, torch.rand(2, 28, 28), {}, r"at least 4 rows; got \(2, 1, 28, 28\)"),
    ],
)
def test_bad_input_gets_a_clear_error(function: Any, samples: Tensor, kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        function(samples, **kwargs)


def test_without_torchmetrics_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ImportError) as error:
        ms_ssim(torch.rand(10, 28, 28))
    assert error.value.__notes__ == ["pip install pyro-gan[images]"]
