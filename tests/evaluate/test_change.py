"""The change of the Frechet distance by weights: against closed forms, its error, and singular covariances."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.evaluate import frechet_change, frechet_distance
from pyro_gan.ratio import RandomFeatures
from tests.statistics import NUM_SE


def test_exact_weights_remove_a_shift() -> None:
    """N(0, 1) against N(s, 1): the distance is s^2, and the exact weights exp(s x) make it 0."""
    shift = 0.7
    change = frechet_change(x := torch.randn(20_000, 1), shift * x[:, 0], torch.randn(20_000, 1) + shift)
    assert abs(change.difference + shift**2) < NUM_SE * change.standard_error
    assert change.before == pytest.approx(shift**2, abs=0.06) and change.after < 0.02
    assert change.ess == pytest.approx(20_000 * math.exp(-(shift**2)), rel=0.1)


def test_equal_weights_change_nothing() -> None:
    x, real = torch.randn(300, 4), torch.randn(200, 4)
    change = frechet_change(x, torch.full((300,), 3.0), real)
    assert change.difference == pytest.approx(0.0, abs=1e-12) == change.standard_error
    # Our covariance divides by n, and that distance's by n - 1.
    assert change.before == pytest.approx(frechet_distance(x, real), rel=0.02)


def test_distance_is_that_of_a_user_s_rows() -> None:
    """Fewer outputs have a larger distance, before and after, and the mean over users' sets is what is stated."""
    x, real = torch.randn(2000, 5), torch.randn(1000, 5) + 0.2
    log_w = 0.5 * x[:, 0]
    change = frechet_change(x, log_w, real, num_outputs=100)
    users = [
        frechet_change(x[i : i + 100], torch.zeros(100), real, num_bootstrap=20).before for i in range(0, 2000, 100)
    ]
    assert change.before == pytest.approx(sum(users) / 20, rel=0.15)
    whole = frechet_change(x, log_w, real)
    assert change.before > whole.before + 0.05 and change.after > whole.after + 0.05


@pytest.mark.parametrize(("shift", "scale"), [(0.3, 0.0), (0.3, 1.0), (0.0, 0.5)])
def test_error_is_the_spread_of_repeats(shift: float, scale: float) -> None:
    """Also for weights with noise. It is at most 1.7 times too large, where no distance exceeds its noise."""
    found = []
    for seed in range(40):
        x, real = torch.randn(500, 4), torch.randn(400, 4) + shift
        log_w = shift * x.sum(1) + scale * torch.randn(500)
        found.append(frechet_change(x, log_w, real, num_bootstrap=20, seed=seed))
    spread = torch.tensor([one.difference for one in found]).std()
    stated = torch.tensor([one.standard_error for one in found]).square().mean().sqrt()
    assert spread / 1.5 < stated < 2.4 * spread


def test_noise_is_never_called_an_improvement() -> None:
    """Weights of pure noise make a user's samples worse; one-sided at 5 %, none of 40 is called better."""
    for seed in range(40):
        x, real = torch.randn(300, 4), torch.randn(300, 4)
        change = frechet_change(x, torch.randn(300), real, num_bootstrap=20, seed=seed)
        assert change.difference > -1.645 * change.standard_error


def test_singular_covariances() -> None:
    """Random features of plane data have rank 2 and clusters that sum to 1; rows may be fewer than features."""
    x, real = torch.randn(2000, 2), torch.randn(2000, 2) + 0.5
    features = RandomFeatures(real, num_projections=64, num_clusters=20)
    change = frechet_change(features(x), 0.5 * x.sum(1), features(real), num_bootstrap=50)
    assert change.difference < -5 * change.standard_error
    few = frechet_change(torch.randn(60, 100), torch.randn(60), torch.randn(50, 100), num_bootstrap=20)
    assert all(math.isfinite(value) for value in few)
    one = torch.full((60,), -math.inf)
    one[3] = 0.0
    assert math.isfinite(frechet_change(torch.randn(60, 3), one, torch.randn(50, 3), num_bootstrap=20).standard_error)


def test_place_and_order_do_not_matter() -> None:
    x, log_w, real = torch.randn(300, 3).double(), torch.randn(300), torch.randn(300, 3).double()
    state = torch.get_rng_state()
    here, there = (frechet_change(x + c, log_w, real + c) for c in (0.0, 1e6))
    assert here == pytest.approx(there, rel=1e-5)
    assert torch.equal(state, torch.get_rng_state())


def test_wrong_arguments() -> None:
    x, log_w, real = torch.randn(60, 3), torch.zeros(60), torch.randn(60, 3)
    with pytest.raises(ValueError, match="one log weight a draw; got 59 log weights and 60 draws"):
        frechet_change(x, log_w[:-1], real)
    with pytest.raises(ValueError, match="num_outputs between 50 and 60; got 61. More outputs than draws are copies"):
        frechet_change(x, log_w, real, num_outputs=61)
    with pytest.raises(ValueError, match="that are all -inf"):
        frechet_change(x, log_w - math.inf, real)
    with pytest.raises(ValueError, match="at least 50 rows"):
        frechet_change(x, log_w, real[:49])
