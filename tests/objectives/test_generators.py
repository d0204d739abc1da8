"""The zero-sum game, and a generator of another objective."""

from __future__ import annotations

import pytest
import torch

from pyro_gan.objectives import (
    KLIEP,
    LSIF,
    Bernoulli,
    DonskerVaradhan,
    Hinge,
    LeastSquares,
    Minimax,
    Objective,
    Paired,
    Pearson,
    ReverseKL,
    SeparableObjective,
    Spherical,
    SquaredHellinger,
    TotalVariation,
    Wasserstein,
)

REAL, GENERATED = torch.tensor([0.7, 0.2]), torch.tensor([0.1, 0.4, 0.6])


@pytest.mark.parametrize("objective", [Bernoulli(0.2, real_label=0.9), LSIF(), Hinge(0.3), KLIEP()], ids=repr)
def test_minimax_keeps_the_critic(objective: SeparableObjective) -> None:
    game = Minimax(objective)
    assert torch.equal(game.critic_loss(REAL, GENERATED), objective.critic_loss(REAL, GENERATED))
    assert torch.equal(game.generator_loss(REAL, GENERATED), -objective.generated_term(GENERATED))
    assert (game.proper, game.class_prior) == (objective.proper, objective.class_prior)
    if game.proper:
        assert torch.equal(game.log_ratio(REAL), objective.log_ratio(REAL))
    assert repr(game) == f"Minimax({objective!r})"


def test_minimax_is_the_zero_sum_game() -> None:
    """At even weights the two gradients on generated outputs are opposite, up to the weight."""
    output = GENERATED.clone().requires_grad_()
    (critic,) = torch.autograd.grad(Minimax(SquaredHellinger()).critic_loss(REAL, output), output)
    (generator,) = torch.autograd.grad(Minimax(SquaredHellinger()).generator_loss(REAL, output), output)
    assert torch.allclose(critic, -generator)


def test_paired_keeps_the_critic_and_swaps_the_generator() -> None:
    paired = Paired(Bernoulli(0.2), Pearson())
    assert torch.equal(paired.critic_loss(REAL, GENERATED), Bernoulli(0.2).critic_loss(REAL, GENERATED))
    assert torch.equal(paired.log_ratio(REAL), Bernoulli(0.2).log_ratio(REAL))
    ratio = Bernoulli(0.2).log_ratio(GENERATED).exp()
    assert torch.allclose(paired.generator_loss(REAL, GENERATED), -2 * (ratio - 1).mean())
    assert paired.class_prior == 0.2 and paired.proper
    assert repr(paired) == "Paired(Bernoulli(class_prior=0.2), Pearson())"


def test_the_log_ratio_generator_never_saturates() -> None:
    output = torch.tensor([-100.0, -10.0, 10.0], requires_grad=True)
    loss = Paired(Bernoulli(0.3), Minimax(ReverseKL())).generator_loss(output[:0], output)
    (gradient,) = torch.autograd.grad(loss, output)
    assert torch.allclose(gradient, torch.full((3,), -1 / 3))


def test_paired_with_itself_is_itself() -> None:
    for objective in (Bernoulli(0.2), LeastSquares(), Spherical()):
        loss = Paired(objective, objective).generator_loss(REAL, GENERATED)
        assert torch.allclose(loss, objective.generator_loss(REAL, GENERATED))


@pytest.mark.parametrize("critic", [Wasserstein(), Hinge(), TotalVariation(), KLIEP()], ids=repr)
def test_a_critic_without_a_ratio_cannot_be_paired(critic: Objective) -> None:
    with pytest.raises(ValueError, match="calibrate"):
        Paired(critic, ReverseKL())


@pytest.mark.parametrize("generator", [Wasserstein(), Hinge(), TotalVariation()], ids=repr)
def test_a_generator_without_an_output_for_a_ratio_raises(generator: SeparableObjective) -> None:
    with pytest.raises(ValueError, match="calibrate"):
        Paired(Bernoulli(), generator)


def test_a_generator_needs_no_constant() -> None:
    assert Paired(Bernoulli(), DonskerVaradhan()).generator_loss(REAL, GENERATED).isfinite()


def test_nonsense_raises() -> None:
    with pytest.raises(ValueError, match=r"Paired\(critic, Minimax\(generator\)\)"):
        Minimax(Paired(Bernoulli(), ReverseKL()))
    with pytest.raises(ValueError, match="generator of type SeparableObjective; got 'reverse_kl'"):
        Paired(Bernoulli(), "reverse_kl")
    with pytest.raises(ValueError, match="critic of type Objective; got None"):
        Paired(None, ReverseKL())
