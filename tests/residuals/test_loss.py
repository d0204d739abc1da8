"""The residual losses: each has a noise distribution with density `C exp(-loss / lambda)`, in either reduction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pyro_gan.residuals import ResidualLoss, residual_loss

LOSSES = [
    ResidualLoss(name, reduction)
    for name in ("squared_l2", "half_squared_l2", "l1", "l2")
    for reduction in ("sum", "mean")
    if (name, reduction) != ("l2", "mean")
]
each = pytest.mark.parametrize("loss", LOSSES, ids=str)


@each
@pytest.mark.parametrize("event", [(1,), (5,), (2, 3)])
def test_noise_has_the_density_of_the_loss(loss: ResidualLoss, event: tuple[int, ...]) -> None:
    y, x = torch.randn(2, 4, *event, dtype=torch.float64)
    noise = loss.noise(x, 0.7, event_dim=len(event))
    assert (noise.batch_shape, noise.event_shape) == ((4,), event)
    rows = loss.rows((y - x).flatten(1))
    expected = loss.log_constant(math.prod(event), 0.7) - rows / 0.7
    assert torch.allclose(noise.log_prob(y), expected)
    assert torch.allclose(loss.pairwise(y.flatten(1), x.flatten(1)).diagonal(), rows)


def test_losses_by_hand() -> None:
    residual = torch.tensor([[3.0, -4.0]])
    expected = {"squared_l2": 25.0, "half_squared_l2": 12.5, "l1": 7.0, "l2": 5.0}
    for name, value in expected.items():
        assert float(residual_loss(name, "sum").rows(residual)) == value
        if name != "l2":
            assert float(residual_loss(name, "mean").rows(residual)) == value / 2


@each
@pytest.mark.parametrize("bad", [None, "x", math.nan, math.inf, 0, -1, [1.0], np.ones(2), torch.ones(2)])
def test_lambda_must_be_a_positive_number(loss: ResidualLoss, bad: Any) -> None:
    for call in (lambda: loss.noise(torch.zeros(3), bad), lambda: loss.log_constant(3, bad)):
        with pytest.raises(ValueError, match=r"positive, finite regularization.*lambda of exp\(-loss / lambda\)"):
            call()


@each
def test_a_point_must_be_a_tensor_with_an_event(loss: ResidualLoss) -> None:
    for bad in (None, "x", 1.0, [0.0], np.zeros(3)):
        with pytest.raises(ValueError, match="loc to be a torch.Tensor"):
            loss.noise(bad, 1.0)
    with pytest.raises(ValueError, match="at least event_dim = 2 dimensions"):
        loss.noise(torch.zeros(3), 1.0, event_dim=2)
    for dim in (0, math.nan, "x", None):
        with pytest.raises(ValueError, match="event_dim"):
            loss.noise(torch.zeros(3), 1.0, event_dim=dim)


def test_other_names_raise() -> None:
    for name in ("cosine", None, 1, ["l1"], torch.zeros(2)):
        with pytest.raises(ValueError, match="loss to be one of .*constant would depend on z"):
            residual_loss(name, "sum")
    for reduction in ("none", None, 0):
        with pytest.raises(ValueError, match="reduction to be one of 'sum', 'mean'"):
            residual_loss("l1", reduction)
    with pytest.raises(ValueError, match="not a sum over coordinates"):
        residual_loss("l2", "mean")
