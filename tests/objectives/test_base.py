"""One contract for every objective."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch

from pyro_gan.objectives import Bernoulli, Objective, Wasserstein

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "bernoulli": Bernoulli,
    "bernoulli_prior": lambda: Bernoulli(0.2),
    "wasserstein": Wasserstein,
}
each = pytest.mark.parametrize("name", OBJECTIVES)


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Objective()


@each
def test_losses_are_scalars_of_the_outputs_dtype(name: str) -> None:
    objective = OBJECTIVES[name]()
    real, generated = torch.randn(7, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    for loss in (objective.critic_loss(real, generated), objective.generator_loss(real, generated)):
        assert loss.shape == () and loss.dtype == torch.float64


@each
def test_losses_push_the_right_way(name: str) -> None:
    """The critic gains by raising real and lowering generated outputs; the generator by raising its own."""
    objective = OBJECTIVES[name]()
    real, generated = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    for_real, for_generated = torch.autograd.grad(objective.critic_loss(real, generated), (real, generated))
    assert (for_real < 0).all() and (for_generated > 0).all()
    (up,) = torch.autograd.grad(objective.generator_loss(real, generated), generated)
    assert (up < 0).all()


@each
def test_finite_on_huge_outputs_in_float32(name: str) -> None:
    objective = OBJECTIVES[name]()
    for size in (-100.0, 100.0):
        real, generated = torch.tensor([size], requires_grad=True), torch.tensor([-size], requires_grad=True)
        loss = objective.critic_loss(real, generated) + objective.generator_loss(real, generated)
        gradients = torch.autograd.grad(loss, (real, generated))
        assert loss.isfinite() and all(g.isfinite().all() for g in gradients)


@each
def test_attributes_and_pickle(name: str) -> None:
    objective = OBJECTIVES[name]()
    assert isinstance(objective.proper, bool) and 0 < objective.class_prior < 1
    again = pickle.loads(pickle.dumps(objective))
    assert repr(again) == repr(objective) and again.class_prior == objective.class_prior


@each
def test_a_proper_objective_has_a_ratio_and_no_other_pretends(name: str) -> None:
    objective = OBJECTIVES[name]()
    output = torch.randn(4)
    if objective.proper:
        assert objective.log_ratio(output).shape == (4,)
        assert objective.log_ratio(output[:0]).shape == (0,)
    else:
        with pytest.raises(ValueError, match="calibrate"):
            objective.log_ratio(output[:0])
