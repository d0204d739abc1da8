"""Critics of every output shape and objective: their log ratios, or a refusal."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from pyro_gan.objectives import (
    KL,
    KLIEP,
    Bernoulli,
    DonskerVaradhan,
    Hinge,
    LeastSquares,
    Minimax,
    Misclassification,
    Objective,
    Paired,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    Wasserstein,
)
from pyro_gan.ratio import LogRatio

X = torch.linspace(-2, 2, 6).reshape(6, 1)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1, 1)])
def test_output_shapes_that_mean_one_number_a_row(shape: tuple[int, ...]) -> None:
    log_ratio = LogRatio(lambda x: (3 * x).reshape(shape), Bernoulli())
    assert torch.equal(log_ratio(X), 3 * X[:, 0])


@pytest.mark.parametrize("shape", [(6, 2), (12,), (1, 6), (), (6, 1, 2), (3,)])
def test_other_output_shapes_raise_and_say_the_shape(shape: tuple[int, ...]) -> None:
    log_ratio = LogRatio(lambda x: torch.zeros(shape), Bernoulli())
    with pytest.raises(ValueError, match=r"\(6,\) or \(6, 1, ..., 1\)") as error:
        log_ratio(X)
    assert str(tuple(shape)) in str(error.value)


def test_batch_of_one() -> None:
    assert LogRatio(nn.Linear(1, 1), Bernoulli())(X[:1]).shape == (1,)
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        LogRatio(nn.Linear(1, 2), Bernoulli())(X[:1])


def test_no_tensor_raises() -> None:
    with pytest.raises(ValueError, match="got tuple"):
        LogRatio(lambda x: (x, x), Bernoulli())(X)


def test_the_objective_is_required_and_must_have_a_ratio() -> None:
    critic = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="objective"):
        LogRatio(critic)
    with pytest.raises(ValueError, match="calibrate"):
        LogRatio(critic, Wasserstein())
    with pytest.raises(ValueError, match="got 'bernoulli'"):
        LogRatio(critic, "bernoulli")
    with pytest.raises(ValueError, match="critic"):
        LogRatio(3.0, Bernoulli())


@pytest.mark.parametrize(
    "objective",
    [Wasserstein(), Hinge(), Misclassification(), TotalVariation(), KLIEP(), DonskerVaradhan(), Minimax(Hinge())],
    ids=repr,
)
def test_objectives_without_a_ratio_raise_at_the_door(objective: Objective) -> None:
    with pytest.raises(ValueError, match=r"calibrate\(critic, real, generated\)"):
        LogRatio(nn.Linear(1, 1), objective)


def test_the_objective_says_how_an_output_is_read() -> None:
    expected = {KL(): X[:, 0] - 1, SquaredHellinger(): 2 * X[:, 0], Paired(KL(), ReverseKL()): X[:, 0] - 1}
    for objective, log_ratio in expected.items():
        assert torch.allclose(LogRatio(lambda x: x, objective)(X), log_ratio)


def test_a_linear_output_outside_its_interval_raises_with_the_cure() -> None:
    log_ratio = LogRatio(lambda x: x, LeastSquares())
    assert torch.allclose(log_ratio(torch.tensor([[0.25], [0.5]])), torch.tensor([-math.log(3), 0.0]))
    with pytest.raises(ValueError, match=r"strictly between 0 and 1.*calibrate"):
        log_ratio(X)


@pytest.mark.parametrize("objective", [KLIEP(), DonskerVaradhan()], ids=repr)
@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
def test_normalised_on_generated_data(objective: KLIEP, chunk_size: int | None) -> None:
    critic = nn.Linear(1, 1)
    log_ratio = LogRatio.normalised(critic, objective, generated=X, chunk_size=chunk_size)
    assert float(log_ratio(X).exp().mean().detach()) == pytest.approx(1, abs=1e-5)
    gap = critic(X)[:, 0] - log_ratio(X)
    assert torch.allclose(gap, gap[0].expand(6), atol=1e-6)
    assert log_ratio.critic is critic and set(log_ratio.state_dict()) == {"critic.weight", "critic.bias"}
    assert "Normalised" in repr(log_ratio) and type(objective).__name__ in repr(log_ratio)
    for again in (copy.deepcopy(log_ratio), pickle.loads(pickle.dumps(log_ratio))):
        assert torch.equal(again(X), log_ratio(X))


def test_normalised_in_the_datas_dtype() -> None:
    x = X.double().requires_grad_()
    log_ratio = LogRatio.normalised(lambda x: 1000 + 3 * x, KLIEP(), generated=x)
    value = log_ratio(x)
    assert value.dtype == torch.float64 and value.exp().mean().item() == pytest.approx(1)
    value.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))


def test_normalised_refuses() -> None:
    critic = nn.Linear(1, 1)
    for objective in (Bernoulli(), Hinge(), "kliep"):
        with pytest.raises(ValueError, match="leaves a constant open"):
            LogRatio.normalised(critic, objective, generated=X)
    with pytest.raises(ValueError, match=r"critic.eval\(\)"):
        LogRatio.normalised(nn.Sequential(critic, nn.Dropout()), KLIEP(), generated=X)
    with pytest.raises(ValueError, match="at least 1 rows"):
        LogRatio.normalised(critic, KLIEP(), generated=X[:0])
    with pytest.raises(ValueError, match="finite"):
        LogRatio.normalised(lambda x: math.nan * x, KLIEP(), generated=X)
    with pytest.raises(ValueError, match=r"\(6,\) or \(6, 1, ..., 1\)"):
        LogRatio.normalised(nn.Linear(1, 2), KLIEP(), generated=X)


def test_class_prior_is_taken_off() -> None:
    assert torch.allclose(LogRatio(lambda x: x, Bernoulli(0.2))(X), X[:, 0] - math.log(0.25))


def test_a_module_is_a_submodule_and_keeps_its_weights() -> None:
    critic = nn.Linear(1, 1)
    log_ratio = LogRatio(critic, Bernoulli())
    assert log_ratio.critic is critic
    assert set(log_ratio.state_dict()) == {"critic.weight", "critic.bias"}
    assert "Bernoulli" in repr(log_ratio)
    for again in (copy.deepcopy(log_ratio), pickle.loads(pickle.dumps(log_ratio))):
        assert torch.equal(again(X), log_ratio(X))


def test_context_reaches_the_critic() -> None:
    def critic(x: Tensor, *, label: Tensor) -> Tensor:
        return x[:, 0] * label

    label = torch.arange(6.0)
    assert torch.equal(LogRatio(critic, Bernoulli())(X, label=label), X[:, 0] * label)
    log_ratio = LogRatio.from_probability(lambda x, label: torch.sigmoid(x[:, 0] * label))
    assert torch.allclose(log_ratio(X, label=label), X[:, 0] * label, atol=1e-2)  # the rounding of log(1 - D)


def test_a_sequential_sigmoid_gives_its_exact_logit() -> None:
    discriminator = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid()).eval()
    with torch.no_grad():
        discriminator[0].weight.fill_(500.0)
    log_ratio = LogRatio.from_probability(discriminator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(log_ratio(X), discriminator[0](X)[:, 0])
    assert log_ratio.critic[0] is discriminator[0]
    assert not any(module.training for module in log_ratio.critic.modules())


def test_a_sequential_with_its_own_forward_is_not_taken_apart() -> None:
    class Flipped(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 1 - super().forward(x)

    linear = nn.Linear(1, 1)
    log_ratio = LogRatio.from_probability(Flipped(linear, nn.Sigmoid()))
    assert torch.allclose(log_ratio(X), -linear(X)[:, 0], atol=1e-5)


def test_probability_to_log_odds() -> None:
    logit = torch.linspace(-30, 10, 41, dtype=torch.float64)[:, None]
    assert torch.allclose(LogRatio.from_probability(torch.sigmoid)(logit), logit[:, 0], atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_saturated_probabilities_stay_finite_and_warn_once(dtype: torch.dtype) -> None:
    log_ratio = LogRatio.from_probability(lambda p: p)
    p = torch.tensor([[0.0], [0.25], [0.5], [1.0]], dtype=dtype, requires_grad=True)
    with pytest.warns(UserWarning, match="saturated") as caught:
        value = log_ratio(p)
        value.sum().backward()
        log_ratio(p)
    assert len(caught) == 1
    assert value.isfinite().all() and (value.diff() > 0).all() and value.dtype == dtype
    assert p.grad is not None and p.grad.isfinite().all()
    with pytest.warns(UserWarning, match="saturated"):  # each instance warns once
        LogRatio.from_probability(lambda p: p)(p)


def test_nothing_to_warn_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogRatio.from_probability(lambda p: p)(torch.tensor([[1e-30], [0.5], [1 - 1e-6]]))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.inf])
def test_no_probability_raises(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        LogRatio.from_probability(lambda p: p)(torch.tensor([[0.5], [wrong]]))


def test_nan_is_passed_on() -> None:
    assert LogRatio.from_probability(lambda p: p)(torch.tensor([[0.5], [math.nan]])).isnan().tolist() == [False, True]


def test_gradient_goes_through() -> None:
    x = X.clone().requires_grad_()
    LogRatio.from_probability(lambda x: torch.sigmoid(3 * x))(x).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, torch.full_like(x, 3.0), atol=1e-4)
