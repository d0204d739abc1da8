"""Mode assignment, high-quality share, mode sd and JSD against counts by hand, SciPy and the exact grid."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from pyro_gan import toys
from pyro_gan.evaluate import assign_modes, mode_jsd, mode_report
from tests.statistics import assert_close_in_se

MEANS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_assignment_stops_at_the_radius() -> None:
    x = torch.tensor([[0.39, 0.0], [0.41, 0.0], [1.0, -0.39], [0.3, 0.3], [0.0, 1.0]])
    assert assign_modes(x, MEANS, sd=0.1).tolist() == [0, 3, 1, 3, 2]
    assert assign_modes(x, MEANS, sd=0.1, num_sds=2).tolist() == [3, 3, 3, 3, 2]
    assert assign_modes(x, MEANS, sd=0.2).tolist() == [0, 0, 1, 0, 2]


def test_assignment_keeps_its_digits_far_from_the_origin() -> None:
    means = MEANS + 1000
    assert assign_modes(means + 0.19, means, sd=0.07).tolist() == [0, 1, 2]
    assert assign_modes(means + 0.21, means, sd=0.07).tolist() == [3, 3, 3]


def test_report_by_hand() -> None:
    x = torch.tensor([[0.1, 0.0], [-0.1, 0.0], [1.0, 0.2], [1.0, 0.0], [0.0, 1.1], [5.0, 5.0]])
    report = mode_report(x, MEANS, sd=0.1)
    assert report.counts.tolist() == [2, 2, 1, 1]
    assert report.high_quality == pytest.approx(5 / 6)
    assert report.standard_error == pytest.approx(math.sqrt(5 / 36 / 6))
    assert report.num_modes == 3
    # Per coordinate (0.1, 0) and (0, 0.1), with ddof 0, averaged over coordinates and over the two modes with a spread.
    assert report.mode_sd == pytest.approx(0.05, abs=1e-6)
    assert report.jsd == mode_jsd(report.counts)


def test_jsd_is_scipy_s_and_in_nats() -> None:
    counts = torch.tensor([5, 0, 9, 3, 4])
    expected = jensenshannon(counts.numpy(), [0.25, 0.25, 0.25, 0.25, 0.0]) ** 2
    assert mode_jsd(counts) == pytest.approx(expected, rel=1e-12)
    assert mode_jsd(torch.tensor([0, 0, 7])) == pytest.approx(math.log(2))
    assert mode_jsd(torch.tensor([7, 7, 0])) == 0
    assert mode_jsd(torch.tensor([3, 3, 3, 0])) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_grid_samples_are_judged_exact(dtype: torch.dtype) -> None:
    toy = toys.grid(dtype=dtype)
    n, sd = 40_000, 0.05
    report = mode_report(toy.sample_data(n), toy.posterior.means, sd=sd)
    inside = 1 - math.exp(-8)
    assert_close_in_se(report.high_quality, inside, math.sqrt(inside * (1 - inside) / n), "high quality")
    assert report.num_modes == 25
    # The cut at 4 sd removes 8 exp(-8) / (1 - exp(-8)) of the variance; there are 2 n coordinates and 25 sample means.
    cut = sd * math.sqrt((1 - 8 * math.exp(-8) / inside) * (1 - 25 / n))
    assert_close_in_se(report.mode_sd, cut, sd / math.sqrt(4 * n), "mode sd")
    # 8 n JSD is chi-squared with 24 degrees of freedom, plus the share that is not high quality.
    assert report.jsd < 0.0004


def test_generator_of_the_grid_is_found_wanting() -> None:
    toy = toys.grid()
    report = mode_report(toy.prior.sample((40_000,)), toy.posterior.means, sd=0.05)
    assert 0.85 < report.high_quality < 0.89 and report.mode_sd > 0.06 and report.jsd > 0.05


def test_nothing_found() -> None:
    report = mode_report(torch.full((3, 2), 9.0), MEANS, sd=0.1)
    assert report.high_quality == 0 and report.num_modes == 0
    assert math.isnan(report.mode_sd) and report.jsd == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "samples, means, kwargs, words",
    [
        (torch.zeros(4, 3), MEANS, {"sd": 1.0}, r"samples of shape \(row, 2\); got \(4, 3\)"),
        (torch.zeros(4), MEANS, {"sd": 1.0}, "samples"),
        (torch.zeros(4, 2), MEANS, {"sd": 0.0}, "positive, finite sd; got 0"),
        (torch.zeros(4, 2), MEANS, {"sd": 1.0, "num_sds": -1.0}, "positive, finite num_sds; got -1"),
        (
            torch.tensor([[0.0, math.nan], [0.0, 0.0]]),
            MEANS,
            {"sd": 1.0},
            "finite samples; got NaN or infinity in 1 of 2 rows",
        ),
        (torch.zeros(0, 2), MEANS, {"sd": 1.0}, "with at least 1 rows"),
    ],
)
def test_bad_input_gets_a_clear_error(
    samples: torch.Tensor, means: torch.Tensor, kwargs: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        assign_modes(samples, means, **kwargs)


@pytest.mark.parametrize("counts", [[3], [0, 0], [[1, 1], [1, 1]], [-1, 5, 0], [math.nan, 1], [math.inf, 1]])
def test_jsd_refuses_counts_without_a_sample(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="counts"):
        mode_jsd(torch.tensor(counts))
