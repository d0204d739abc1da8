"""Donsker-Varadhan, also called KLIEP: a constant that does not change the loss, and the objective that knows it."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.objectives import BKL, GAN, KLIEP, Bernoulli, DonskerVaradhan, Normalised, Wasserstein


def test_loss_by_hand_and_blind_to_a_constant() -> None:
    objective = DonskerVaradhan()
    real = torch.tensor([1.0, 3.0], dtype=torch.float64)
    generated = torch.tensor([0.0, math.log(3.0)], dtype=torch.float64)
    loss = objective.critic_loss(real, generated)
    assert float(loss) == pytest.approx(-2 + math.log(2))
    for constant in (5.0, -300.0, 1000.0):
        assert torch.allclose(objective.critic_loss(real + constant, generated + constant), loss)


def test_raises_and_names_its_own_cure() -> None:
    objective = DonskerVaradhan()
    with pytest.raises(ValueError, match=r"LogRatio.normalised\(critic, objective, generated=x\).*calibrate"):
        objective.log_ratio(torch.zeros(0))


def test_normalised_has_mean_ratio_one() -> None:
    objective = DonskerVaradhan()
    output = 50 + torch.randn(1000)
    constant = objective.log_constant(output)
    assert constant.dtype == torch.float64 and not constant.requires_grad
    normalised = Normalised(objective, float(constant))
    assert normalised.proper
    assert float(normalised.log_ratio(output).double().exp().mean()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(normalised.output(normalised.log_ratio(output)), output)
    real = torch.randn(10)
    assert torch.equal(normalised.critic_loss(real, output), objective.critic_loss(real, output))
    assert torch.equal(normalised.generator_loss(real, output), objective.generator_loss(real, output))


@pytest.mark.parametrize("objective", [Bernoulli(), Wasserstein(), None], ids=repr)
def test_others_leave_no_constant_open(objective: object) -> None:
    with pytest.raises(ValueError, match="leaves a constant open"):
        Normalised(objective, 0.0)


@pytest.mark.parametrize("constant", [math.nan, math.inf])
def test_a_constant_must_be_finite(constant: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Normalised(KLIEP(), constant)


def test_losses_with_two_names_are_one_class() -> None:
    assert KLIEP is DonskerVaradhan and BKL is GAN
