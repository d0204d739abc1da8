"""The density of a flow is that of its samples, all constants included; exact log ratios of flows judge estimates."""

from __future__ import annotations

import copy
import math
import pickle
import sys

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan import LatentPosterior, LogRatio, fit_log_ratio, toys
from pyro_gan.objectives import (
    KL,
    LSIF,
    MMD,
    UKL,
    Bernoulli,
    DonskerVaradhan,
    GaussianKernel,
    JensenShannon,
    Objective,
    SquaredHellinger,
    fit_gan,
)
from pyro_gan.ratio import diagnose
from pyro_gan.toys import RealNVP, bits_per_dim, squashing
from pyro_gan.training import Player, train
from tests.flow_pair import flow_pair
from tests.statistics import NUM_SE, assert_close_in_se, assert_mean

OUTPUTS = {"plain": None, "squashed": squashing(-1.0, 1.0)}


def wild_flow(num_features: int, output=None, **options) -> RealNVP:
    """A flow far from the identity, in float64."""
    flow = RealNVP(num_features, output=output, **options).double().requires_grad_(False)
    for parameter in flow.parameters():
        parameter *= 1.5
    return flow


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("num_features", [2, 5])
def test_the_density_is_that_of_the_change_of_variables(name: str, num_features: int) -> None:
    flow = wild_flow(num_features, OUTPUTS[name])
    z = torch.randn(20, num_features, dtype=torch.float64)
    x = flow(z)
    assert torch.allclose(flow.inverse(x), z, atol=1e-8)
    jacobians = torch.stack([torch.autograd.functional.jacobian(flow, row) for row in z])
    expected = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) - torch.linalg.slogdet(jacobians).logabsdet
    assert torch.allclose(flow.log_prob(x), expected, atol=1e-8)
    if num_features > 2:
        off_diagonal = jacobians[0] - jacobians[0].diagonal().diag()
        assert off_diagonal.abs().max() > 0.05  # coordinates depend on one another


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_density_has_mass_one(name: str) -> None:
    flow = wild_flow(2, OUTPUTS[name])
    if name == "plain":
        x = flow(torch.randn(20_000, 2, dtype=torch.float64))
        # Importance sampling from a normal that is wider than the flow.
        wide = dist.Normal(x.mean(0), 2.5 * x.std(0)).to_event(1)
        y = wide.sample((100_000,))
        assert_mean((flow.log_prob(y) - wide.log_prob(y)).exp(), 1.0, "mass")
    else:
        low = -1 - 0.05 * 2 / 0.95
        y = low + (1 - low) * torch.rand(100_000, 2, dtype=torch.float64)
        assert_mean((flow.log_prob(y) + 2 * math.log(1 - low)).exp(), 1.0, "mass")


def test_shapes_and_every_coordinate_moves() -> None:
    flow = RealNVP(3, num_couplings=2, hidden=(8,))
    z = torch.randn(4, 5, 3)
    assert flow(z).shape == flow.inverse(z).shape == (4, 5, 3) and flow.log_prob(z).shape == (4, 5)
    assert ((flow(z) - z).abs().amax((0, 1)) > 0).all()
    assert flow.double()(z.double()).dtype == torch.float64


@pytest.mark.parametrize(("pixel", "expected"), [(0.0, 11.25770165), (100.0, 7.43644003), (255.5, 28.84221736)])
def test_bits_of_a_normal_on_logits(pixel: float, expected: float) -> None:
    """With p = 0.05 + 0.95 x / 256: bits = -log2 N(logit p) - log2(0.95 / 256) + log2(p (1 - p)), of one pixel."""
    to_pixels, x = squashing(0.0, 256.0), torch.tensor([pixel], dtype=torch.float64)
    y = to_pixels.inv(x)
    log_prob = dist.Normal(0.0, 1.0).log_prob(y) - to_pixels.log_abs_det_jacobian(y, x)
    assert float(bits_per_dim(log_prob, 1)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("low", "high", "num_levels"), [(0.0, 256.0, 256), (-1.0, 1.0, 256), (-1.0, 1.0, 17)])
def test_bits_of_a_uniform_density_are_those_of_its_levels(low: float, high: float, num_levels: int) -> None:
    log_prob = torch.full((3,), -7 * math.log(high - low), dtype=torch.float64)
    bits = bits_per_dim(log_prob, 7, bin_width=(high - low) / num_levels)
    assert torch.allclose(bits, torch.full_like(bits, math.log2(num_levels)), atol=1e-12)


