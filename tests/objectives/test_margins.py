"""Hinge and misclassification by hand."""

from __future__ import annotations

import pytest
import torch

from pyro_gan.objectives import Hinge, Minimax, Misclassification

REAL, GENERATED = torch.tensor([-0.5, 0.5, 3.0]), torch.tensor([-3.0, 0.0])


def test_losses_by_hand() -> None:
    assert float(Hinge().critic_loss(REAL, GENERATED)) == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.5)
    assert float(Hinge(0.2).critic_loss(REAL, GENERATED)) == pytest.approx(0.2 * 2 / 3 + 0.8 * 0.5)
    assert float(Hinge().generator_loss(REAL, GENERATED)) == 1.5
    assert float(Minimax(Hinge()).generator_loss(REAL, GENERATED)) == -0.5
    assert float(Misclassification().critic_loss(REAL, GENERATED)) == pytest.approx(1 / 6)


def test_hinge_generator_does_not_saturate_but_its_minimax_does() -> None:
    output = torch.tensor([-10.0], requires_grad=True)
    (alternative,) = torch.autograd.grad(Hinge().generator_loss(output, output), output)
    (minimax,) = torch.autograd.grad(Minimax(Hinge()).generator_loss(output, output), output)
    assert float(alternative) == -1 and float(minimax) == 0


def test_misclassification_has_no_gradient() -> None:
    output = torch.randn(4, requires_grad=True)
    assert not Misclassification().critic_loss(output, output).requires_grad


@pytest.mark.parametrize("objective", [Hinge(), Misclassification(), Hinge(0.3, real_label=0.9)], ids=repr)
def test_no_ratio_and_no_output_for_one(objective: Hinge | Misclassification) -> None:
    for method in (objective.log_ratio, objective.output):
        with pytest.raises(ValueError, match=r"only the output's sign .*calibrate\(critic, real, generated\)"):
            method(torch.zeros(0))
