"""Annealed importance sampling: unbiased both ways, each row its own target, and not a gradient too many."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pyro_gan import LatentPosterior, toys
from pyro_gan.annealing import AIS, Schedule, anneal, geometric, linear, log_normaliser, sigmoid, tune
from pyro_gan.annealing.mover import Mover
from pyro_gan.annealing.path import Path
from pyro_gan.mcmc import ISIR, MALA, PCN, BatchHMC, BatchKernel, IndependenceMH, RandomWalk
from pyro_gan.targets import Target, make_target
from tests.annealing.models import GaussianRows, affine, model_of, stays
from tests.exact_targets import affine_toy, correlated_gaussian, uniform_latents
from tests.statistics import assert_close_in_se

KERNELS: dict[str, Callable[[Target], BatchKernel]] = {
    "MALA": MALA,
    "BatchHMC": lambda target: BatchHMC(target, num_steps=3),
    "PCN": PCN,
    "RandomWalk": RandomWalk,
    "IndependenceMH": IndependenceMH,
    "stays": stays,
}
LADDERS = {
    "one rung": linear(1),
    "linear": linear(5),
    "sigmoid": sigmoid(8),
    "geometric": geometric(6, first=0.01),
}


#: Of a run; each is an estimate of its own.
NUM_PARTICLES = 10_000


def target_of(model: Any) -> Target:
    return make_target(model, None, prototype=None, batched=True, context={})


def assert_unbiased(log_weights: torch.Tensor, log_z: float, what: str) -> None:
    weights = (log_weights.double() - log_z).exp()
    assert_close_in_se(
        weights.mean(), 1.0, weights.std() / math.sqrt(len(weights)), what, max_relative_se=0.1
    )


@pytest.mark.parametrize(
    ("kernel", "ladder"),
    [*((kernel, "linear") for kernel in KERNELS), *(("MALA", ladder) for ladder in LADDERS)],
)
def test_the_mean_weight_is_unbiased(kernel: str, ladder: str) -> None:
    result = AIS(affine(), LADDERS[ladder], num_particles=NUM_PARTICLES, kernel=KERNELS[kernel])()
    assert_unbiased(result.log_weights, 0.0, f"{kernel}, {ladder}")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_way_back_is_unbiased_for_the_inverse(kernel: str) -> None:
    # So mild that the weights of the way back have a variance even where nothing moves.
    toy = toys.affine_gaussian(
        1.25 * torch.eye(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    )
    target = target_of(LatentPosterior(toy.generator, toy.log_ratio, toy.prior))
    schedule = tune(target, target.sample_prior(500), linear(4), kernel=KERNELS[kernel])
    z = toy.posterior.sample((NUM_PARTICLES,))
    back = anneal(target, z, schedule.reversed(), kernel=KERNELS[kernel])
    assert_unbiased(back.log_weights, 0.0, kernel)


def test_a_constant_is_found_and_the_sandwich_closes() -> None:
    toy, offset = affine_toy(2), 3.0
    model = LatentPosterior(toy.generator, lambda x: toy.log_ratio(x) + offset, toy.prior)
    width = []
    for ladder in (linear(3), linear(30)):
        ais = AIS(model, ladder, num_particles=200)
        lower = ais().report.log_normaliser
        schedule = ais().report.schedule
        upper = ais.reverse({"z": toy.posterior.sample((200,))}, schedule)
        for bound in (lower, upper):
            assert_close_in_se(bound.value - bound.bias, offset, bound.standard_error, "sandwich")
        assert float(lower.bias) < 0 < float(upper.bias)
        width.append(float(lower.standard_error + upper.standard_error))
    assert width[1] < width[0]


def test_forgotten_rungs_are_found() -> None:
    """Negative control: particles that start on the second rung's power without having paid for it."""
    target = target_of(affine())
    z = target.sample_prior(NUM_PARTICLES)
    schedule = tune(target, z[:1000], linear(5))
    assert schedule.step_sizes is not None
    forgetful = Schedule(schedule.betas[2:], schedule.step_sizes[2:], 1)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_unbiased(anneal(target, z, forgetful).log_weights, 0.0, "forgetful")


