"""Laws of penalties: a norm is one row's, and the gradient is in the critic's parameters alone."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from pyro_gan.objectives import DRAGAN, R1, GradientPenalty, batch_noise, clip_weights
from tests.objectives.members import PENALTIES

each = pytest.mark.parametrize("name", PENALTIES)


def plane(x: Tensor) -> Tensor:
    """A critic with a gradient of norm 5 everywhere."""
    return 3 * x[:, 0] + 4 * x[:, 1]


def test_norms_are_per_sample() -> None:
    """(5 - 1)^2 = 16 for each row; one norm of the whole batch of four would give 81."""
    x, y = torch.randn(4, 2), torch.randn(4, 2)
    for penalty in (GradientPenalty(1.0), DRAGAN(1.0), DRAGAN(1.0, noise=torch.zeros_like)):
        assert float(penalty(plane, x, y)) == pytest.approx(16, rel=1e-5)
    assert float(GradientPenalty()(plane, x, y)) == pytest.approx(160, rel=1e-5)
    assert float(GradientPenalty(1.0, slope=5.0)(plane, x, y)) == pytest.approx(0, abs=1e-9)
    assert float(R1(2.0)(plane, x, y)) == pytest.approx(25, rel=1e-5)


@pytest.mark.parametrize("event", [(), (1,), (3, 2, 2)])
def test_the_norm_is_over_the_whole_event(event: tuple[int, ...]) -> None:
    x, y = torch.randn(6, *event), torch.randn(6, *event)
    size = x[0].numel()

    def critic(x: Tensor) -> Tensor:
        return 2 * x.reshape(len(x), -1).sum(1, keepdim=True)

    for penalty in (GradientPenalty(1.0), DRAGAN(1.0)):
        assert float(penalty(critic, x, y)) == pytest.approx((2 * size**0.5 - 1) ** 2, rel=1e-4)
    assert float(R1(2.0)(critic, x, y)) == pytest.approx(4 * size, rel=1e-4)


def test_gradient_of_the_probability() -> None:
    """At a logit of 0 the sigmoid's slope is a quarter: norm 1.25, penalty .0625."""
    zero = torch.zeros(4, 2)
    for penalty in (
        GradientPenalty(1.0, gradient_of="probability"),
        DRAGAN(1.0, noise=torch.zeros_like, gradient_of="probability"),
    ):
        assert penalty(plane, zero, zero).item() == pytest.approx(0.0625, rel=1e-5)
    assert R1(2.0, gradient_of="probability")(plane, zero, zero).item() == pytest.approx(1.25**2, rel=1e-5)


