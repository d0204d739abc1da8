"""The Fréchet distance against closed forms and against the matrix root of SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pyro_gan.evaluate import frechet_distance


def features(num_draws: int, dim: int, *, shift: float = 0.0) -> torch.Tensor:
    mixing = torch.randn(dim, dim, dtype=torch.float64)
    return torch.randn(num_draws, dim, dtype=torch.float64) @ mixing + shift


def with_moments(x: torch.Tensor, mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Whiten a set, and give it exactly these moments."""
    centred = x - x.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centred.T))).T
    return white * sd + mean


def test_agrees_with_the_formula_in_scipy() -> None:
    a, b = features(300, 7), features(400, 7, shift=1.0)
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    sd_a, sd_b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([0.3, 2.5, 4.0]).double()
    mean_a, mean_b = torch.zeros(3).double(), torch.tensor([1.0, -1.0, 2.0]).double()
    a, b = with_moments(features(100, 3), mean_a, sd_a), with_moments(features(90, 3), mean_b, sd_b)
    expected = float((mean_a - mean_b).square().sum() + (sd_a - sd_b).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_equal_sets_have_distance_zero_even_with_a_dead_feature() -> None:
    x = features(200, 5).float()
    x[:, 2] = 0.25
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-5)
    assert frechet_distance(x, x[torch.randperm(200)]) == pytest.approx(0.0, abs=1e-5)
    y = x.clone()
    y[:, 2] += 3
    assert frechet_distance(x, y) == pytest.approx(9.0, abs=1e-5)


def test_dependent_features_are_no_obstacle() -> None:
    x = features(200, 3) @ torch.randn(3, 12, dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-4)
    assert frechet_distance(x, x + 1) == pytest.approx(12.0, abs=1e-4)


def test_float32_far_from_the_origin_keeps_its_digits() -> None:
    x = features(500, 4).float()
    offset = 4096.0
    assert frechet_distance(x + offset, x + offset + 1) == pytest.approx(4.0, rel=1e-2)


def test_images_are_flattened() -> None:
    x, y = torch.randn(50, 1, 3, 3), torch.randn(60, 1, 3, 3)
    assert frechet_distance(x, y) == frechet_distance(x.flatten(1), y.flatten(1))


@pytest.mark.parametrize(
    "a, b, words",
    [
        (torch.randn(5, 5), torch.randn(50, 5), "outputs.*got 5 rows of 5"),
        (torch.randn(50, 5), torch.randn(3, 5), "real.*got 3 rows"),
        (torch.randn(50, 5), torch.randn(50, 4), r"real of shape \(row, 5\); got \(50, 4\)"),
        (torch.full((50, 5), math.nan), torch.randn(50, 5), "finite outputs; got NaN or infinity in 50 of 50 rows"),
        (torch.randn(50, 5), torch.full((50, 5), math.inf), "finite real; got NaN or infinity in 50"),
        (torch.randn(50), torch.randn(50), r"\(50,\)"),
    ],
)
def test_bad_input_gets_a_clear_error(a: torch.Tensor, b: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        frechet_distance(a, b)
