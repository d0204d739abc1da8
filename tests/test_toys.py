"""The ratios of toys are exact, their posteriors right, and torch's generator does not move while they are built."""

from __future__ import annotations

import math
import pickle
import sys
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_gan import LatentPosterior, LogRatio, toys
from pyro_gan.evaluate import mode_report
from pyro_gan.objectives import Bernoulli, GradientPenalty, fit_gan
from tests.exact_targets import affine_toy
from tests.statistics import assert_close_in_se, assert_follows, assert_mean, assert_same_distribution, assert_sd

TOYS = {
    "affine": lambda: affine_toy(3),
    "shift": lambda: toys.gaussian_shift(0.8),
    "grid": toys.grid,
    "roll": toys.swiss_roll,
    "missing": lambda: toys.missing_mode(share=0.03),
}


@pytest.mark.parametrize("name", TOYS)
def test_ratio_is_normalised_and_the_posterior_is_prior_times_ratio(name: str) -> None:
    toy = TOYS[name]()
    z = toy.prior.sample((50_000,))
    log_ratio = toy.log_ratio(toy.generator(z))
    assert log_ratio.shape == (50_000,)
    assert_mean(log_ratio.exp(), 1.0, "E_G[r]")
    exact = toy.posterior.log_prob(z)
    torch.testing.assert_close(toy.prior.log_prob(z) + log_ratio, exact, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("name", TOYS)
def test_generator_maps_the_posterior_to_the_data(name: str) -> None:
    toy = TOYS[name]()
    with torch.no_grad():
        x = toy.generator(toy.posterior.sample((20_000,)))
    assert_same_distribution(x, toy.sample_data(20_000))


@pytest.mark.parametrize("name", TOYS)
def test_toys_leave_the_random_state_alone_and_pickle(name: str) -> None:
    before = torch.get_rng_state()
    toy = TOYS[name]()
    assert torch.equal(before, torch.get_rng_state())
    twin = pickle.loads(pickle.dumps(toy))
    x = toy.sample_data(5)
    torch.testing.assert_close(twin.log_ratio(x), toy.log_ratio(x))


@pytest.mark.parametrize("name", TOYS)
def test_prior_is_one_event_and_expands_in_a_plate(name: str) -> None:
    prior = TOYS[name]().prior
    assert prior.batch_shape == () and prior.event_dim == 1

    def model() -> Tensor:
        with pyro.plate("draws", 7):
            return pyro.sample("z", prior)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["z"]
    assert site["value"].shape == (7, *prior.event_shape)
    torch.testing.assert_close(site["log_prob"], prior.log_prob(site["value"]))


@pytest.mark.parametrize("temperature", [0.9, 1.0, 3.0])
def test_affine_posterior_at_a_temperature(temperature: float) -> None:
    toy = affine_toy(2, temperature=temperature)
    z = torch.randn(100, 2, dtype=torch.float64)
    with torch.no_grad():
        tempered = toy.prior.log_prob(z) + toy.log_ratio(toy.generator(z)) / temperature
    gap = tempered - toy.posterior.log_prob(z)
    # They are proportional, and at temperature 1 equal.
    torch.testing.assert_close(gap, gap[0].expand(100), atol=1e-9, rtol=0)
    assert (abs(gap[0].item()) < 1e-9) == (temperature == 1)


def test_affine_log_ratio_is_the_difference_of_the_log_densities() -> None:
    matrix = torch.tensor([[2.0, 0.0], [0.7, -1.5]], dtype=torch.float64)
    bias, mean = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([-1.0, 0.5], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.3], [0.3, 0.8]], dtype=torch.float64)
    toy = toys.affine_gaussian(matrix, bias, mean=mean, covariance=covariance)
    x = 3 * torch.randn(50, 2, dtype=torch.float64)
    expected = dist.MultivariateNormal(mean, covariance).log_prob(x) - dist.MultivariateNormal(
        bias, matrix @ matrix.T
    ).log_prob(x)
    torch.testing.assert_close(toy.log_ratio(x), expected, atol=1e-10, rtol=1e-10)
    z = torch.randn(4, 2, dtype=torch.float64)
    torch.testing.assert_close(toy.generator(z).detach(), z @ matrix.T + bias)
    samples = toy.sample_data(40_000)
    assert_mean(samples, mean)
    assert_sd(samples, covariance.diag().sqrt())


