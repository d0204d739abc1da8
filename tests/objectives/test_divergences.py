"""Divergences by hand, and how their exponentials stay finite; `test_recovery` recovers a known ratio."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.objectives import (
    GAN,
    KL,
    LSIF,
    UKL,
    Bernoulli,
    Divergence,
    DonskerVaradhan,
    Exponential,
    JensenShannon,
    Minimax,
    Neyman,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    exp_tangent,
)

V = torch.linspace(-3, 3, 13, dtype=torch.float64)


def log(x: float) -> float:
    return math.log(x)


# The divergence, its generator f, the activation v -> T and the conjugate T -> f*(T), as the paper has them.
ROWS = [
    (KL(), lambda u: u * log(u), lambda v: v, lambda t: math.exp(t - 1)),
    (ReverseKL(), lambda u: -log(u), lambda v: -math.exp(-v), lambda t: -1 - log(-t)),
    (Pearson(), lambda u: (u - 1) ** 2, lambda v: v, lambda t: t * t / 4 + t),
    (Neyman(), lambda u: (1 - u) ** 2 / u, lambda v: 1 - math.exp(-v), lambda t: 2 - 2 * math.sqrt(1 - t)),
    (SquaredHellinger(), lambda u: (math.sqrt(u) - 1) ** 2, lambda v: 1 - math.exp(-v), lambda t: t / (1 - t)),
    (
        JensenShannon(),
        lambda u: u * log(u) - (u + 1) * log((u + 1) / 2),
        lambda v: log(2) - log(1 + math.exp(-v)),
        lambda t: -log(2 - math.exp(t)),
    ),
]


@pytest.mark.parametrize(("objective", "f", "activation", "conjugate"), ROWS, ids=lambda x: repr(x)[:20])
def test_terms_are_activation_and_conjugate(objective: Divergence, f, activation, conjugate) -> None:
    for v in V.tolist():
        row = torch.tensor([v], dtype=torch.float64)
        assert float(objective.real_term(row)) == pytest.approx(-activation(v), abs=1e-12)
        assert float(objective.generated_term(row)) == pytest.approx(conjugate(activation(v)), abs=1e-12)
        if isinstance(objective, Pearson) and v <= -2:
            continue
        # Fenchel's equality, and the slope of f, where the output stands for the ratio u
        u = math.exp(float(objective.log_ratio(row)))
        t = activation(v)
        assert f(u) == pytest.approx(u * t - conjugate(t), abs=1e-9)
        slope = (f(u * (1 + 1e-6)) - f(u * (1 - 1e-6))) / (2e-6 * u)
        assert slope == pytest.approx(t, rel=1e-5, abs=1e-6)


def test_pearson_refuses_ratios_of_zero_or_less() -> None:
    for bad in (-2.0, -7.0):
        with pytest.raises(ValueError, match=r"above -2.*calibrate"):
            Pearson().log_ratio(torch.tensor([0.0, bad]))
    assert Pearson().log_ratio(torch.tensor([math.nan])).isnan().all()


def test_total_variation_has_no_ratio_and_no_output_for_one() -> None:
    for method in (TotalVariation().log_ratio, TotalVariation().output):
        with pytest.raises(ValueError, match=r"only the output's sign .*calibrate"):
            method(torch.zeros(0))


@pytest.mark.parametrize(
    ("objective", "minimax", "alternative"),
    [  # where the log ratio is -10
        (KL(), math.exp(-10), 1.0),
        (ReverseKL(), 1.0, math.exp(10)),
        (Pearson(), math.exp(-10), 1.0),
        (SquaredHellinger(), math.exp(-5), math.exp(5)),
        (JensenShannon(), 4.54e-5, 1.0),
        (DonskerVaradhan(), 1.0, 1.0),  # for a batch of one
    ],
    ids=repr,
)
def test_generators_gradients_where_the_critic_is_sure(
    objective: Divergence, minimax: float, alternative: float
) -> None:
    output = objective.output(torch.tensor([-10.0], dtype=torch.float64)).requires_grad_()
    for chosen, size in ((Minimax(objective), minimax), (objective, alternative)):
        (gradient,) = torch.autograd.grad(chosen.generator_loss(output[:0], output), output)
        assert float(gradient) == pytest.approx(-size, rel=1e-3)


def test_tangent_continues_the_exponential() -> None:
    x = torch.tensor([-200.0, -1.0, 0.0, 19.99, 20.0, 20.01, 100.0], dtype=torch.float64, requires_grad=True)
    value = exp_tangent(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    top = math.exp(20)
    below = x.detach().clamp(max=20)
    assert torch.equal(value[:5], below[:5].exp()) and torch.allclose(slope, below.exp())
    assert torch.allclose(value[5:], torch.tensor([top * 1.01, top * 81], dtype=torch.float64))


def test_tangent_passes_nan() -> None:
    assert exp_tangent(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("objective", [ReverseKL(), Neyman(), SquaredHellinger()], ids=repr)
def test_the_ceiling_is_on_the_critics_rewards_alone(objective: Divergence) -> None:
    """Beyond 20 nats on generated data the critic has no gradient; the generator still has one."""
    output = objective.output(torch.tensor([-30.0], dtype=torch.float64)).requires_grad_()
    real = torch.zeros(1, dtype=torch.float64)
    (for_critic,) = torch.autograd.grad(objective.critic_loss(real, output), output)
    (for_generator,) = torch.autograd.grad(objective.generator_loss(real, output), output)
    assert float(for_critic) == 0 and float(for_generator) < -0.9


@pytest.mark.parametrize("objective", [KL(), Pearson(), SquaredHellinger(), DonskerVaradhan()], ids=repr)
def test_the_ceiling_on_real_data(objective: Divergence) -> None:
    """Beyond 20 nats on real data the critic has no gradient; below 20 it has one."""
    log_ratio = torch.tensor([15.0, 30.0], dtype=torch.float64)
    output = (2 * log_ratio.expm1() if isinstance(objective, Pearson) else objective.output(log_ratio)).requires_grad_()
    generated = objective.output(torch.zeros(1, dtype=torch.float64))
    (reward,) = torch.autograd.grad(objective.critic_loss(output, generated), output)
    assert float(reward[0]) < 0 and float(reward[1]) == 0


@pytest.mark.parametrize(
    ("one", "other", "output", "factor", "constant"),
    [
        (UKL(), KL(), lambda v: v + 1, 1.0, 1.0),
        (LSIF(), Pearson(), lambda v: 2 * v.expm1(), 0.5, 0.0),
        (JensenShannon(), GAN(), lambda v: v, 1.0, -math.log(4)),
        (GAN(), Bernoulli(), lambda v: v, 2.0, 0.0),
        (SquaredHellinger(), Exponential(), lambda v: 2 * v, 2.0, -2.0),
    ],
    ids=["UKL", "LSIF", "JensenShannon", "GAN", "SquaredHellinger"],
)
def test_losses_equal_up_to_constants_and_a_change_of_output(one, other, output, factor, constant) -> None:
    """As their docstrings say: one(v) = factor * other(output(v)) + constant."""
    real, generated = torch.randn(2, 6, dtype=torch.float64)
    theirs = factor * other.critic_loss(output(real), output(generated)) + constant
    assert torch.allclose(one.critic_loss(real, generated), theirs)