def test_bits_do_not_depend_on_the_unit_of_the_pixels() -> None:
    """The same distribution of a pixel, in levels and in [-1, 1]."""
    target, level = dist.Normal(0.0, 1.0), torch.linspace(0.1, 16.9, 50, dtype=torch.float64)
    by_unit = []
    for low, high in ((0.0, 17.0), (-1.0, 1.0)):
        x, to_pixels = low + level * (high - low) / 17, squashing(low, high)
        y = to_pixels.inv(x)
        log_prob = target.log_prob(y) - to_pixels.log_abs_det_jacobian(y, x)
        by_unit.append(bits_per_dim(log_prob, 1, bin_width=(high - low) / 17))
    assert torch.allclose(by_unit[0], by_unit[1], atol=1e-10)


def test_a_used_flow_can_be_copied_pickled_and_sampled_as_a_latent_posterior() -> None:
    flow = RealNVP(2, output=squashing(-1.0, 1.0))
    z = torch.randn(6, 2)
    (-flow.log_prob(flow(z))).mean().backward()
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin(z), flow(z))
    prior = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    gan = LatentPosterior(flow, lambda x: x.sum(-1), prior)
    expected = -prior.log_prob(z) - flow(z).sum(-1)
    assert torch.allclose(gan.potential_fn({"z": z}), expected, atol=1e-5)