class Recorder(nn.Module):
    """A critic that records its input."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x.detach().clone()
        return x.reshape(len(x), -1).sum(1)


def test_interpolates_lie_between_the_pairs_with_one_share_a_sample() -> None:
    critic = Recorder()
    real, generated = (torch.randn(64, 1, 3, 3, dtype=torch.float64), torch.randn(64, 1, 3, 3, dtype=torch.float64))
    GradientPenalty()(critic, real, generated)
    share = ((critic.x - generated) / (real - generated)).reshape(64, -1)
    assert torch.allclose(share, share[:, :1].expand_as(share), atol=1e-8)
    assert ((share > 0) & (share < 1)).all() and share[:, 0].std() > 0.1


def test_dragan_stays_near_the_data_and_takes_the_users_noise() -> None:
    critic = Recorder()
    real = torch.randn(64, 3, dtype=torch.float64)
    noise = torch.randn(64, 3, dtype=torch.float64)
    DRAGAN(noise=lambda x: noise)(critic, real, torch.full((2, 9), torch.nan))
    share = (critic.x - real) / noise
    assert torch.allclose(share, share[:, :1].expand_as(share), atol=1e-8)
    assert ((share > 0) & (share < 1)).all() and share[:, 0].std() > 0.1
    DRAGAN()(critic, real, real)
    moved = critic.x - real
    assert (moved >= 0).all() and (moved <= 0.5 * real.std()).all() and moved.max() > 0.1 * real.std()


def test_r1_is_at_the_data() -> None:
    critic = Recorder()
    real = torch.randn(5, 2)
    R1()(critic, real, torch.zeros(0, 2))
    assert torch.equal(critic.x, real)


def test_batch_noise_is_uniform_up_to_half_the_standard_deviation() -> None:
    x = 3 + 2 * torch.randn(1000, 4)
    noise = batch_noise(x) / x.std(correction=0)
    assert noise.shape == x.shape and (noise >= 0).all() and (noise <= 0.5).all()
    assert noise.max() > 0.49 and noise.min() < 0.01


@each
def test_differentiable_in_the_critic_alone(name: str) -> None:
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    real, generated = (torch.randn(6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    before = real.detach().clone(), generated.detach().clone()
    torch.manual_seed(1)
    penalty = PENALTIES[name]()(critic, real, generated)
    gradients = torch.autograd.grad(penalty, [*critic.parameters(), real, generated], allow_unused=True)
    assert penalty.shape == () and penalty.dtype == torch.float64
    assert gradients[0].abs().sum() > 0 and gradients[-2] is None and gradients[-1] is None
    assert torch.equal(real, before[0]) and torch.equal(generated, before[1])
    assert all(p.grad is None for p in critic.parameters()) and real.grad is None

    # against a difference quotient, with the same draws
    direction = torch.randn_like(critic[0].weight)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            critic[0].weight += step * direction
        torch.manual_seed(1)
        values.append(PENALTIES[name]()(critic, real, generated).item())
        with torch.no_grad():
            critic[0].weight -= step * direction
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(float((gradients[0] * direction).sum()), rel=1e-5)


@each
def test_a_flat_critic_has_finite_gradients(name: str) -> None:
    critic = nn.Linear(2, 1)
    nn.init.zeros_(critic.weight)
    penalty = PENALTIES[name]()(critic, torch.randn(4, 2), torch.randn(4, 2))
    gradients = torch.autograd.grad(penalty, list(critic.parameters()), allow_unused=True)
    assert penalty.isfinite() and gradients[0].isfinite().all()


@each
def test_a_trained_critic_obeys(name: str) -> None:
    """Steps along minus its gradient lower the penalty; under no_grad it is a plain number."""
    critic = nn.Sequential(nn.Linear(2, 16), nn.Softplus(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
    x, y = torch.randn(256, 2), torch.randn(256, 2)
    with torch.no_grad():
        first = PENALTIES[name]()(critic, x, y)
    assert not first.requires_grad
    for _ in range(100):
        optimizer.zero_grad()
        PENALTIES[name]()(critic, x, y).backward()
        optimizer.step()
    assert PENALTIES[name]()(critic, x, y) < 0.8 * first


def test_bad_input_raises() -> None:
    x = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"of shape \(4, 2\); got \(3, 2\).*are paired"):
        GradientPenalty()(plane, x, x[:3])
    with pytest.raises(ValueError, match=r"noise like the data, of shape \(4, 2\); got \(2,\)"):
        DRAGAN(noise=lambda x: torch.zeros(2))(plane, x, x)
    for name, make in PENALTIES.items():
        penalty = make()
        with pytest.raises(ValueError, match=r"\(4,\) or \(4, 1, ..., 1\)"):
            penalty(lambda x: 2 * x, x, x)
        with pytest.raises(ValueError, match=r"one output for each row"):
            penalty(lambda x: x.sum(), x, x), name


@pytest.mark.parametrize("penalty", [GradientPenalty, DRAGAN, R1])
def test_bad_settings_raise(penalty) -> None:
    with pytest.raises(ValueError, match="weight"):
        penalty(-1.0)
    with pytest.raises(ValueError, match="gradient_of"):
        penalty(gradient_of="logit")
    if penalty is not R1:
        with pytest.raises(ValueError, match="slope"):
            penalty(slope=-1.0)


@each
def test_pickle(name: str) -> None:
    again = pickle.loads(pickle.dumps(PENALTIES[name]()))
    x = torch.randn(4, 2)
    values = []
    for penalty in (again, PENALTIES[name]()):
        torch.manual_seed(0)
        values.append(penalty(plane, x, x + 1))
    assert torch.equal(*values) and repr(again) == repr(PENALTIES[name]())


def test_weights_are_clipped_after_every_step() -> None:
    critic = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    optimizer.register_step_post_hook(lambda *_: clip_weights(critic, 0.05))
    critic(torch.randn(16, 2)).sum().backward()
    optimizer.step()
    assert all(p.abs().max() <= 0.05 for p in critic.parameters())
    assert critic[1].running_var.min() > 0.05  # a buffer
    assert all(p.requires_grad for p in critic.parameters())
    with pytest.raises(ValueError, match="positive, finite bound"):
        clip_weights(critic, 0.0)