@pytest.mark.parametrize("auc", [0.5, 0.64, 0.81, 0.95])
def test_gaussian_shift_has_its_auc(auc: float) -> None:
    toy = toys.gaussian_shift(auc, dtype=torch.float64)
    n = 100_000
    wins = (toy.sample_data(n) > toy.prior.sample((n,))).double().mean()
    assert_close_in_se(wins, auc, math.sqrt(auc * (1 - auc) / n), "AUC")


def test_grid_density_is_the_mixture_and_is_accurate_far_away() -> None:
    toy = toys.grid(dtype=torch.float64)
    prior = toy.prior
    weights = torch.cat([0.9 * prior.weights.flatten(), torch.tensor([0.1], dtype=torch.float64)])
    loc = torch.cat([prior.means, torch.zeros(1, 2, dtype=torch.float64)])
    scale = torch.tensor([0.08] * 25 + [1.5], dtype=torch.float64)[:, None].expand(26, 2)
    slow = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scale).to_event(1))
    x = torch.cat([prior.sample((1000,)), torch.tensor([[30.0, -40.0], [2.5, 0.0]], dtype=torch.float64)])
    torch.testing.assert_close(prior.log_prob(x), slow.log_prob(x), atol=1e-9, rtol=1e-9)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(prior.log_prob(x).sum(), x)
    (expected,) = torch.autograd.grad(slow.log_prob(x).sum(), x)
    torch.testing.assert_close(grad, expected, atol=1e-8, rtol=1e-8)
    # No underflow in float32 either: 700 standard deviations of the data from the next mean.
    far = toys.grid().posterior.log_prob(torch.tensor([37.0, 2.0]))
    assert float(far) == pytest.approx(-0.5 * 700**2, rel=1e-3)


def test_grid_draws_follow_its_density() -> None:
    data = toys.grid().prior
    # Means of functions under the density, by importance sampling from a broad Gaussian.
    broad = dist.Normal(torch.zeros(2), torch.tensor(2.0)).to_event(1)
    proposal, draws = broad.sample((400_000,)), data.sample((200_000,))
    weight = (data.log_prob(proposal) - broad.log_prob(proposal)).exp().double()
    assert_mean(weight, 1.0, "total mass")
    for name, function in {
        "corner": lambda x: (x > 1.5).all(-1),
        "centre": lambda x: x.norm(dim=-1) < 0.1,
        "between": lambda x: (x - x.round()).norm(dim=-1) > 0.4,
    }.items():
        under, over = function(draws).double(), function(proposal) * weight
        se = (under.var() / len(draws) + over.var() / len(proposal)).sqrt()
        assert_close_in_se(under.mean(), over.mean(), se, name)


def test_grid_weights_depend_on_the_seed_alone() -> None:
    torch.testing.assert_close(toys.grid().prior.weights, toys.grid(dtype=torch.float64).prior.weights.float())
    assert not torch.equal(toys.grid(seed=1).prior.weights, toys.grid(seed=2).prior.weights)
    assert toys.grid().prior.sample().shape == (2,)
    assert toys.grid().prior.sample((3, 4)).shape == (3, 4, 2)
    assert toys.grid().prior.sample((0,)).shape == (0, 2)


def test_roll_distance_is_the_distance_to_the_curve() -> None:
    # The curve as a line of 60 000 points, .02 of the noise's sd apart.
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 60_000, dtype=torch.float64)
    curve = t[:, None] / 7.5 * torch.stack([t.cos(), t.sin()], -1)
    x = torch.cat([1.5 * torch.randn(500, 2), 20 * torch.randn(20, 2), torch.zeros(1, 2)])
    nearest = torch.cdist(x.double(), curve, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)
    torch.testing.assert_close(toys.roll_distance(x), (nearest / 0.05).float(), atol=0.05, rtol=1e-4)
    assert toys.roll_distance(x.double()).dtype == torch.float64


