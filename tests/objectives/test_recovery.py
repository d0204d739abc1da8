"""Every objective with a ratio gives back a known one: by quadrature to 1e-5, and from samples within their error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gan.objectives import (
    BKL,
    GAN,
    KL,
    KLIEP,
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
from pyro_gan.objectives.variational import Divergence
from tests.objectives.gaussian_pair import (
    FEATURES,
    LOG_RATIO,
    TRUE,
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
from tests.statistics import assert_close_in_se

# Where the log ratio passes 20 nats Neyman's loss, alone, still weighs enough to be seen: 1 / r^2.
WITHIN_20_NATS = LOG_RATIO.abs() < 20

#: The critic's loss at the optimum; of f-divergences the negative.
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
    (KLIEP(), -0.16814355),
    (BKL(), 1.29281024),
]
#: One critic for every way to say the class prior and the labels.
WEIGHTED: list[SeparableObjective] = [
    Bernoulli(0.2),
    Brier(0.9),
    LeastSquares(0.3),
    Exponential(0.2),
    Spherical(0.8),
    Bernoulli(real_label=0.9),
    Bernoulli(0.3, real_label=0.9, generated_label=0.2),
    Spherical(0.6, real_label=0.8, generated_label=0.1),
    LeastSquares(0.3, real_label=0.9, generated_label=0.1),
]
WITH_A_RATIO = [objective for objective, _ in MINIMA if objective.proper] + WEIGHTED
#: Their outputs are not linear in the log ratio, so the family of critics is their own image of the quadratics.
CURVED = (Pearson, LeastSquares)
SMOOTHED = [o for o in WEIGHTED if getattr(o, "real_label", 1.0) < 1]


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
    assert float(expected_loss(objective, output)) == pytest.approx(
        minimum, abs=1e-5
    )  # of a grid with a jump


@pytest.mark.parametrize(
    "objective", [*(objective for objective, _ in MINIMA if objective.proper), Neyman()], ids=repr
)
def test_the_odds_of_the_two_slopes_are_the_ratio_up_to_20_nats(objective: SeparableObjective) -> None:
    """At the optimum r R' + F' = 0, and no tangent may begin before 20 nats."""
    log_ratio = torch.linspace(-19.9, 19.9, 80, dtype=torch.float64)
    if isinstance(objective, LeastSquares | Pearson):
        log_ratio = log_ratio[log_ratio.abs() < 12]  # 1 - c and 1 + v / 2 lose their digits
    output = objective.output(log_ratio).requires_grad_()
    slopes = [
        torch.autograd.grad(torch.func.vmap(term)(output[:, None]).sum(), output)[0]
        for term in (objective.real_term, objective.generated_term)
    ]
    assert torch.allclose((-slopes[1] / slopes[0]).log(), log_ratio, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "minimum"), [case for case in MINIMA if isinstance(case[0], Divergence)], ids=repr
)
def test_every_output_bounds_the_divergence(objective: Divergence, minimum: float) -> None:
    """The bound stays one where outputs are wild enough to meet the ceiling on rewards."""
    for spread in (1.0, 10.0, 100.0):
        output = objective.output(LOG_RATIO) + spread * torch.randn(len(X), dtype=torch.float64)
        assert float(expected_loss(objective, output)) > minimum


@pytest.mark.parametrize("objective", [*WITH_A_RATIO, Neyman()], ids=repr)
def test_no_output_does_better_than_the_ratios(objective: SeparableObjective) -> None:
    """Point by point: the slope of the expected loss is zero at the optimal output, and its curvature positive."""
    here = LOG_RATIO.abs() < 5  # further out the curvature of bounded rules is lost in rounding
    output = objective.output(LOG_RATIO[here]).requires_grad_()
    real, generated = by_row(objective, output)
    larger = torch.maximum(WEIGHT_P, WEIGHT_Q)  # a common factor leaves numbers of order one
    cost = (WEIGHT_P / larger)[here] * real + (WEIGHT_Q / larger)[here] * generated
    (slope,) = torch.autograd.grad(cost.sum(), output, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), output)
    assert (curvature > 0).all()
    assert (slope / curvature).abs().max() < 1e-6  # how far Newton's step would go


@pytest.mark.parametrize("objective", WITH_A_RATIO, ids=repr)
def test_a_fitted_critic_gives_the_log_ratio(objective: SeparableObjective) -> None:
    curved = isinstance(objective, CURVED) or objective in SMOOTHED

    def critic(coefficients: Tensor) -> Tensor:
        value = quadratic(coefficients, X)
        return objective.output(value) if curved else value

    coefficients = fit(lambda c: expected_loss(objective, critic(c)))
    # A linear output reaches its end, 0 or 1, far out: only there would log_ratio refuse.
    near = X.abs() <= 3
    assert_recovered(objective.log_ratio(critic(coefficients)[near]), X[near])


def test_a_fitted_neyman_critic_gives_the_log_ratio() -> None:
    """By quadrature within the ceiling only: what is optimal at a point does not depend on the others."""

    def loss(coefficients: Tensor) -> Tensor:
        real, generated = by_row(Neyman(), quadratic(coefficients, X))
        return (
            WEIGHT_P[WITHIN_20_NATS] @ real[WITHIN_20_NATS]
            + WEIGHT_Q[WITHIN_20_NATS] @ generated[WITHIN_20_NATS]
        )

    assert_recovered(Neyman().log_ratio(quadratic(fit(loss), X)), X)


@pytest.mark.parametrize("objective", [KLIEP(), DonskerVaradhan()], ids=repr)
def test_up_to_a_constant_until_normalised(objective: KLIEP | DonskerVaradhan) -> None:
    start = torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64)
    output = quadratic(fit(lambda c: expected_loss(objective, quadratic(c, X)), start=start), X)
    gap = output - quadratic(TRUE, X)
    assert gap.std() < 1e-5 and gap.mean().abs() > 0.1
    constant = float((WEIGHT_Q @ output.exp()).log())
    assert_recovered(Normalised(objective, constant).log_ratio(output), X)


@pytest.mark.parametrize(
    "objective",
    [Bernoulli(), Bernoulli(0.2), Brier(), Exponential(), Spherical()]
    + [KL(), ReverseKL(), Neyman(), SquaredHellinger(), JensenShannon(), LSIF(), UKL(), BKL()],
    ids=repr,
)
def test_a_critic_fitted_to_samples_gives_the_log_ratio(objective: SeparableObjective) -> None:
    """Within the standard errors of the estimating equations, the sandwich, computed by quadrature."""
    # On this pair 1 / r has heavy tails and r has none; those two weigh 1 / r, so their data are the generated ones.
    swapped = isinstance(objective, ReverseKL | Neyman)
    (p, weight_p), (q, weight_q) = (
        ((Q, WEIGHT_Q), (P, WEIGHT_P)) if swapped else ((P, WEIGHT_P), (Q, WEIGHT_Q))
    )
    truth = -TRUE if swapped else TRUE
    n = 20_000
    real, generated = p.sample((n,)), q.sample((n,))

    def loss(coefficients: Tensor) -> Tensor:
        return objective.critic_loss(quadratic(coefficients, real), quadratic(coefficients, generated))

    at_one, at_zero = (objective.log_ratio(torch.full((1,), v, dtype=torch.float64)) for v in (1.0, 0.0))
    per_output = float(at_one - at_zero)
    fitted = per_output * fit(loss)
    fitted[0] += float(at_zero)

    output = objective.output(-LOG_RATIO if swapped else LOG_RATIO).requires_grad_()
    bread, meat = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for cost, weight in zip(by_row(objective, output), (weight_p, weight_q), strict=True):
        # the square keeps the slope of a linear cost in the graph
        (slope,) = torch.autograd.grad(cost.sum() + 0 * output.square().sum(), output, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), output)
        score = slope.detach()[:, None] * FEATURES
        score = score - weight @ score
        meat += (weight[:, None] * score).T @ score / n
        bread += (weight[:, None] * curvature[:, None] * FEATURES).T @ FEATURES
    inverse = torch.linalg.inv(bread)
    se = per_output * (inverse @ meat @ inverse).diagonal().sqrt()
    assert_close_in_se(fitted, truth, se, f"coefficients by {objective!r}")


@pytest.mark.parametrize(
    ("objective", "outputs"),
    [(Hinge(), [-1.0, 1.0, 1.0]), (TotalVariation(), [-1.0, 1.0, 1.0])],
    ids=repr,
)
def test_the_optimum_of_a_sign_is_no_ratio(objective: Objective, outputs: list[float]) -> None:
    """At x = -1, 0, 1.5 the log ratio is -1.03, .028 and .567, the best output a sign."""
    x = torch.tensor([-1.0, 0.0, 1.5], dtype=torch.float64)
    p, q = P.log_prob(x).exp(), Q.log_prob(x).exp()
    assert torch.allclose(p.log() - q.log(), torch.tensor([-1.0346689, 0.0278311, 0.5668936]).double())
    candidates = torch.linspace(-2, 2, 401, dtype=torch.float64)
    real, generated = by_row(objective, candidates)
    best = candidates[(p[:, None] * real + q[:, None] * generated).argmin(1)]
    expected = torch.tensor(outputs, dtype=torch.float64)
    assert torch.allclose(best if isinstance(objective, Hinge) else best.sign(), expected, atol=1e-9)


def test_the_minimax_generator_has_the_divergences_own_gradient() -> None:
    """Move p_G a little: the divergence changes as the loss says whose critic stays where it was."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for objective in (
        KL(),
        ReverseKL(),
        Pearson(),
        SquaredHellinger(),
        JensenShannon(),
        GAN(),
        LSIF(),
        UKL(),
    ):

        def bound(mean: Tensor, objective: SeparableObjective = objective) -> Tensor:
            log_q = torch.distributions.Normal(mean, torch.ones_like(mean)).log_prob(X)
            real, generated = by_row(objective, objective.output(P.log_prob(X) - log_q))
            return -(WEIGHT_P @ real + log_q.exp() * 0.01 @ generated)

        (own,) = torch.autograd.grad(bound(shift), shift)
        # The generator G(z) = z + shift feels it through its samples: x moves by the shift.
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
