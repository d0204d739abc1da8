"""Learned log ratios: the divergence that each kind estimates, the direction of the labels, and adaptive contrast."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan.objectives import Hinge, Wasserstein
from pyro_gan.training import Player, train
from pyro_gan.vi import (
    AdaptiveContrast,
    AggregatedRatio,
    ConditionalRatio,
    GaussianGuide,
    ImplicitGuide,
    Joined,
    LatentRatio,
)
from pyro_gan.vi.ratios import as_ratio
from tests.statistics import assert_close_in_se
from tests.vi import toy


def fit(ratio: LatentRatio, x: Tensor, z_q: Tensor, z_p: Tensor) -> None:
    """Full-batch optimum of a convex loss."""
    optimizer = torch.optim.LBFGS(ratio.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ratio.loss(z_q, z_p, x)
        loss.backward()
        return loss

    optimizer.step(closure)


def draws(num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    x = toy.data(num_draws)
    z = toy.A * x + toy.B + toy.S * torch.randn_like(x)
    return x, z, torch.randn_like(x)


def test_kl_splits_into_the_aggregate_and_the_mutual_information() -> None:
    """E KL(q(z|x) || p(z)) = KL(q(z) || p(z)) + I(x, z), by quadrature of the two exact ratios."""
    z, weights = toy.gauss_hermite(toy.Q_MEAN, toy.Q_SD)
    aggregate = (weights * -toy.f_latent(z)).sum()
    x, x_weights = toy.gauss_hermite(toy.DATA_MEAN, toy.DATA_SD, 40)
    e, e_weights = toy.gauss_hermite(0.0, 1.0, 40)
    grid_x, grid_z = (
        x.repeat_interleave(40, 0),
        (toy.A * x + toy.B).repeat_interleave(40, 0) + toy.S * e.repeat(40, 1),
    )
    both = (x_weights[:, None] * e_weights).flatten()
    conditional = (both * toy.exact_t(grid_x, grid_z)).sum()
    assert aggregate == pytest.approx(0.00158395, abs=1e-7)
    assert conditional == pytest.approx(0.47207562, abs=1e-7)
    assert conditional - aggregate == pytest.approx(0.47049167, abs=1e-7)


def test_conditional_ratio_recovers_the_exact_one() -> None:
    """log N(z; a x + b, s^2) - log N(z; 0, 1) by a logistic loss with quadratic features, and its mean under q.

    At n = 1e5 the largest error of a coefficient over six seeds is .026; here n = 2e5 and the limit is .06.
    """
    x, z_q, z_p = draws(200_000)
    ratio = ConditionalRatio(toy.Quadratic(2))
    fit(ratio, x, z_q, z_p)
    exact = torch.tensor(
        [0.45527007, 0.27777778, -0.55555556, -0.34722222, 1.38888889, -0.88888889], dtype=torch.float64
    )
    found = ratio.network.linear.weight.detach().flatten()
    torch.testing.assert_close(found, exact, atol=0.06, rtol=0)
    assert ratio(z_q, x).mean().item() == pytest.approx(0.472, abs=0.03)


def test_coefficients_of_the_exact_ratio() -> None:
    x, z, _ = draws(100)
    exact = (
        0.45527007 - 0.55555556 * z - 0.88888889 * z**2 + 0.27777778 * x - 0.34722222 * x**2 + 1.38888889 * x * z
    ).squeeze(-1)
    torch.testing.assert_close(toy.exact_t(x, z), exact, atol=1e-6, rtol=1e-6)


def test_aggregated_ratio_recovers_minus_the_papers_logit() -> None:
    x, z_q, z_p = draws(200_000)
    ratio = AggregatedRatio(toy.Quadratic(1))
    fit(ratio, x, z_q, z_p)
    at = torch.tensor([[-1.0], [0.0], [0.7]], dtype=torch.float64)
    expected = -torch.tensor([0.00167147, -0.04033395, -0.01975130], dtype=torch.float64)
    torch.testing.assert_close(-toy.f_latent(at), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(ratio(at).detach(), expected, atol=0.04, rtol=0)


def direction(*, swapped: bool, seed: int) -> float:
    """Return where an encoder ends that starts at 3, far from the prior, and trains against its judge."""
    torch.manual_seed(seed)
    mean = nn.Parameter(torch.tensor([3.0]))
    encoder = nn.ParameterList([mean])
    judge = AggregatedRatio(nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1)))

    def draw(_: None) -> tuple[Tensor, Tensor]:
        return mean + 0.1 * torch.randn(128, 1), torch.randn(128, 1)

    def judge_loss(_: None) -> Tensor:
        z_q, z_p = draw(_)
        pair = (z_p, z_q.detach()) if swapped else (z_q.detach(), z_p)
        return judge.loss(*pair)

    def encoder_loss(_: None) -> Tensor:
        return judge(draw(_)[0]).mean()

    betas = (0.5, 0.9)
    players = [
        Player("judge", judge, torch.optim.Adam(judge.parameters(), lr=0.01, betas=betas), judge_loss),
        Player("encoder", encoder, torch.optim.Adam(encoder.parameters(), lr=0.02, betas=betas), encoder_loss),
    ]
    train(players, lambda: None, num_steps=200, progress=False)
    return mean.item()


def test_labels_in_the_right_direction(seed: int) -> None:
    assert abs(direction(swapped=False, seed=seed)) < 2


def test_labels_swapped_as_in_the_papers_first_version_never_reach_the_prior(seed: int) -> None:
    """Negative control: encoder and judge agree to move away from the prior."""
    assert abs(direction(swapped=True, seed=seed)) > 5


@pytest.mark.parametrize("variance", [0.36, 1e-4])
def test_adaptive_contrast_is_exact_for_a_gaussian_without_training(variance: float) -> None:
    """With a network of zeros, T = log N(z; mu, sigma^2) - log p(z) = log q - log p at every draw."""
    guide = GaussianGuide(toy.Gaussian(), dim=1)
    guide.network.log_sd.data.fill_(0.5 * math.log(variance))
    ratio = AdaptiveContrast(lambda x, z: torch.zeros(len(z)), moments=guide.moments, prior=toy.prior())
    x = toy.data(1000)
    q = guide.conditional(x)
    z = q.sample()
    torch.testing.assert_close(ratio(z, x), q.log_prob(z) - toy.prior().log_prob(z), atol=1e-10, rtol=0)


def test_adaptive_contrast_uses_one_floor() -> None:
    """Below the floor the contrast is wider than q; with their known ratio as the network, T is still exact."""
    guide = GaussianGuide(toy.Gaussian(), dim=1)
    guide.network.log_sd.data.fill_(math.log(0.01))
    x = toy.data(1000)
    q = guide.conditional(x)
    z = q.sample()

    def rest(x: Tensor, standard: Tensor) -> Tensor:
        narrow = dist.Normal(torch.zeros(1).double(), 0.1).to_event(1)  # sd .01 over a floor's sd of .1
        return narrow.log_prob(standard) - dist.Normal(torch.zeros(1).double(), 1.0).to_event(1).log_prob(standard)

    ratio = AdaptiveContrast(rest, moments=guide.moments, prior=toy.prior(), floor=1e-2)
    torch.testing.assert_close(ratio(z, x), q.log_prob(z) - toy.prior().log_prob(z), atol=1e-9, rtol=0)


def test_adaptive_contrast_trains_on_standardised_draws() -> None:
    """A Gaussian q leaves nothing to learn for any data: the smallest loss is log 2."""
    guide = GaussianGuide(toy.Gaussian(), dim=1)
    ratio = AdaptiveContrast(toy.Quadratic(2), moments=guide.moments, prior=toy.prior())
    x, z_q, z_p = draws(20_000)
    loss = ratio.loss(z_q, z_p, x)
    assert loss.item() == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-6)
    loss.backward()
    assert ratio.network.linear.weight.grad.abs().max() < 0.1
    assert all(p.grad is None for p in guide.parameters())
    assert {id(p) for p in guide.parameters()}.isdisjoint({id(p) for p in ratio.parameters()})


def test_moments_of_an_implicit_guide_are_a_function_of_the_data() -> None:
    noise = dist.Normal(torch.zeros(1).double(), 1.0).to_event(1)
    guide = ImplicitGuide(toy.Noisy(), noise, event_shape=(1,), num_moment_draws=5000)
    x = toy.data(3)
    mean, variance = guide.moments(x)
    assert torch.equal(mean, guide.moments(x)[0]) and not mean.requires_grad
    se = toy.S / 5000**0.5
    assert_close_in_se(mean, toy.A * x + toy.B, se, "mean")
    assert_close_in_se(variance, toy.S**2, toy.S**2 * (2 / 5000) ** 0.5, "variance")
    assert "noise_bank" in guide.state_dict()


def test_gradients_pass_to_latents() -> None:
    z = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    x = toy.data(5)
    guide = GaussianGuide(toy.Gaussian(), dim=1)
    for ratio in (
        AggregatedRatio(nn.Linear(1, 1).double()),
        ConditionalRatio(Joined(nn.Linear(2, 1).double())),
        AdaptiveContrast(Joined(nn.Linear(2, 1).double()), moments=guide.moments, prior=toy.prior()),
    ):
        (gradient,) = torch.autograd.grad(ratio(z, x).sum(), z)
        assert bool(gradient.all())


def test_plain_networks_are_told_apart() -> None:
    assert isinstance(as_ratio(nn.Linear(2, 1)), AggregatedRatio)
    assert isinstance(as_ratio(Joined(nn.Linear(2, 1))), ConditionalRatio)
    ratio = AggregatedRatio(nn.Linear(2, 1))
    assert as_ratio(ratio) is ratio


def test_doors() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        AggregatedRatio(nn.Linear(2, 1), objective=Hinge())
    with pytest.raises(ValueError, match="calibrate"):
        ConditionalRatio(nn.Bilinear(2, 2, 1), objective=Wasserstein())
    with pytest.raises(ValueError, match="floor"):
        AdaptiveContrast(Joined(nn.Linear(2, 1)), moments=lambda x: (x, x), prior=toy.prior(), floor=0.0)
    with pytest.raises(ValueError, match="batch_shape"):
        AdaptiveContrast(Joined(nn.Linear(2, 1)), moments=lambda x: (x, x), prior=dist.Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match="Pass x"):
        ConditionalRatio(Joined(nn.Linear(2, 1)))(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="one output for each row"):
        ConditionalRatio(Joined(nn.Linear(2, 3)))(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="2 \\* dim outputs"):
        GaussianGuide(nn.Linear(3, 3), dim=2).conditional(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="num_moment_draws"):
        ImplicitGuide(nn.Identity(), toy.prior(), event_shape=(1,), num_moment_draws=1)


def test_adaptive_contrast_does_not_broadcast() -> None:
    """Moments of another latent, or a prior without an event, would give another ratio."""
    network, prior = Joined(nn.Linear(4, 1)), dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    guide = GaussianGuide(nn.Linear(2, 2), dim=1)
    with pytest.raises(ValueError, match="of one shape"):
        AdaptiveContrast(network, moments=guide.moments, prior=prior)(torch.zeros(6, 2), torch.zeros(6, 2))
    guide = GaussianGuide(nn.Linear(2, 4), dim=2)
    with pytest.raises(ValueError, match="a vector event"):
        AdaptiveContrast(network, moments=guide.moments, prior=dist.Normal(0.0, 1.0))
    wide = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
    with pytest.raises(ValueError, match="the prior's latent"):
        AdaptiveContrast(network, moments=guide.moments, prior=wide)(torch.zeros(2, 2), torch.zeros(2, 2))
