"""Bounds by a discriminator on total variation and W1, which are never above the truth on average; certified slopes."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from pyro_gan.evaluate import (
    MaxMin,
    adversarial,
    critic_distance,
    lipschitz_constant,
    lipschitz_mlp,
    total_variation_bound,
    wasserstein_bound,
)
from tests.statistics import NUM_SE, assert_close_in_se, assert_mean


def first(x: Tensor) -> Tensor:
    return x[:, 0]


def test_total_variation_of_shifted_gaussians_is_bounded_and_reached() -> None:
    truth = 2 * norm.cdf(0.75) - 1
    runs = torch.tensor(
        [
            total_variation_bound(
                torch.randn(200, 2),
                torch.randn(200, 2) + torch.tensor([1.5, 0.0]),
                classifier=LogisticRegression(),
                seed=seed,
            )
            for seed in range(200)
        ],
        dtype=torch.float64,
    )
    standard_error = float(runs[:, 0].std()) / math.sqrt(len(runs))
    assert truth - 0.03 - NUM_SE * standard_error < float(runs[:, 0].mean()) < truth + NUM_SE * standard_error
    assert float(runs[:, 0].std()) == pytest.approx(float(runs[:, 1].square().mean().sqrt()), rel=0.25)


def test_total_variation_of_one_distribution_is_0_on_average_and_1_for_disjoint_supports() -> None:
    draws = [(torch.randn(100, 2), torch.randn(100, 2)) for _ in range(200)]
    values = [total_variation_bound(*pair, classifier=LogisticRegression()).value for pair in draws]
    assert_mean(torch.tensor(values), 0.0)
    assert min(values) < 0
    apart = total_variation_bound(torch.rand(100, 2), torch.rand(100, 2) + 2, classifier=LogisticRegression(C=100))
    # So few rows cannot show that none is misplaced.
    assert apart.value == 1.0 and 0 < apart.standard_error < 0.1


def test_a_critic_s_means_over_its_constant() -> None:
    x, y = torch.randn(300, 2), torch.randn(500, 2) + torch.tensor([2.0, 0.0])
    bound = critic_distance(x, y, critic=lambda rows: 3 * first(rows)[:, None], lipschitz=3.0)
    assert bound.value == pytest.approx(float(y[:, 0].mean() - x[:, 0].mean()), rel=1e-5)
    expected = math.sqrt(float(x[:, 0].var()) / 300 + float(y[:, 0].var()) / 500)
    assert bound.standard_error == pytest.approx(expected, rel=1e-5)
    assert_close_in_se(bound.value, 2.0, bound.standard_error)
    # A larger constant is a weaker bound.
    assert critic_distance(x, y, critic=first, lipschitz=2.0).value == pytest.approx(bound.value / 2, rel=1e-5)


def test_equal_rows_count_once() -> None:
    draws = []
    for _ in range(400):
        source = torch.randn(50, 1)
        draws.append(
            critic_distance(source[torch.randint(50, (500,))], torch.randn(500, 1), critic=first, lipschitz=1.0)
        )
    runs = torch.tensor(draws, dtype=torch.float64)
    assert float(runs[:, 0].std()) == pytest.approx(float(runs[:, 1].square().mean().sqrt()), rel=0.25)


@pytest.mark.parametrize("dim, scale, shift, reached", [(1, 1.0, 1.5, 0.9), (2, 3.0, 0.0, 0.85)])
def test_w1_is_bounded_and_nearly_reached(dim: int, scale: float, shift: float, reached: float) -> None:
    # The distance of a shift is its length; that of a scaling is the mean radius times the change of scale.
    radius = math.sqrt(2) * math.gamma((dim + 1) / 2) / math.gamma(dim / 2)
    truth = shift if shift else (scale - 1) * radius
    runs = [
        wasserstein_bound(torch.randn(1200, dim), torch.randn(1200, dim) * scale + shift, num_steps=150, seed=i)
        for i in range(3)
    ]
    mean = sum(run.value for run in runs) / len(runs)
    error = math.sqrt(sum(run.standard_error**2 for run in runs)) / len(runs)
    assert reached * truth - NUM_SE * error < mean < truth + NUM_SE * error


def test_w1_of_one_distribution_is_0_on_average() -> None:
    runs = torch.tensor(
        [
            wasserstein_bound(
                torch.randn(60, 2), torch.randn(60, 2), network=lipschitz_mlp(2, width=8), num_steps=20, seed=seed
            )
            for seed in range(60)
        ],
        dtype=torch.float64,
    )
    # A critic that is judged on its training rows always finds something, a small one too.
    assert_mean(runs[:, 0], 0.0)


def test_w1_is_in_the_data_s_unit_and_of_images() -> None:
    x, y = torch.randn(200, 1, 2, 2), torch.randn(200, 1, 2, 2) + 1
    small = wasserstein_bound(x, y, num_steps=40)
    large = wasserstein_bound(1000 * x + 50, 1000 * y + 50, num_steps=40)
    assert large.value == pytest.approx(1000 * small.value, rel=0.02)
    assert small.value > 1.0


def test_a_users_network_is_trained_and_divided_by_the_constant_of_its_weights() -> None:
    normalised = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 16))
    network = nn.Sequential(normalised, nn.ReLU(), nn.Linear(16, 1))
    bound = wasserstein_bound(torch.randn(400, 2), torch.randn(400, 2) + 2, network=network, num_steps=60)
    # Nothing bounds the slope of the last layer, and the figure is still a bound.
    assert 0 < bound.value < 2 * math.sqrt(2) + NUM_SE * bound.standard_error
    with pytest.raises(ValueError, match="got GELU"):
        wasserstein_bound(torch.randn(100, 2), torch.randn(100, 2), network=nn.Sequential(nn.Linear(2, 2), nn.GELU()))


def test_w1_is_that_of_a_network_however_steep_it_is() -> None:
    """c(x) = 1000 (x_1 + x_2) has L = 1000 sqrt(2): for a shift by 2 in both, E c - E c over L is 2 sqrt(2) = W1."""
    network = nn.Linear(2, 1)
    network.weight.data = torch.full((1, 2), 1000.0)
    bound = wasserstein_bound(torch.randn(400, 2), torch.randn(400, 2) + 2, network=network, num_steps=1)
    assert_close_in_se(bound.value, 2 * math.sqrt(2), bound.standard_error)
    assert bound.standard_error < 0.2


def test_the_kept_network_is_the_best_after_the_division(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean gap of an unbounded network grows as it trains; only over its constant do two states compare."""
    x, y = torch.randn(400, 2), torch.randn(400, 2) + 2
    torch.manual_seed(0)
    short = nn.Linear(2, 1)
    long = copy.deepcopy(short)
    wasserstein_bound(x, y, network=short, num_steps=20)
    constants = itertools.chain([1.0, 1.0], itertools.repeat(1e6))  # before training, after 20 steps, then later ones
    monkeypatch.setattr(adversarial, "lipschitz_constant", lambda _: next(constants))
    wasserstein_bound(x, y, network=long, num_steps=100)
    assert torch.equal(long.weight, short.weight)