def test_weighted_particles_have_the_targets_moments() -> None:
    law = correlated_gaussian(2)
    result = AIS(model_of(law), linear(30), num_particles=NUM_PARTICLES)()
    share = result.log_weights.double().softmax(0)[:, None]
    z = result.samples["z"].double()
    for power, expected in ((1, law.mean), (2, law.mean.square() + law.sd.square())):
        mean = (share * z**power).sum(0)
        se = (share * (z**power - mean)).square().sum(0).sqrt()
        assert_close_in_se(mean, expected, se, f"moment {power}", max_relative_se=0.2)


def test_one_rung_is_importance_sampling_bit_for_bit() -> None:
    target = target_of(affine())
    z = target.sample_prior(100)
    run = anneal(target, z, Schedule(linear(1), None, 1))
    assert torch.equal(run.log_weights, target.log_weight(z)) and torch.equal(run.z, z)
    assert (run.num_forwards, run.num_gradients) == (100, 0)


# Rows with targets of their own


def test_rows_may_have_targets_of_their_own() -> None:
    num_particles = 2000
    y = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    sd = torch.tensor([0.05, 0.3, 1.0, 2.0], dtype=torch.float64)
    target = GaussianRows(y, sd, num_particles)

    def draw() -> torch.Tensor:
        return target.sample_prior(len(y) * num_particles)

    schedule = tune(target, draw(), geometric(40), num_groups=len(y))
    assert schedule.step_sizes is not None and schedule.step_sizes.shape == (41, 4)
    # Narrow posteriors are walked in short steps.
    last = schedule.step_sizes[-2].tolist()
    assert last[0] < last[1] / 5 and last[1] < last[2]
    run = anneal(target, draw(), schedule, num_groups=len(y))
    estimate = log_normaliser(run.log_weights.reshape(len(y), num_particles))
    assert_close_in_se(
        estimate.value - estimate.bias, target.log_z, estimate.standard_error, "rows", max_relative_se=0.1
    )
    with pytest.raises(ValueError, match="num_groups=3 groups of one size; got 8000 rows"):
        anneal(target, draw(), schedule, num_groups=3)


# What is paid


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_known_of_the_particles_is_true(kernel: str) -> None:
    target = target_of(affine(3))
    path = Path(target)
    mover = Mover(KERNELS[kernel], path)
    path.place(target.sample_prior(50))
    for beta in (0.2, 0.7, 1.0):
        path.beta = beta
        mover.move(3, None)
        z = path.z.clone()
        torch.testing.assert_close(path.log_weights, target.log_weight(z))
        torch.testing.assert_close(path.potential(path.z), target.tempered(beta).potential(z))
        potential, grad = path.potential_and_grad(path.z)
        for ours, theirs in zip((potential, grad), target.tempered(beta).potential_and_grad(z), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("kernel", "forwards", "gradients"),
    [("MALA", 1, 1 + 9 * 2), ("BatchHMC", 1, 1 + 9 * 2 * 3), ("PCN", 19, 0)],
)
def test_a_rung_costs_its_moves_and_nothing_else(kernel: str, forwards: int, gradients: int) -> None:
    target = target_of(affine())
    schedule = Schedule(linear(10), None, 2)
    run = anneal(target, target.sample_prior(30), schedule, kernel=KERNELS[kernel])
    assert (run.num_forwards, run.num_gradients) == (30 * forwards, 30 * gradients)
    report = AIS(affine(), linear(10), num_particles=30, num_moves=2, kernel=KERNELS[kernel])().report
    assert (report.num_forwards, report.num_gradients) == (2 * 30 * forwards, 2 * 30 * gradients)


def test_the_run_proper_does_not_adapt() -> None:
    result = AIS(affine(), linear(10), num_particles=50)()
    again = AIS(affine(), schedule=result.report.schedule, num_particles=50)()
    steps, used = result.report.schedule.step_sizes, again.report.schedule.step_sizes
    assert steps is not None and used is not None and torch.equal(steps, used)
    # The pilot brought acceptance near to what MALA wants.
    assert 0.4 < result.report.acceptance[-1] < 0.75


# Scores that are not finite


def test_nan_is_a_weight_of_zero() -> None:
    toy = affine_toy(1)

    def log_ratio(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0, toy.log_ratio(x), torch.nan)

    result = AIS(
        LatentPosterior(toy.generator, log_ratio, toy.prior), linear(8), num_particles=NUM_PARTICLES
    )()
    assert not result.log_weights.isnan().any() and result.report.num_invalid > 0
    assert 0 < int(result.report.log_normaliser.num_zero) < NUM_PARTICLES
    z = toy.posterior.sample((1_000_000,))
    log_z = float((toy.generator(z)[:, 0] > 0).double().mean().log())
    assert_unbiased(result.log_weights, log_z, "half the data")


