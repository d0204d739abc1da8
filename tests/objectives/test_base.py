"""The laws of objectives: one contract for every member that the package exports."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_gan import objectives
from pyro_gan.objectives import Divergence, Objective, Penalty, ScoringRule, SeparableObjective, TwoSampleLoss
from tests.objectives.members import OBJECTIVES, PENALTIES, SETTINGS, TWO_SAMPLE_LOSSES
from tests.registry import concrete_members

each = pytest.mark.parametrize("name", OBJECTIVES)
each_trained = pytest.mark.parametrize("name", [n for n, make in OBJECTIVES.items() if make().has_gradient])


def test_every_exported_member_is_tested() -> None:
    for base, family in ((Objective, OBJECTIVES), (Penalty, PENALTIES), (TwoSampleLoss, TWO_SAMPLE_LOSSES)):
        assert {type(make()) for make in family.values()} == set(concrete_members(objectives, base).values())
    assert set(SETTINGS) <= set(objectives.__all__)


def uniform(n: int) -> Tensor:
    """Return outputs where no loss has a kink, and where those of `LeastSquares` are probabilities."""
    return 0.1 + 0.7 * torch.rand(n, dtype=torch.float64)


def test_the_bases_are_abstract() -> None:
    for base in (Objective, SeparableObjective, Divergence, ScoringRule, Penalty, TwoSampleLoss):
        with pytest.raises(TypeError, match="abstract"):
            base()


@each
def test_losses_are_scalars_of_the_outputs_dtype(name: str) -> None:
    objective = OBJECTIVES[name]()
    for dtype in (torch.float64, torch.float32):
        real, generated = uniform(7).to(dtype), uniform(3).to(dtype)
        for loss in (objective.critic_loss(real, generated), objective.generator_loss(real, generated)):
            assert loss.shape == () and loss.dtype == dtype


@each_trained
def test_losses_push_the_right_way(name: str) -> None:
    """The critic gains by raising real and lowering generated outputs; the generator by raising its own."""
    objective = OBJECTIVES[name]()
    real, generated = (uniform(5).requires_grad_() for _ in range(2))  # smoothed labels, too, have their optimum beyond
    for_real, for_generated = torch.autograd.grad(objective.critic_loss(real, generated), (real, generated))
    assert (for_real < 0).all() and (for_generated > 0).all()
    (up,) = torch.autograd.grad(objective.generator_loss(real, generated), generated)
    assert (up < 0).all()


@each_trained
@pytest.mark.parametrize("size", [-100.0, 100.0])
def test_finite_on_huge_outputs_in_float32(name: str, size: float) -> None:
    objective = OBJECTIVES[name]()
    real, generated = (torch.tensor([s, 0.0], requires_grad=True) for s in (size, -size))
    loss = objective.critic_loss(real, generated) + objective.generator_loss(real, generated)
    gradients = torch.autograd.grad(loss, (real, generated))
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients)


@each_trained
def test_a_wrong_critic_feels_it_at_any_size(name: str) -> None:
    """Outputs far on the wrong side get a gradient on the sides that the class names."""
    objective = OBJECTIVES[name]()
    real, generated = (torch.tensor([s, 0.0], requires_grad=True) for s in (-100.0, 100.0))
    up, down = torch.autograd.grad(objective.critic_loss(real, generated), (real, generated))
    assert set(objective.corrects) <= {"real", "generated"}
    assert (up[0] < -1e-2) == ("real" in objective.corrects)
    assert (down[0] > 1e-2) == ("generated" in objective.corrects)


@each_trained
def test_the_critic_cannot_win_without_end(name: str) -> None:
    """On points that only one side has, the loss stays above a bound for outputs of any size."""
    objective = OBJECTIVES[name]()
    losses = [
        float(objective.critic_loss(torch.full((3,), size).double(), torch.full((3,), -size).double()))
        for size in (1e3, 1e4, 1e5)
    ]
    assert (losses[2] >= losses[1] - 1e-3 * abs(losses[1])) == (not objective.needs_penalty)


@each_trained
def test_gradients_are_those_of_the_loss(name: str) -> None:
    """By finite differences, where the losses have no kink."""
    objective = OBJECTIVES[name]()
    real, generated = (uniform(3).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(objective.critic_loss, (real, generated))
    assert torch.autograd.gradcheck(lambda g: objective.generator_loss(real, g), (generated,))


@each
def test_loss_is_a_mean_over_each_side(name: str) -> None:
    """Each row twice, or another order, gives the same losses."""
    objective = OBJECTIVES[name]()
    real, generated = uniform(6), uniform(4)
    for loss in (objective.critic_loss, objective.generator_loss):
        once = loss(real, generated)
        assert torch.allclose(loss(real.repeat(2), generated.flip(0)), once)
        assert torch.allclose(loss(real.flip(0), generated.repeat(3)), once)


@each
def test_the_generator_needs_no_real_outputs(name: str) -> None:
    assert OBJECTIVES[name]().generator_loss(torch.zeros(0), uniform(4).float()).isfinite()


@each
@pytest.mark.parametrize("shape", [(4, 1), (), (0,)])
def test_outputs_of_other_shapes_raise(name: str, shape: tuple[int, ...]) -> None:
    objective = OBJECTIVES[name]()
    good, bad = torch.full((4,), 0.5), torch.full(shape, 0.5)
    for arguments, whose in (((bad, good), "real"), ((good, bad), "generated")):
        with pytest.raises(ValueError, match=rf"outputs for {whose} data of shape \(batch,\)") as error:
            objective.critic_loss(*arguments)
        assert str(tuple(shape)) in str(error.value) and "squeeze(-1)" in str(error.value)
    with pytest.raises(ValueError, match="generated data"):
        objective.generator_loss(good, bad)


@each
@pytest.mark.parametrize("bad", [None, "x", math.nan, 0, [0.5, 0.5], np.full(4, 0.5), torch.ones(4, dtype=torch.int64)])
def test_outputs_that_are_no_real_tensor_raise(name: str, bad: Any) -> None:
    objective, good = OBJECTIVES[name](), torch.full((4,), 0.5)
    for call in (
        lambda: objective.critic_loss(bad, good),
        lambda: objective.critic_loss(good, bad),
        lambda: objective.generator_loss(good, bad),
    ):
        with pytest.raises(ValueError, match="critic outputs for (real|generated) data"):
            call()
    if isinstance(bad, Tensor):
        return
    maps = [objective.log_ratio] + ([objective.output] if isinstance(objective, SeparableObjective) else [])
    for call in maps:
        with pytest.raises(ValueError, match=r"to be a torch.Tensor|calibrate\("):
            call(bad)


@each
def test_attributes_and_pickle(name: str) -> None:
    objective = OBJECTIVES[name]()
    assert isinstance(objective.proper, bool) and 0 < objective.class_prior < 1
    again = pickle.loads(pickle.dumps(objective))
    assert repr(again) == repr(objective) and again.class_prior == objective.class_prior
    real, generated = uniform(3), uniform(3)
    assert torch.equal(again.critic_loss(real, generated), objective.critic_loss(real, generated))


@each
def test_a_proper_objective_has_a_ratio_and_no_other_pretends(name: str) -> None:
    objective = OBJECTIVES[name]()
    output = uniform(4)
    if objective.proper:
        assert objective.log_ratio(output).shape == (4,)
        assert objective.log_ratio(output[:0]).shape == (0,)
    else:
        with pytest.raises(ValueError, match=r"calibrate\(critic, real, generated\)"):
            objective.log_ratio(output[:0])


def has_inverse(objective: Objective) -> bool:
    """Whether an objective has a log ratio, and is one objective."""
    return objective.proper and isinstance(objective, SeparableObjective)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if has_inverse(OBJECTIVES[name]())])
def test_output_inverts_log_ratio(name: str) -> None:
    objective = OBJECTIVES[name]()
    log_ratio = torch.linspace(-5, 5, 21, dtype=torch.float64)
    assert torch.allclose(objective.log_ratio(objective.output(log_ratio)), log_ratio, atol=1e-9)
