"""The held-out report against scikit-learn and formulas, and its standard errors against repetition."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from pyro_gan import toys
from pyro_gan.ratio import RatioReport, diagnose

Z = 4.4  # standard errors: one false alarm in 1e5


def exact_scores(num_real: int, num_generated: int, auc: float = 0.8) -> tuple[Tensor, Tensor]:
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    return toy.log_ratio(toy.sample_data(num_real)), toy.log_ratio(toy.prior.sample((num_generated,)))


@pytest.mark.parametrize("balance", [1, 4])
def test_against_scikit_learn(balance: int) -> None:
    reason = "scikit-learn is an extra, pyro-gan[sklearn]"
    metrics, linear = (pytest.importorskip(f"sklearn.{part}", reason=reason) for part in ("metrics", "linear_model"))
    real, generated = exact_scores(2000 * balance, 2000)
    real, generated = ((1.7 * real + 0.3).round(decimals=1), (1.7 * generated + 0.3).round(decimals=1))  # with ties
    report = diagnose(real, generated)
    offset = math.log(balance)
    score = torch.cat([real, generated])
    label = torch.cat([torch.ones_like(real), torch.zeros_like(generated)])
    p = torch.sigmoid(score + offset)
    assert report.auc == pytest.approx(metrics.roc_auc_score(label, score))
    assert report.brier == pytest.approx(metrics.brier_score_loss(label, p))
    assert report.log_loss == pytest.approx(metrics.log_loss(label, p))
    n_real, n_generated = label.sum(), (1 - label).sum()
    fixed_counts = n_real * p[label == 1].var(correction=0) + n_generated * p[label == 0].var(correction=0)
    assert report.dawid_z == pytest.approx(float((label - p).sum() / fixed_counts.sqrt()))
    fit = linear.LogisticRegression(C=1e12, tol=1e-8).fit(score[:, None], label)
    assert report.slope == pytest.approx(fit.coef_[0, 0], rel=1e-3)
    assert report.intercept == pytest.approx(fit.intercept_[0] - offset, abs=1e-3)


@pytest.mark.parametrize("num_real", [20_000, 60_000])
def test_an_exact_ratio_passes(num_real: int) -> None:
    report = diagnose(*exact_scores(num_real, 20_000))
    assert abs(report.slope - 1) < Z * report.slope_se
    assert abs(report.intercept) < Z * report.intercept_se
    assert abs(report.dawid_z) < Z
    assert abs(report.mean_ratio - 1) < Z * report.mean_ratio_se + 0.01  # its standard error does not see the tail
    assert report.ece < 3 * report.ece_if_calibrated
    assert report.independence_acceptance == 2 * (1 - report.auc)
    assert (report.n_real, report.n_generated, report.tail.num_draws) == (num_real, 20_000, 20_000)


@pytest.mark.parametrize("counts", [(1000, 1000), (300, 3000), (3000, 1000)])
def test_standard_errors_are_those_of_repetition(counts: tuple[int, int]) -> None:
    """Squares of 400 standardised errors have mean 1. With the error of drawn labels, Z's would have mean .1 to .3."""
    repetitions = 400 if counts == (1000, 1000) else 150
    reports = [diagnose(*exact_scores(*counts)) for _ in range(repetitions)]
    for errors in (
        torch.tensor([(r.slope - 1) / r.slope_se for r in reports]),
        torch.tensor([r.intercept / r.intercept_se for r in reports]),
        torch.tensor([r.dawid_z for r in reports]),
        torch.tensor([r.constant / r.constant_se for r in reports]),
    ):
        assert abs(float(errors.square().mean()) - 1) < Z * math.sqrt(2 / repetitions) + 0.05
    if counts != (1000, 1000):
        return
    # The ECE by chance alone. Neighbouring bins are nearly independent: 400 x 20 folded normals.
    excess = torch.tensor([r.ece / r.ece_if_calibrated for r in reports])
    assert abs(float(excess.mean()) - 1) < Z * float(excess.std()) / 20 + 0.03


def test_scaling_and_shifting_the_log_ratio() -> None:
    real, generated = exact_scores(3000, 3000)
    plain, doubled, shifted = (diagnose(f(real), f(generated)) for f in (lambda s: s, lambda s: 2 * s, lambda s: s + 1))
    assert doubled.slope == pytest.approx(plain.slope / 2) and doubled.slope_se == pytest.approx(plain.slope_se / 2)
    assert doubled.intercept == pytest.approx(plain.intercept, abs=1e-8)
    assert shifted.slope == pytest.approx(plain.slope)
    assert shifted.intercept == pytest.approx(plain.intercept - plain.slope)
    assert doubled.auc == shifted.auc == plain.auc
    assert shifted.constant == pytest.approx(plain.constant - 1) and abs(plain.constant) < Z * plain.constant_se
    assert shifted.mean_ratio == pytest.approx(plain.mean_ratio)
    assert abs(doubled.mean_ratio - 1) > Z * plain.mean_ratio_se  # a constant does not repair a slope