def test_maximum_likelihood_comes_near_the_entropy() -> None:
    """On a rotated, stretched normal no flow has a mean loss below the entropy, and this one is hardly above it."""
    target = dist.MultivariateNormal(torch.ones(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    flow = RealNVP(2, num_couplings=4, hidden=(32,))
    adam = torch.optim.Adam(flow.parameters(), lr=1e-2)
    with torch.no_grad():
        before = float(-flow.log_prob(target.sample((5000,))).mean())
    player = Player("flow", flow, adam, lambda x: -flow.log_prob(x).mean())
    train([player], lambda: target.sample((256,)), num_steps=300, progress=False)
    x = target.sample((20_000,))
    with torch.no_grad():
        excess = target.log_prob(x) - flow.log_prob(x)
    assert before - float(target.entropy()) > 0.5
    assert -NUM_SE * float(excess.std()) / len(x) ** 0.5 < float(excess.mean()) < 0.05


def test_fit_gan_trains_a_flow() -> None:
    flow = RealNVP(2, num_couplings=2, hidden=(16,))
    prior = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    data = 2 + 0.5 * torch.randn(2000, 2)
    loss = MMD(GaussianKernel([0.5, 1.0, 2.0, 4.0]))
    fit_gan(
        flow,
        None,
        prior=prior,
        data=data,
        objective=loss,
        generator_optimizer=torch.optim.Adam(flow.parameters(), lr=1e-2),
        num_steps=200,
        batch_size=128,
        progress=False,
    )
    with torch.no_grad():
        x = flow(prior.sample((2000,)))
    assert (x.mean(0) - 2).abs().max() < 0.3
    assert flow.log_prob(data).mean() > prior.log_prob(data).mean() + 1


def pair_with_rows(num_features: int = 2, change: float = 0.15) -> tuple[toys.Toy, list[Tensor]]:
    """Return two flows, and rows of both."""
    toy = flow_pair(num_features, change=change, seed=2)
    return toy, [toy.sample_data(20_000), toy.generator(toy.prior.sample((20_000,)))]


@pytest.mark.parametrize(("num_features", "change"), [(2, 0.15), (4, 0.1)])
def test_the_exact_ratio_of_two_flows_passes_its_diagnosis(num_features: int, change: float) -> None:
    toy, sides = pair_with_rows(num_features, change)
    exact = [toy.log_ratio(side) for side in sides]
    report = diagnose(*exact)
    assert_close_in_se(report.slope, 1.0, report.slope_se, "slope", max_relative_se=0.05)
    assert_close_in_se(report.intercept, 0.0, report.intercept_se, "intercept")
    assert_close_in_se(*mean_ratio_below(20.0, *exact), "mean ratio", max_relative_se=0.05)
    # The same checks detect a ratio that is too steep by a tenth, or too large.
    steep = diagnose(*(1.1 * side for side in exact))
    assert abs(steep.slope - 1) > NUM_SE * steep.slope_se
    mean, share, standard_error = mean_ratio_below(20.0, *(side + 0.1 for side in exact))
    assert mean - share > NUM_SE * standard_error


def mean_ratio_below(bound: float, real: Tensor, generated: Tensor) -> tuple[float, float, float]:
    """Return E_G[r; r < bound], the share of data with r < bound, and the error of their difference, which should be 0.

    Without the bound it is the mean ratio of the report, 1. But the weights of flows have such heavy tails that the
    error of that mean is far from normal.
    """
    low = (real.exp() < bound).double()
    ratio = generated.double().exp() * (generated.exp() < bound)
    variance = low.var() / len(low) + ratio.var() / len(ratio)
    return float(ratio.mean()), float(low.mean()), float(variance.sqrt())


def log_loss(real: Tensor, generated: Tensor) -> float:
    return float(softplus(-real).mean() + softplus(generated).mean()) / 2


def assert_estimates(
    log_ratio: LogRatio, toy: toys.Toy, sides: list[Tensor], *, max_gap: float = 0.25, correlation: float = 0.93
) -> None:
    """Assert on held-out rows that the loss is near that of the exact ratio, as a share of what a constant loses."""
    with torch.no_grad():
        exact, fitted = ([ratio(side) for side in sides] for ratio in (toy.log_ratio, log_ratio))
    gap, of_constant = log_loss(*fitted) - log_loss(*exact), math.log(2) - log_loss(*exact)
    assert -0.003 < gap < max_gap * of_constant
    near = [side.abs() < 4 for side in exact]
    pairs = torch.cat([torch.stack([a[m], b[m]]) for a, b, m in zip(exact, fitted, near, strict=True)], 1)
    assert torch.corrcoef(pairs)[0, 1] > correlation


@pytest.mark.parametrize("objective", [Bernoulli(), KL(), UKL(), LSIF(), SquaredHellinger()], ids=repr)
def test_a_fresh_critic_finds_the_exact_ratio(objective: Objective) -> None:
    toy, sides = pair_with_rows()
    # LSIF weighs errors of the ratio and not of its log, so a few large weights dominate.
    is_noisy = isinstance(objective, LSIF)
    log_ratio = fit_log_ratio(
        toy.generator,
        toy.prior,
        toy.sample_data(10_000),
        toys.MLP([2, 32, 32, 1]),
        objective=objective,
        num_steps=400,
        batch_size=256,
        min_ess_fraction=0.0,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3 if is_noisy else 5e-3),
        progress=False,
    )
    wanted = {"max_gap": 0.4, "correlation": 0.8} if is_noisy else {}
    assert_estimates(log_ratio, toy, sides, **wanted)


def test_a_critic_up_to_a_constant_finds_the_exact_ratio() -> None:
    toy, sides = pair_with_rows()
    objective = DonskerVaradhan()
    critic = toys.MLP([2, 32, 32, 1])
    adam = torch.optim.Adam(critic.parameters(), lr=3e-3)

    def loss(real: Tensor) -> Tensor:
        generated = toy.generator(toy.prior.sample((len(real),)))
        return objective.critic_loss(critic(real)[:, 0], critic(generated)[:, 0])

    train([Player("critic", critic, adam, loss)], lambda: toy.sample_data(256), num_steps=400, progress=False)
    generated = toy.generator(toy.prior.sample((20_000,)))
    assert_estimates(LogRatio.normalised(critic.eval(), objective, generated=generated), toy, sides)


def test_jensen_shannon_is_bernoulli_twice() -> None:
    """They are one estimator with two names: a table of objectives may leave one out."""
    real, generated = torch.randn(50), torch.randn(70)
    twice = 2 * Bernoulli().critic_loss(real, generated) - 2 * math.log(2)
    assert torch.allclose(JensenShannon().critic_loss(real, generated), twice)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RealNVP(1), "num_features of at least 2"),
        (lambda: RealNVP(4, num_couplings=1), "num_couplings of at least 2"),
        (lambda: squashing(1.0, 1.0), "high above 1"),
        (lambda: squashing(0.0, 1.0, margin=1.0), "margin"),
        (lambda: bits_per_dim(torch.zeros(2), 0), "num_features"),
        (lambda: bits_per_dim(torch.zeros(2), 3, bin_width=0.0), "bin_width"),
    ],
)
def test_bad_input_gets_a_clear_error(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_without_zuko_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ImportError) as error:
        RealNVP(2)
    assert error.value.__notes__ == ["pip install pyro-gan[flows]"]
