"""Scoring rules: smoothed labels, prior and saturation; `test_recovery` recovers a known ratio."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_gan import objectives
from pyro_gan.objectives import Bernoulli, Brier, Exponential, LeastSquares, Minimax, ScoringRule, Spherical
from tests.registry import concrete_members

RULES = [rule for rule in concrete_members(objectives, ScoringRule).values() if rule.proper]


def slope(loss, at: float) -> float:
    output = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(output.new_zeros(0), output), output)
    return float(gradient)


def test_class_prior_shifts_the_logit() -> None:
    assert float(Bernoulli(0.2).log_ratio(torch.zeros(()))) == pytest.approx(1.38629436)


@pytest.mark.parametrize(
    ("objective", "minimax", "alternative"),
    [  # at an output of -10, where the critic is sure
        (Bernoulli(), 4.54e-5, 1.0),
        (Brier(), 4.12e-9, 9.08e-5),
        (Exponential(), 3.37e-3, 74.2),
        (Spherical(), 2.06e-9, 4.54e-5),
        (LeastSquares(), 20.0, 22.0),
    ],
    ids=repr,
)
def test_generators_gradients_where_the_critic_is_sure(
    objective: ScoringRule, minimax: float, alternative: float
) -> None:
    assert abs(slope(Minimax(objective).generator_loss, -10.0)) == pytest.approx(minimax, rel=5e-3)
    assert slope(objective.generator_loss, -10.0) == pytest.approx(-alternative, rel=5e-3)


def test_prior_and_labels_do_not_weigh_the_generator() -> None:
    output = torch.linspace(-3, 3, 5)
    odd = Bernoulli(0.1, real_label=0.7, generated_label=0.2)
    for one, other in ((odd, Bernoulli()), (Minimax(odd), Minimax(Bernoulli()))):
        assert torch.equal(one.generator_loss(output, output), other.generator_loss(output, output))


@pytest.mark.parametrize("rule", RULES)
def test_smoothing_mixes_the_two_costs(rule: type[ScoringRule]) -> None:
    real, generated = torch.rand(4), torch.rand(4)
    one, zero = rule(), rule(real_label=0.9, generated_label=0.2)
    expected = 0.5 * (0.9 * one.real_term(real) + 0.1 * one.generated_term(real)) + 0.5 * (
        0.2 * one.real_term(generated) + 0.8 * one.generated_term(generated)
    )
    assert torch.allclose(zero.critic_loss(real, generated), expected)


def test_smoothed_labels_by_hand() -> None:
    """With even odds and label .9 for real data the probability of label 1 is .45."""
    objective = Bernoulli(real_label=0.9)
    logit = math.log(0.45 / 0.55)
    assert float(objective.log_ratio(torch.tensor(logit, dtype=torch.float64))) == pytest.approx(0, abs=1e-12)
    assert float(objective.output(torch.zeros((), dtype=torch.float64))) == pytest.approx(logit)
    linear = LeastSquares(0.2, real_label=0.9, generated_label=0.1)
    assert float(linear.output(torch.zeros((), dtype=torch.float64))) == pytest.approx(0.2 * 0.9 + 0.8 * 0.1)


@pytest.mark.parametrize(
    ("objective", "inside", "outside"),
    [
        (LeastSquares(), (0.01, 0.99), (0.0, 1.0, -0.3, 1.2)),
        (LeastSquares(real_label=0.9, generated_label=0.1), (0.11, 0.89), (0.1, 0.9)),
        (Bernoulli(real_label=0.9), (-90.0, 2.19), (2.2, 90.0)),
        (Spherical(generated_label=0.1), (-2.19, 90.0), (-2.2, -100.0)),
    ],
    ids=repr,
)
def test_outputs_that_no_ratio_would_teach_raise(
    objective: ScoringRule, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    value = objective.log_ratio(torch.tensor(inside, requires_grad=True))
    assert value.isfinite().all() and (value.diff() > 0).all()
    for bad in outside:
        with pytest.raises(ValueError, match=r"strictly between .*calibrate"):
            objective.log_ratio(torch.tensor([inside[0], bad]))


def test_nan_is_passed_on() -> None:
    for objective in (LeastSquares(), Bernoulli(real_label=0.9)):
        assert objective.log_ratio(torch.tensor([0.5, math.nan])).isnan().tolist() == [False, True]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("class_prior", [0.0, 1.0, -0.1, math.nan])
def test_bad_class_prior_raises(rule: type[ScoringRule], class_prior: float) -> None:
    with pytest.raises(ValueError, match="class_prior"):
        rule(class_prior)


@pytest.mark.parametrize("labels", [(1.0, 1.0), (0.2, 0.8), (1.1, 0.0), (0.9, -0.1), (math.nan, 0.0)])
def test_bad_labels_raise(labels: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="generated_label < real_label"):
        Bernoulli(real_label=labels[0], generated_label=labels[1])


def test_repr_names_what_is_not_usual() -> None:
    assert repr(Bernoulli()) == "Bernoulli(class_prior=0.5)"
    assert repr(Brier(0.2, real_label=0.9)) == "Brier(class_prior=0.2, real_label=0.9, generated_label=0.0)"


def test_least_squares_is_the_regression_on_labels() -> None:
    real, generated = torch.randn(5), torch.randn(5)

    def regression(output: Tensor, label: float) -> Tensor:
        return (output - label).square().mean() + label * (1 - label)

    loss = LeastSquares(real_label=0.9, generated_label=0.1).critic_loss(real, generated)
    assert torch.allclose(loss, 0.5 * regression(real, 0.9) + 0.5 * regression(generated, 0.1))