def test_constants_in_closed_form() -> None:
    stretch, turn = nn.Linear(2, 2), nn.Linear(2, 2)
    stretch.weight.data = torch.tensor([[5.0, 0.0], [0.0, 2.0]])
    turn.weight.data = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert lipschitz_constant(nn.Sequential(stretch, turn)) == pytest.approx(5.0)
    assert lipschitz_constant(nn.Sequential(stretch, turn, stretch)) == pytest.approx(25.0)
    assert lipschitz_constant(nn.Sequential(stretch, nn.Sequential(nn.Sigmoid()))) == pytest.approx(1.25)
    assert lipschitz_constant(nn.Sequential(stretch, nn.LeakyReLU(1.5))) == pytest.approx(7.5)
    assert lipschitz_constant(nn.Sequential(stretch, nn.LeakyReLU(0.2), MaxMin())) == pytest.approx(5.0)
    normalised = nn.utils.parametrizations.spectral_norm(nn.Linear(7, 5)).eval()
    exact = float(torch.linalg.matrix_norm(normalised.weight.detach().double(), ord=2))
    assert lipschitz_constant(normalised) == pytest.approx(exact)


def test_networks_without_a_certified_constant_are_refused() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(ValueError, match="got Doubled"):
        lipschitz_constant(nn.Sequential(Doubled(2, 2)))
    with pytest.raises(ValueError, match="without hooks"):
        lipschitz_constant(nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2))))
    with pytest.raises(ValueError, match="changes when it is read"):
        lipschitz_constant(nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(20, 20))))
    with pytest.raises(ValueError, match="got BatchNorm1d"):
        lipschitz_constant(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Softplus(), nn.Sigmoid(), MaxMin()])
