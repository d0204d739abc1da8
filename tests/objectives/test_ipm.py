"""The Wasserstein pair by hand."""

from __future__ import annotations

import pytest
import torch

from pyro_gan.objectives import Wasserstein


def test_losses_by_hand() -> None:
    real, generated = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 5.0, 6.0])
    assert float(Wasserstein().critic_loss(real, generated)) == 3.5
    assert float(Wasserstein().generator_loss(real, generated)) == -5


def test_no_log_ratio_and_the_cure_is_named() -> None:
    with pytest.raises(ValueError, match=r"calibrate\(critic, real, generated\)"):
        Wasserstein().log_ratio(torch.zeros(3))


def test_no_output_for_a_log_ratio() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        Wasserstein().output(torch.zeros(3))