def test_roll_data_have_normal_distances_and_are_uniform_in_arc_length() -> None:
    x = toys.swiss_roll().sample_data(40_000)
    assert_follows(toys.roll_distance(x), lambda d: 2 * stats.norm.cdf(d) - 1, "distance")

    # The point of the curve at the sample's angle, on the nearest layer. Noise moves it by a ten-thousandth of the
    # length.
    def length(t: Tensor) -> Tensor:
        return (t * (1 + t.square()).sqrt() + t.asinh()) / 15

    angle, first, last = torch.atan2(x[:, 1], x[:, 0]).double(), 1.5 * math.pi, 4.5 * math.pi
    t = angle + 2 * math.pi * ((7.5 * x.norm(dim=-1).double() - angle) / (2 * math.pi)).round()
    start, end = length(torch.tensor([first, last], dtype=torch.float64))
    share = (length(t) - start) / (end - start)
    # Without the ends, because noise moves some samples beyond them.
    bins = torch.histc(share, 18, 0.05, 0.95)
    assert_close_in_se(bins / len(x), 0.05, math.sqrt(0.05 * 0.95 / len(x)), "share of a twentieth of the curve")


def test_roll_density_does_not_ripple() -> None:
    data = toys.swiss_roll(dtype=torch.float64).posterior
    t = torch.linspace(11.0, 11.5, 1000, dtype=torch.float64)
    log_prob = data.log_prob(t[:, None] / 7.5 * torch.stack([t.cos(), t.sin()], -1))
    # Seven Gaussians lie on this piece. What remains is the slow change by the bend.
    assert float(log_prob.max() - log_prob.min()) < 1e-4
    length = 11.918
    assert float(log_prob.mean()) == pytest.approx(-math.log(length * 0.05 * math.sqrt(2 * math.pi)), abs=1e-3)


def test_roll_generator_leaves_the_curve_and_its_weights_depend_on_the_seed_alone() -> None:
    toy = toys.swiss_roll()
    off_roll = (toys.roll_distance(toy.prior.sample((20_000,))) > 4).double()
    assert 0.13 < float(off_roll.mean()) < 0.155
    x = toy.sample_data(100)
    torch.testing.assert_close(
        toy.log_ratio(x), toys.swiss_roll(dtype=torch.float64).log_ratio(x.double()).float(), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(toy.log_ratio(x), toys.swiss_roll(seed=1).log_ratio(x), atol=0.1)


def test_25_gaussians_are_those_that_papers_train_on() -> None:
    data = toys.gaussians25()
    x = data.sample((50_000,))
    report = mode_report(x, data.means, sd=0.05 / 2.828)
    assert report.num_modes == 25 and report.high_quality > 0.998
    assert report.mode_sd == pytest.approx(0.05 / 2.828, rel=0.02)
    assert_mean(x, 0.0)
    # The variance of an axis's five means, 8, and that of a mode.
    assert_sd(x, math.sqrt(8 + 0.05**2) / 2.828)
    assert float(data.log_prob(data.means).std()) < 1e-4


def test_ring_has_its_modes_on_the_circle() -> None:
    data = toys.ring(6, radius=3.0, sd=0.1, dtype=torch.float64)
    x = data.sample((30_000,))
    assert x.dtype == torch.float64
    torch.testing.assert_close(data.means.norm(dim=-1), torch.full((6,), 3.0, dtype=torch.float64))
    gaps = torch.pdist(data.means)
    assert float(gaps.min()) == pytest.approx(3.0)  # the sides of a hexagon
    report = mode_report(x, data.means, sd=0.1)
    assert report.num_modes == 6 and report.high_quality > 0.998
    share = 1 / 6
    assert_close_in_se(report.counts[:-1] / len(x), share, math.sqrt(share * (1 - share) / len(x)), "share of a mode")
    assert report.mode_sd == pytest.approx(0.1, rel=0.02)


def test_missing_mode_has_the_share_it_is_given() -> None:
    toy = toys.missing_mode(share=0.1, dtype=torch.float64)
    x = toy.prior.sample((50_000,))
    near = ((x - 3).abs() < 1).double()
    assert_close_in_se(near.mean(), 0.1, math.sqrt(0.1 * 0.9 / len(x)), "share")
    points = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]], dtype=torch.float64)
    expected = torch.tensor([0.25 / 0.3] * 3 + [2.5], dtype=torch.float64).log()
    torch.testing.assert_close(toy.log_ratio(points), expected, atol=1e-6, rtol=0)


