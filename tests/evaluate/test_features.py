"""Features: any network, any number of passes, and a clear error if a network returns NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyro_gan.evaluate import extract_features, frechet_distance


def network(*, batch_norm: bool = False) -> nn.Module:
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3) if batch_norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 20, 1000])
def test_passes_change_nothing(chunk_size: int | None) -> None:
    net, x = network().eval(), torch.randn(20, 1, 5, 5)
    features = extract_features(x, net, chunk_size=chunk_size)
    assert features.shape == (20, 27) and not features.requires_grad
    torch.testing.assert_close(features, net(x).detach().flatten(1))


def test_no_pass_is_larger_than_asked() -> None:
    seen: list[int] = []

    def scaled(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(len(images))
        return images.double().mean((1, 2, 3))

    features = extract_features(torch.randn(20, 1, 5, 5), scaled, chunk_size=8)
    assert seen == [8, 8, 4]
    assert features.shape == (20, 1) and features.dtype == torch.float64


def test_features_go_where_samples_go() -> None:
    net = nn.Sequential(nn.Linear(6, 3), nn.Tanh())
    x, y = torch.randn(200, 6), torch.randn(200, 6) + 1
    distance = frechet_distance(extract_features(x, net), extract_features(y, net))
    assert distance == pytest.approx(frechet_distance(net(x), net(y)), rel=1e-5)
    assert distance > 0


def test_training_mode_and_wrong_shapes_are_refused() -> None:
    x = torch.randn(20, 1, 5, 5)
    with pytest.raises(ValueError, match="BatchNorm2d.*network.eval()"):
        extract_features(x, network(batch_norm=True))
    extract_features(x, network(batch_norm=True).eval())
    with pytest.raises(ValueError, match=r"20 samples; got \(\)"):
        extract_features(x, lambda images: images.mean())
    with pytest.raises(ValueError, match=r"20 samples; got \(1, 1, 5, 5\)"):
        extract_features(x, lambda images: images.mean(0, keepdim=True))
    with pytest.raises(ValueError, match="got tuple"):
        extract_features(x, lambda images: (images, images))
    with pytest.raises(ValueError, match=r"at least one; got \(0, 1, 5, 5\)"):
        extract_features(x[:0], network())
    with pytest.raises(ValueError, match="chunk_size of at least 1; got 0"):
        extract_features(x, network(), chunk_size=0)


def test_nan_features_are_counted_by_row() -> None:
    x = torch.rand(30, 4)
    x[[3, 17, 29]] = -1.0
    with pytest.raises(
        ValueError, match="finite features; got NaN or infinity in 3 of 30 rows.*Find out what makes them"
    ):
        extract_features(x, lambda rows: rows.log(), chunk_size=5)
    bad = torch.randn(30, 4)
    bad[5, 1], bad[7] = math.nan, math.inf
    with pytest.raises(ValueError, match="finite real; got NaN or infinity in 2 of 30 rows"):
        frechet_distance(torch.randn(30, 4), bad)
