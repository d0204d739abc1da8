"""What a certificate rests on: powers tried, level, and effective draws."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.evaluate import INVERSE_TEMPERATURES, certify_temperature


def test_powers_go_from_a_sixteenth_to_one_in_steps_of_the_root_of_two() -> None:
    assert INVERSE_TEMPERATURES[0] == 1 / 16 and INVERSE_TEMPERATURES[-1] == 1
    steps = zip(INVERSE_TEMPERATURES, INVERSE_TEMPERATURES[1:], strict=False)
    assert all(high == pytest.approx(math.sqrt(2) * low) for low, high in steps)


@pytest.mark.parametrize("level", [0.0, 0.5, 0.9, math.nan])
def test_a_level_is_below_one_half(level: float) -> None:
    x = torch.randn(60, 1)
    with pytest.raises(ValueError, match="level"):
        certify_temperature(x, x[:, 0], x, inverse_temperatures=[1.0], level=level)


@pytest.mark.parametrize(("num_carriers", "improves"), [(60, False), (150, True)])
def test_fewer_than_a_hundred_effective_draws_certify_nothing(num_carriers: int, improves: bool) -> None:
    """The draws that carry the weight are data, so the distance falls to 0 however few they are."""
    x, log_ratio = torch.randn(1000, 1), torch.full((1000,), -math.inf)
    x[:num_carriers], log_ratio[:num_carriers] = torch.randn(num_carriers, 1) + 9, 0.0
    _, steps = certify_temperature(x, log_ratio, torch.randn(300, 1) + 9, inverse_temperatures=[1.0])
    assert steps[0].change.difference < -10 * steps[0].change.standard_error
    assert steps[0].improves is improves