def test_weights_cannot_restore_what_a_generator_never_makes() -> None:
    toy = toys.missing_mode()
    x = toy.prior.sample((50_000,))
    log_ratio = toy.log_ratio(x)
    assert float(x.max()) < 2.7
    # The ratio is exact at each of the generator's points, but a quarter of the mass is where it makes none.
    assert float(log_ratio.exp().mean()) == pytest.approx(0.75, abs=0.02)
    assert float(toy.log_ratio(torch.tensor([[3.0]]))) == pytest.approx(32 + math.log(0.75), abs=1e-3)


@pytest.mark.parametrize("size", [8, 28])
def test_convolutions_map_latents_to_images_and_images_to_scores(size: int) -> None:
    generator = toys.conv_generator(5, size=size, channels=3, width=4)
    critic = toys.conv_critic(size=size, channels=3, width=4)
    images = generator(torch.randn(6, 5))
    assert images.shape == (6, 3, size, size) and float(images.detach().abs().max()) <= 1
    scores = critic(images)
    assert scores.shape == (6, 1)
    # The critic's rows do not depend on one another, in training mode either.
    assert critic.training
    torch.testing.assert_close(critic(images[:2]), scores[:2])
    # Every pixel changes the score: no border is left out.
    x = torch.rand_like(images).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x)
    assert bool((slope != 0).all())


def test_convolutions_train_as_a_pair_and_become_a_prior() -> None:
    generator, critic = toys.conv_generator(4, size=8, width=4), toys.conv_critic(size=8, width=4)
    before = [p.clone() for p in (*generator.parameters(), *critic.parameters())]
    prior = dist.Normal(torch.zeros(4), torch.ones(4)).to_event(1)
    fit_gan(
        generator,
        critic,
        prior=prior,
        data=toys.digits().images,
        objective=Bernoulli(),
        penalty=GradientPenalty(),
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-2),
        critic_optimizer=torch.optim.Adam(critic.parameters(), lr=1e-2),
        num_steps=2,
        batch_size=16,
        progress=False,
    )
    after = (*generator.parameters(), *critic.parameters())
    assert all(bool((a != b).any()) for a, b in zip(after, before, strict=True))
    gan = LatentPosterior(generator, LogRatio(critic, Bernoulli()), prior)
    assert gan.decode(prior.sample((3,))).shape == (3, 1, 8, 8)


def test_digits_are_scaled_and_labelled() -> None:
    images, labels = toys.digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32
    assert float(images.min()) == -1 and float(images.max()) == 1
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError) as error:
        toys.digits()
    assert error.value.__notes__ == ["pip install pyro-gan[demo]"]