@pytest.mark.parametrize("counts", [(1000, 10_000), (3000, 1000)])
def test_the_variance_of_z_is_that_of_the_formula(counts: tuple[int, int]) -> None:
    """The variance within the classes is sum p (1 - p) times 1 - E_G[p] / pi, for a calibrated ratio."""
    real, generated = exact_scores(*(20 * count for count in counts))
    share = counts[0] / sum(counts)
    p_real, p_generated = (torch.sigmoid(part + math.log(counts[0] / counts[1])) for part in (real, generated))
    drawn = share * (p_real * (1 - p_real)).mean() + (1 - share) * (p_generated * (1 - p_generated)).mean()
    fixed = share * p_real.var() + (1 - share) * p_generated.var()
    formula = 1 - p_generated.mean() / share
    assert float(fixed / drawn) == pytest.approx(float(formula), rel=0.1)
    report = diagnose(real, generated)
    expected = float((len(real) - p_real.sum() - p_generated.sum()) / (fixed * (len(real) + len(generated))).sqrt())
    assert report.dawid_z == pytest.approx(expected, rel=1e-3)


def test_auc_counts_ties_half() -> None:
    assert diagnose(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])).auc == pytest.approx(3.5 / 4)
    assert diagnose(torch.zeros(5), torch.zeros(3)).auc == 0.5


def test_ece_by_hand_and_without_regard_to_the_order_of_ties() -> None:
    """Two values: at 0 a half is predicted and 3/4 seen in 8 rows, at log 3 it is 3/4 and 1/4 in 8 rows."""
    high = math.log(3)
    real, generated = torch.tensor([0.0] * 6 + [high] * 2), torch.tensor([high] * 6 + [0.0] * 2)
    for order in (torch.arange(8), torch.arange(7, -1, -1)):
        report = diagnose(real[order], generated[order])
        assert report.ece == pytest.approx((8 * 0.25 + 8 * 0.5) / 16)
        assert report.reliability.num_rows.tolist() == [8, 8]
        assert report.reliability.predicted.tolist() == pytest.approx([0.5, 0.75])
        assert report.reliability.observed.tolist() == pytest.approx([0.75, 0.25])


def test_reliability_has_twenty_bins_of_equal_mass() -> None:
    reliability = diagnose(*exact_scores(1000, 1000)).reliability
    assert reliability.num_rows.tolist() == [100] * 20
    assert (reliability.predicted.diff() > 0).all()


@pytest.mark.parametrize(("sign", "slope"), [(1, math.inf), (-1, -math.inf)])
def test_separated_classes(sign: int, slope: float) -> None:
    report = diagnose(sign * torch.linspace(2, 3, 50), sign * torch.linspace(-3, -2, 50))
    assert report.slope == slope and report.slope_se == math.inf
    assert report.auc == (sign + 1) / 2
    assert "inf" in str(report)


def test_a_constant_has_no_slope() -> None:
    report = diagnose(torch.full((50,), 0.1), torch.full((50,), 0.1))
    assert math.isnan(report.slope) and report.auc == 0.5 and report.tail.pareto_k == -math.inf
    assert report.dawid_z == -math.inf and report.constant == pytest.approx(-0.1)
    assert math.isnan(diagnose(torch.zeros(50), torch.zeros(20)).dawid_z)
    assert "nan" in str(report)


def test_huge_log_ratios_stay_in_logs() -> None:
    real, generated = exact_scores(1000, 1000)
    report = diagnose(1000 * real, 1000 * generated)
    assert report.mean_ratio == math.inf and math.isfinite(report.log_loss)
    assert report.slope == pytest.approx(diagnose(real, generated).slope / 1000)
    assert report.tail.pareto_k > 0.7


def test_few_against_many_with_a_heavy_tail() -> None:
    """A full Newton step would overshoot here. At the optimum the residuals are orthogonal to 1 and to the score."""
    real, generated = (
        (torch.special.ndtri((torch.arange(n).double() + 0.5) / n) + shift) ** 3 for n, shift in ((8, 2), (1000, 0))
    )
    report = diagnose(real, generated)
    score = torch.cat([real, generated])
    p = torch.sigmoid(report.slope * score + report.intercept + math.log(8 / 1000))
    assert float(p.sum()) == pytest.approx(8)
    assert float((p * score).sum()) == pytest.approx(float(real.sum()))


def test_one_outlier_does_not_stop_the_fit() -> None:
    real, generated = exact_scores(5000, 5000)
    report = diagnose(torch.cat([real, torch.tensor([1e8])]), generated)
    assert math.isfinite(report.slope) and report.slope > 0


def test_the_table_names_every_figure() -> None:
    report = diagnose(*(part.float() for part in exact_scores(500, 500)))
    text = str(report)
    for name in (
        "Dawid Z",
        "slope",
        "intercept",
        "Brier",
        "log loss",
        "ECE",
        "AUC",
        "constant",
        "E_G[r]",
        "ESS",
        "Pareto k",
    ):
        assert name in text
    assert f"{report.auc:.4f}" in text and "500 real" in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.auc = 0.0
    assert isinstance(report, RatioReport)


@pytest.mark.parametrize(
    "bad", [torch.empty(0), torch.zeros(4, 1), torch.tensor([0.0, math.nan]), torch.tensor([math.inf])]
)
def test_bad_log_ratios_raise(bad: Tensor) -> None:
    good = torch.randn(10)
    with pytest.raises(ValueError, match="real"):
        diagnose(bad, good)
    with pytest.raises(ValueError, match="generated"):
        diagnose(good, bad)