@pytest.mark.parametrize("kernel", [MALA, PCN, lambda target: ISIR(target, num_particles=2)])
def test_particles_without_a_weight_do_not_tune_the_kernel(kernel: Callable[[Target], BatchKernel]) -> None:
    toy = affine_toy(2)

    def log_ratio(x: torch.Tensor) -> torch.Tensor:
        # Seven prior draws in eight have no weight, and no step is short enough to change that.
        return torch.where(x[:, 0] > 1.5, toy.log_ratio(x), -torch.inf)

    whole, part = (
        AIS(LatentPosterior(toy.generator, score, toy.prior), linear(40), num_particles=1000, kernel=kernel)()
        for score in (toy.log_ratio, log_ratio)
    )
    assert int(part.report.log_normaliser.num_zero) > 700
    assert all(acceptance > 0 for acceptance in part.report.acceptance)
    if whole.report.schedule.step_sizes is not None and part.report.schedule.step_sizes is not None:
        # Half of the steps lead out of the support. They may be shorter for it, but not by orders of magnitude.
        assert part.report.schedule.step_sizes[-1] > 0.01
    # That a weight of zero is left for no other is no fault of the scores.
    assert part.report.num_invalid == 0


def test_bounded_latents() -> None:
    gan = uniform_latents()
    result = AIS(
        LatentPosterior(gan.generator, gan.log_ratio, gan.prior), linear(5), num_particles=NUM_PARTICLES
    )()
    assert (result.samples["z"].abs() <= 1).all()
    assert_unbiased(result.log_weights, gan.law.log_normaliser, "bounded latents")


# Bad input


def test_bad_input_raises() -> None:
    with pytest.raises(ValueError, match="num_particles of at least 2; got 1"):
        AIS(affine(), linear(3), num_particles=1)
    with pytest.raises(ValueError, match="one of them"):
        AIS(affine())
    with pytest.raises(ValueError, match="one of them"):
        AIS(affine(), linear(2), schedule=Schedule(linear(2), None, 1))
    with pytest.raises(ValueError, match="num_moves of at least 1; got 0"):
        AIS(affine(), linear(3), num_moves=0)
    with pytest.raises(ValueError, match="step size for each of 4 powers; got 2"):
        AIS(affine(), schedule=Schedule(linear(3), torch.ones(2, 1), 1))
    with pytest.raises(ValueError, match=r"ladder of powers; got 100\. linear\(100\)"):
        AIS(affine(), 100)
    with pytest.raises(ValueError, match="kernel to make a BatchKernel .* got int"):
        AIS(affine(), linear(3), kernel=lambda target: 3)()
    with pytest.raises(ValueError, match=r"lambda target: MALA\(target, \.\.\.\), not MALA\(model\)"):
        AIS(affine(), linear(3), kernel=MALA(affine()))
    from_data = functools.partial(IndependenceMH, initial_log_ratio=torch.zeros(3))
    with pytest.raises(ValueError, match="without initial_log_ratio"):
        AIS(affine(), linear(3), kernel=from_data)()
    with_steps = Schedule(linear(3), torch.ones(4, 1), 1)
    with pytest.raises(ValueError, match="schedule without step sizes, for IndependenceMH has none"):
        AIS(affine(), schedule=with_steps, kernel=IndependenceMH)()
    with pytest.raises(ValueError, match=r"each of 2 groups .* got \(1,\)"):
        anneal(target_of(affine()), torch.zeros(4, 2).double(), with_steps, num_groups=2)
    with pytest.raises(ValueError, match=r"particles of shape \(particle, 2\), torch.float64; got \(4, 3\)"):
        anneal(target_of(affine()), torch.zeros(4, 3), Schedule(linear(3), None, 1))
    with pytest.raises(ValueError, match=r"draws of the sites \['z'\]; got \['w'\]"):
        AIS(affine(), linear(3)).reverse({"w": torch.zeros(4, 2)}, Schedule(linear(3), None, 1))
    bare = make_target(
        None, lambda p: p["z"].square().sum(-1), prototype={"z": torch.zeros(2)}, batched=True, context={}
    )
    with pytest.raises(ValueError, match="does not say what is prior .* Pass a model"):
        anneal(bare, torch.zeros(3, 2), Schedule(linear(3), None, 1))