def test_mlp_has_activations_between_layers_only() -> None:
    network = toys.MLP([3, 5, 4, 1], torch.nn.ReLU)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert network(torch.randn(7, 3)).shape == (7, 1)


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: toys.affine_gaussian(torch.zeros(2, 2)), "invertible"),
        (lambda: toys.affine_gaussian(torch.eye(2), torch.zeros(3)), r"bias of shape \(2,\); got \(3,\)"),
        (lambda: toys.affine_gaussian(torch.ones(2, 3)), r"matrix of shape \(2, 2\); got \(2, 3\)"),
        (lambda: toys.affine_gaussian(torch.eye(2), covariance=-torch.eye(2)), "positive definite"),
        (lambda: toys.affine_gaussian(torch.eye(2), temperature=0.0), "positive, finite temperature; got 0.0"),
        (lambda: toys.affine_gaussian(0.5 * torch.eye(2), temperature=0.5), "posterior's precision"),
        (lambda: toys.gaussian_shift(1.0), r"auc in \[0.5, 1\)"),
        (lambda: toys.gaussian_shift(0.4), r"auc in \[0.5, 1\)"),
        (lambda: toys.GridMixture(torch.zeros(2), torch.ones(2, 2), scale=1.0), "sum 1"),
        (lambda: toys.MLP([3]), "output size"),
        (lambda: toys.missing_mode(1.0), r"share in \[0, 1\)"),
        (lambda: toys.ring(0), "num_modes of at least 1; got 0"),
        (lambda: toys.ring(sd=0.0), "positive, finite sd; got 0.0"),
        (lambda: toys.conv_generator(4, size=30), "multiple of 4; got 30"),
        (lambda: toys.conv_generator(0, size=8), "latent_dim of at least 1"),
        (lambda: toys.conv_critic(size=8, width=0), "width of at least 1"),
        (lambda: toys.roll_distance(torch.zeros(2)), r"samples of shape \(row, 2\)"),
        (lambda: toys.roll_distance(torch.full((3, 2), torch.nan)), "3 of 3"),
    ],
)
def test_bad_input_gets_a_clear_error(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


HOSTILE = [None, "x", math.nan, -1, 0, [1.0], torch.zeros(3), torch.zeros(2, 2, 2), object()]

# By function: valid arguments, of which each in turn becomes a hostile value. None and 0 are valid for some.
DOORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "affine_gaussian": (
        toys.affine_gaussian,
        {
            "matrix": torch.eye(2),
            "bias": torch.ones(2),
            "mean": torch.ones(2),
            "covariance": torch.eye(2),
            "temperature": 1.0,
        },
    ),
    "gaussian_shift": (toys.gaussian_shift, {"auc": 0.8, "dtype": torch.float32, "device": "cpu"}),
    "grid": (toys.grid, {"seed": 1, "dtype": torch.float32, "device": "cpu"}),
    "gaussians25": (toys.gaussians25, {"dtype": torch.float32, "device": "cpu"}),
    "swiss_roll": (toys.swiss_roll, {"seed": 1, "dtype": torch.float32, "device": "cpu"}),
    "ring": (toys.ring, {"num_modes": 3, "radius": 1.0, "sd": 0.1, "dtype": torch.float32}),
    "missing_mode": (toys.missing_mode, {"share": 0.1, "device": "cpu"}),
    "roll_distance": (toys.roll_distance, {"samples": torch.zeros(3, 2)}),
    "conv_generator": (toys.conv_generator, {"latent_dim": 3, "size": 8, "channels": 1, "width": 4}),
    "conv_critic": (toys.conv_critic, {"size": 8, "channels": 1, "width": 4}),
    "MLP": (toys.MLP, {"sizes": [3, 4, 1], "activation": torch.nn.ReLU}),
    "GridMixture": (
        toys.GridMixture,
        {
            "axis": torch.arange(2.0),
            "weights": torch.full((2, 2), 0.25),
            "scale": 0.1,
            "broad_weight": 0.1,
            "broad_scale": 1.0,
        },
    ),
    "RealNVP": (
        toys.RealNVP,
        {
            "num_features": 2,
            "num_couplings": 2,
            "hidden": [4],
            "activation": torch.nn.Tanh,
            "output": toys.squashing(0.0, 1.0),
        },
    ),
    "squashing": (toys.squashing, {"low": 0.0, "high": 1.0, "margin": 0.1}),
    "bits_per_dim": (toys.bits_per_dim, {"log_prob": torch.zeros(3), "num_features": 4, "bin_width": 1.0}),
}


@pytest.mark.parametrize("name", DOORS)
def test_hostile_arguments_raise_value_errors(name: str) -> None:
    build, valid = DOORS[name]
    if name == "RealNVP":
        pytest.importorskip("zuko", reason="flows are an extra, pyro-gan[flows]")
    build(**valid)
    for argument in valid:
        refused = 0
        for value in HOSTILE:
            try:
                build(**(valid | {argument: value}))
            except ValueError as error:
                refused += 1
                assert str(error)
        assert refused >= len(HOSTILE) // 2, f"{argument} took more than half of the hostile values"
