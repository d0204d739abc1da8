"""Laws: an objective with a ratio recovers a known one, by quadrature to 1e-5 and from samples within their error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gan.objectives import (
    GAN,
    KL,
    LSIF,
    UKL,
    Bernoulli,
    Brier,
    DonskerVaradhan,
    Exponential,
    Hinge,
    JensenShannon,
    LeastSquares,
    Minimax,
    Misclassification,
    Neyman,
    Normalised,
    Objective,
    Paired,
    Pearson,
    ReverseKL,
    SeparableObjective,
    Spherical,
    SquaredHellinger,
    TotalVariation,
)
from tests.objectives.gaussian_pair import (
    FEATURES,
    LOG_RATIO,
    P_WIDE,
    TRUE,
    TRUE_WIDE,
    WEIGHT_P,
    WEIGHT_Q,
    P,
    Q,
    X,
    by_row,
    expected_loss,
    fit,
    quadratic,
)
from tests.objectives.members import OBJECTIVES
from tests.statistics import assert_close_in_se

# Beyond 20 nats the ceiling on rewards moves the optimum; only Neyman's weight 1 / r^2 makes that visible.
WITHIN_20_NATS = LOG_RATIO.abs() < 20

#: All that determine the ratio by terms of single rows; `Normalised`, the log of a mean, has its own test.
WITH_A_RATIO: dict[str, SeparableObjective] = {
    name: objective
    for name, objective in ((name, make()) for name, make in OBJECTIVES.items())
    if objective.proper and isinstance(objective, SeparableObjective) and not isinstance(objective, Normalised)
}
each = pytest.mark.parametrize("objective", WITH_A_RATIO.values(), ids=WITH_A_RATIO)

#: The critic's loss at the optimum; for f-divergences it is minus the divergence.
MINIMA: list[tuple[SeparableObjective, float]] = [
    (Bernoulli(), 0.64640512),
    (Brier(), 0.22834685),
    (LeastSquares(), 0.22834685),
    (Exponential(), 0.95079570),
    (Spherical(), -0.73570099),
    (KL(), -0.16814355),
    (ReverseKL(), -0.25341895),
    (Pearson(), -0.28817274),
    (SquaredHellinger(), -0.09840859),
    (JensenShannon(), -0.09348413),
    (GAN(), 1.29281024),
    (DonskerVaradhan(), -0.16814355),
    (LSIF(), -0.28817274 / 2),
    (UKL(), 1 - 0.16814355),
]


def assert_recovered(log_ratio: Tensor, x: Tensor, atol: float = 1e-5) -> None:
    near = x.abs() <= 3
    assert torch.allclose(log_ratio[near], quadratic(TRUE, x)[near], rtol=0, atol=atol)


@pytest.mark.parametrize(("objective", "minimum"), MINIMA, ids=repr)
def test_minimum_at_the_optimum(objective: SeparableObjective, minimum: float) -> None:
    assert float(expected_loss(objective, objective.output(LOG_RATIO))) == pytest.approx(minimum, abs=1e-6)


def test_minimum_of_neyman() -> None:
    """The tails beyond 20 nats, where the loss has its ceiling, hold 4e-4 of 1.95368035."""
    assert float(expected_loss(Neyman(), Neyman().output(LOG_RATIO))) == pytest.approx(-1.95368035, abs=5e-4)


@pytest.mark.parametrize(
    ("objective", "output", "minimum"),
    [
        (Hinge(), LOG_RATIO.sign(), 0.76525219),
        (Misclassification(), LOG_RATIO.sign(), 0.38262609),
        (TotalVariation(), 50 * LOG_RATIO.sign(), -0.23474781),
    ],
    ids=repr,
)
def test_minimum_where_only_the_sign_counts(objective: Objective, output: Tensor, minimum: float) -> None:
    assert float(expected_loss(objective, output)) == pytest.approx(minimum, abs=1e-5)  # of a grid with a jump


def is_curved(objective: SeparableObjective) -> bool:
    """Whether the output is not linear in the log ratio, so that it loses digits where it saturates."""
    output = objective.output(torch.linspace(-3, 3, 7, dtype=torch.float64))
    return float(output.diff(n=2).abs().max()) > 1e-9


@each
def test_the_odds_of_the_two_slopes_are_the_ratio_up_to_20_nats(objective: SeparableObjective) -> None:
    """At the optimum the slopes of the two costs satisfy r R' + F' = 0, and no tangent may begin before 20 nats."""
    limit = 12 if is_curved(objective) else 19.9
    log_ratio = torch.linspace(-limit, limit, 80, dtype=torch.float64)
    output = objective.output(log_ratio).requires_grad_()
    slopes = [torch.autograd.grad(cost.sum(), output, retain_graph=True)[0] for cost in by_row(objective, output)]
    assert torch.allclose((-slopes[1] / slopes[0]).log(), log_ratio, atol=1e-5)


@each
def test_no_wild_output_does_better(objective: SeparableObjective) -> None:
    """Minus the loss stays a lower bound where outputs are so wild that they meet the ceiling on rewards."""
    best = float(expected_loss(objective, objective.output(LOG_RATIO)))
    for spread in (1.0, 10.0, 100.0):
        output = objective.output(LOG_RATIO) + spread * torch.randn(len(X), dtype=torch.float64)
        assert float(expected_loss(objective, output)) > best


@each
def test_no_output_does_better_than_the_ratios(objective: SeparableObjective) -> None:
    """At each point the slope of the expected loss is zero at the optimal output, and its curvature is positive."""
    here = LOG_RATIO.abs() < 5  # further out the curvature of bounded rules is lost in rounding
    output = objective.output(LOG_RATIO[here]).requires_grad_()
    real, generated = by_row(objective, output)
    larger = torch.maximum(WEIGHT_P, WEIGHT_Q)  # a common factor leaves numbers of order one
    cost = (WEIGHT_P / larger)[here] * real + (WEIGHT_Q / larger)[here] * generated
    (slope,) = torch.autograd.grad(cost.sum(), output, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), output)
    assert (curvature > 0).all()
    assert (slope / curvature).abs().max() < 1e-6  # the length of a Newton step


@each
def test_a_fitted_critic_gives_the_log_ratio(objective: SeparableObjective) -> None:
    """The optimum at one point does not depend on the other points, so those beyond the ceiling are left out."""

    def critic(coefficients: Tensor) -> Tensor:
        value = quadratic(coefficients, X[WITHIN_20_NATS])
        return objective.output(value) if is_curved(objective) else value

    def loss(coefficients: Tensor) -> Tensor:
        real, generated = by_row(objective, critic(coefficients))
        return WEIGHT_P[WITHIN_20_NATS] @ real + WEIGHT_Q[WITHIN_20_NATS] @ generated

    near = X[WITHIN_20_NATS].abs() <= 3  # far out a linear output reaches its end, 0 or 1, and `log_ratio` raises
    log_ratio = objective.log_ratio(critic(fit(loss))[near])
    assert_recovered(log_ratio, X[WITHIN_20_NATS][near])


def test_up_to_a_constant_until_normalised() -> None:
    objective = DonskerVaradhan()
    start = torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64)
    output = quadratic(fit(lambda c: expected_loss(objective, quadratic(c, X)), start=start), X)
    gap = output - quadratic(TRUE, X)
    assert gap.std() < 1e-5 and gap.mean().abs() > 0.1
    constant = float((WEIGHT_Q @ output.exp()).log())
    assert_recovered(Normalised(objective, constant).log_ratio(output), X)


@each
def test_a_critic_fitted_to_samples_gives_the_log_ratio(objective: SeparableObjective) -> None:
    """Within the standard errors of the estimating equations, the sandwich, computed by quadrature."""
    n = 20_000
    real, generated = P_WIDE.sample((n,)), Q.sample((n,))

    def loss(coefficients: Tensor) -> Tensor:
        return objective.critic_loss(
            objective.output(quadratic(coefficients, real)), objective.output(quadratic(coefficients, generated))
        )

    fitted = fit(loss)
    log_ratio = quadratic(TRUE_WIDE, X).requires_grad_()
    bread, meat = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    weights = (P_WIDE.log_prob(X).exp() * 0.01, WEIGHT_Q)
    for cost, weight in zip(by_row(objective, objective.output(log_ratio)), weights, strict=True):
        # the square keeps the slope of a linear cost in the graph
        (slope,) = torch.autograd.grad(cost.sum() + 0 * log_ratio.square().sum(), log_ratio, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), log_ratio, retain_graph=True)
        score = slope.detach()[:, None] * FEATURES
        score = score - weight @ score
        meat += (weight[:, None] * score).T @ score / n
        bread += (weight[:, None] * curvature[:, None] * FEATURES).T @ FEATURES
    inverse = torch.linalg.inv(bread)
    se = (inverse @ meat @ inverse).diagonal().sqrt()
    assert_close_in_se(fitted, TRUE_WIDE, se, f"coefficients by {objective!r}")


@pytest.mark.parametrize(
    ("objective", "outputs"), [(Hinge(), [-1.0, 1.0, 1.0]), (TotalVariation(), [-1.0, 1.0, 1.0])], ids=repr
)
def test_the_optimum_of_a_sign_is_no_ratio(objective: Objective, outputs: list[float]) -> None:
    """At x = -1, 0, 1.5 the log ratio is -1.03, .028 and .567; the best output is a sign."""
    x = torch.tensor([-1.0, 0.0, 1.5], dtype=torch.float64)
    p, q = P.log_prob(x).exp(), Q.log_prob(x).exp()
    assert torch.allclose(p.log() - q.log(), torch.tensor([-1.0346689, 0.0278311, 0.5668936]).double())
    candidates = torch.linspace(-2, 2, 401, dtype=torch.float64)
    real, generated = by_row(objective, candidates)
    best = candidates[(p[:, None] * real + q[:, None] * generated).argmin(1)]
    expected = torch.tensor(outputs, dtype=torch.float64)
    assert torch.allclose(best if isinstance(objective, Hinge) else best.sign(), expected, atol=1e-9)


def test_the_minimax_generator_has_the_divergences_own_gradient() -> None:
    """As p_G moves a little, the change of the divergence is the change of the loss with the critic held fixed."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for objective in (KL(), ReverseKL(), Pearson(), SquaredHellinger(), JensenShannon(), GAN(), LSIF(), UKL()):

        def bound(mean: Tensor, objective: SeparableObjective = objective) -> Tensor:
            log_q = torch.distributions.Normal(mean, torch.ones_like(mean)).log_prob(X)
            real, generated = by_row(objective, objective.output(P.log_prob(X) - log_q))
            return -(WEIGHT_P @ real + log_q.exp() * 0.01 @ generated)

        (own,) = torch.autograd.grad(bound(shift), shift)
        # The generator G(z) = z + shift moves its samples, and so its loss, by the shift.
        moved = X + shift
        output = objective.output(P.log_prob(moved) - Q.log_prob(moved))
        by_sample = torch.func.vmap(lambda v, o=objective: Minimax(o).generator_loss(v, v))(output[:, None])
        (felt,) = torch.autograd.grad(WEIGHT_Q @ by_sample, shift)
        assert float(felt) == pytest.approx(float(own), abs=1e-6), objective
        assert abs(float(own)) > 1e-3


def test_a_generator_of_another_objective_sees_log_ratios() -> None:
    log_ratio = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for critic in (Bernoulli(0.2), LeastSquares(), KL(), SquaredHellinger()):
        paired = Paired(critic, Minimax(ReverseKL()))
        loss = paired.generator_loss(log_ratio[:0], critic.output(log_ratio))
        assert float(loss) == pytest.approx(float(1 - log_ratio.mean()))