def test_no_slope_beats_the_constant(activation: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(3, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 1))
    x = torch.randn(2000, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert float(gradient.norm(dim=1).max()) <= lipschitz_constant(network) * (1 + 1e-6)


@pytest.mark.parametrize("num_features", [1, 5, 200])
def test_the_mlp_has_constant_1_after_any_training(num_features: int) -> None:
    network = lipschitz_mlp(num_features, width=16, num_hidden=3)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    x = torch.randn(64, num_features)
    before = network(x)
    for _ in range(5):
        optimiser.zero_grad()
        (network(x).square().mean() * 100).backward()
        optimiser.step()
    assert not torch.allclose(before, network(x))
    assert lipschitz_constant(network) == pytest.approx(1.0, abs=1e-5)
    assert network(x).shape == (64, 1)


def test_max_min_keeps_lengths_of_gradients() -> None:
    x = torch.randn(10, 6, requires_grad=True)
    weight = torch.randn(10, 6)
    (gradient,) = torch.autograd.grad((MaxMin()(x) * weight).sum(), x)
    assert torch.allclose(gradient.norm(dim=1), weight.norm(dim=1))
    with pytest.raises(ValueError, match=r"even number of features.*got x \(2, 3\)"):
        MaxMin()(torch.randn(2, 3))


def test_generators_stay_where_they_are_and_seeds_decide() -> None:
    x, y = torch.randn(100, 2), torch.randn(100, 2) + 1
    state = torch.get_rng_state()
    one = wasserstein_bound(x, y, num_steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert wasserstein_bound(x, y, num_steps=5) == one
    assert wasserstein_bound(x, y, num_steps=5, seed=1) != one


@pytest.mark.parametrize(
    "critic, x, y, settings, words",
    [
        (first, torch.randn(20, 2), torch.randn(20, 3), {}, r"real of shape \(row, 2\); got \(20, 3\)"),
        (first, torch.randn(1, 2), torch.randn(20, 2), {}, r"outputs of shape .* at least 2 rows; got \(1, 2\)"),
        (
            first,
            torch.randn(20, 2),
            torch.full((20, 2), math.nan),
            {},
            "finite real; got NaN or infinity in 20 of 20 rows",
        ),
        (first, torch.randn(20, 2), torch.randn(20, 2), {"lipschitz": 0.0}, "positive, finite lipschitz"),
        (first, torch.randn(20, 2), torch.randn(20, 2), {"lipschitz": math.nan}, "positive, finite lipschitz"),
        (lambda x: x, torch.randn(20, 2), torch.randn(20, 2), {}, r"critic output of shape \(20,\).*got \(20, 2\)"),
        (lambda x: first(x) / 0, torch.randn(20, 2), torch.randn(20, 2), {}, "finite scores of outputs"),
        (nn.Dropout(), torch.randn(20, 1), torch.randn(20, 1), {}, "evaluation mode"),
    ],
)
def test_bad_input_gets_a_clear_error(critic: Any, x: Tensor, y: Tensor, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        critic_distance(x, y, critic=critic, **({"lipschitz": 1.0} | settings))


def test_bad_settings_get_a_clear_error() -> None:
    x = torch.randn(100, 2)
    with pytest.raises(ValueError, match="num_steps of at least 1; got 0"):
        wasserstein_bound(x, x, num_steps=0)
    with pytest.raises(ValueError, match=r"outputs of shape .* at least 50 rows; got \(30, 2\)"):
        wasserstein_bound(x[:30], x)
    for sizes, words in (
        ({"width": 5}, "an even width.*got 5"),
        ({"width": 0}, "width of at least 2; got 0"),
        ({"num_hidden": 0}, "num_hidden of at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            lipschitz_mlp(2, **sizes)


def test_a_critic_trains_where_gradients_are_off() -> None:
    with torch.no_grad():
        bound = wasserstein_bound(torch.randn(300, 1), torch.randn(300, 1) + 3.0, num_steps=50)
    assert bound.value > 1
