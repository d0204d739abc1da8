"""Annealed importance sampling: unbiased up and down, with a target for each row, and without extra gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pyro_gan import LatentPosterior, toys
from pyro_gan.annealing import AIS, SMC, Schedule, anneal, geometric, linear, log_normaliser, sigmoid, tune
from pyro_gan.annealing.mover import Moved, Mover
from pyro_gan.annealing.path import Path
from pyro_gan.mcmc import ISIR, MALA, PCN, BatchKernel, IndependenceMH, Info, State, SteppedKernel, metropolis
from pyro_gan.targets import Target, TemperedTarget, make_target
from tests.annealing.models import GaussianRows, affine, model_of, stays
from tests.exact_targets import affine_toy, correlated_gaussian, uniform_latents
from tests.mcmc.members import EXACT
from tests.statistics import assert_close_in_se

# Kernels that leave the target at any power of the weight invariant; ULA does not.
KERNELS: dict[str, Callable[[Target], BatchKernel]] = EXACT | {"stays": stays}
LADDERS = {"one rung": linear(1), "linear": linear(5), "sigmoid": sigmoid(8), "geometric": geometric(6, first=0.01)}


#: Particles of a run; each is an estimate itself.
NUM_PARTICLES = 10_000


def target_of(model: Any) -> Target:
    return make_target(model)


def assert_unbiased(log_weights: torch.Tensor, log_z: float, what: str) -> None:
    weights = (log_weights.double() - log_z).exp()
    assert_close_in_se(weights.mean(), 1.0, weights.std() / math.sqrt(len(weights)), what, max_relative_se=0.1)


@pytest.mark.parametrize(
    ("kernel", "ladder"), [*((kernel, "linear") for kernel in KERNELS), *(("MALA", ladder) for ladder in LADDERS)]
)
def test_the_mean_weight_is_unbiased(kernel: str, ladder: str) -> None:
    result = AIS(affine(), LADDERS[ladder], num_particles=NUM_PARTICLES, kernel=KERNELS[kernel])()
    assert_unbiased(result.log_weights, 0.0, f"{kernel}, {ladder}")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_way_back_is_unbiased_for_the_inverse(kernel: str) -> None:
    # A mild target: the weights of the way down have a finite variance even if nothing moves.
    toy = toys.affine_gaussian(1.25 * torch.eye(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64))
    target = target_of(LatentPosterior(toy.generator, toy.log_ratio, toy.prior, chunk_size=10_000))
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
    """Negative control: particles that start at the power of the second rung without its weight."""
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
    # Narrow posteriors need short steps.
    last = schedule.step_sizes[-2].tolist()
    assert last[0] < last[1] / 5 and last[1] < last[2]
    run = anneal(target, draw(), schedule, num_groups=len(y))
    estimate = log_normaliser(run.log_weights.reshape(len(y), num_particles))
    assert_close_in_se(
        estimate.value - estimate.bias, target.log_z, estimate.standard_error, "rows", max_relative_se=0.1
    )
    with pytest.raises(ValueError, match="num_groups=3 groups of one size; got 8000 rows"):
        anneal(target, draw(), schedule, num_groups=3)


# What is computed


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_known_of_the_particles_is_true(kernel: str) -> None:
    target = target_of(affine(3))
    path = Path(target)
    mover = Mover(KERNELS[kernel], path, target.sample_prior(50))
    for beta in (0.2, 0.7, 1.0):
        path.beta = beta
        mover.move(3, None)
        z, parts = mover.state.z.clone(), mover.state.parts
        assert parts is not None
        torch.testing.assert_close(mover.log_weights, target.log_weight(z))
        torch.testing.assert_close(parts.log_prior, target.log_prior(z))
        again, rung = path.at_power(z, parts), TemperedTarget(target, beta)
        torch.testing.assert_close(again.potential, rung.potential(z))
        if again.grad is not None:
            torch.testing.assert_close(again.grad, rung.potential_and_grad(z)[1])


def test_a_kernel_that_drops_the_parts_of_a_state_costs_evaluations_and_no_error() -> None:
    class Walk(SteppedKernel):
        optimal_accept_prob = 0.3

        def transition(self, state: State) -> tuple[State, Info]:
            z = state.z + self.step_size.sqrt() * torch.randn_like(state.z)
            proposal = State(z, self.target.potential(z))
            return metropolis(State(state.z, state.potential), proposal, state.potential - proposal.potential)

    result = AIS(affine(), linear(5), num_particles=NUM_PARTICLES, kernel=Walk)()
    assert_unbiased(result.log_weights, 0.0, "a kernel without parts")


@pytest.mark.parametrize(
    ("kernel", "forwards", "gradients"), [("MALA", 1, 1 + 9 * 2), ("BatchHMC", 1, 1 + 9 * 2 * 5), ("PCN", 19, 0)]
)
def test_a_rung_costs_its_moves_and_nothing_else(kernel: str, forwards: int, gradients: int) -> None:
    target = target_of(affine())
    schedule = Schedule(linear(10), None, 2)
    run = anneal(target, target.sample_prior(30), schedule, kernel=KERNELS[kernel])
    assert (run.num_forwards, run.num_gradients) == (30 * forwards, 30 * gradients)
    report = AIS(affine(), linear(10), num_particles=30, num_moves=2, kernel=KERNELS[kernel])().report
    assert (report.num_forwards, report.num_gradients) == (2 * 30 * forwards, 2 * 30 * gradients)


def test_the_run_proper_does_not_adapt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor | None] = []
    move = Mover.move

    def recorded(self: Mover, num_moves: int, step_size: torch.Tensor | None) -> Moved:
        asked.append(step_size)
        return move(self, num_moves, step_size)

    monkeypatch.setattr(Mover, "move", recorded)
    result = AIS(affine(), linear(10), num_particles=50)()
    pilot, proper = asked[:9], asked[9:]
    assert all(size is None for size in pilot) and len(proper) == 9
    steps = result.report.schedule.step_sizes
    assert steps is not None
    for rung, size in enumerate(proper, start=1):
        assert size is not None and torch.equal(size, steps[rung])
    # The pilot has brought the acceptance near MALA's target.
    assert 0.4 < result.report.acceptance[-1] < 0.75


def test_particles_never_meet_in_a_run_by_a_schedule() -> None:
    """If step sizes were learnt from the particles of the run, each particle would depend on the others."""
    target = target_of(affine())
    schedule = tune(target, target.sample_prior(100), linear(8))
    z = target.sample_prior(40)
    torch.manual_seed(1)
    alone = anneal(target, z, schedule).log_weights
    torch.manual_seed(1)
    moved = z.clone()
    moved[20:] += 3
    torch.testing.assert_close(anneal(target, moved, schedule).log_weights[:20], alone[:20])


# Scores that are not finite


def test_nan_is_a_weight_of_zero() -> None:
    toy = affine_toy(1)

    def log_ratio(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0, toy.log_ratio(x), torch.nan)

    result = AIS(
        LatentPosterior(toy.generator, log_ratio, toy.prior, chunk_size=10_000), linear(8), num_particles=NUM_PARTICLES
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
        # Seven of eight prior draws have weight zero, and no step size changes that.
        return torch.where(x[:, 0] > 1.5, toy.log_ratio(x), -torch.inf)

    whole, part = (
        AIS(LatentPosterior(toy.generator, score, toy.prior), linear(40), num_particles=1000, kernel=kernel)()
        for score in (toy.log_ratio, log_ratio)
    )
    assert int(part.report.log_normaliser.num_zero) > 700
    assert all(acceptance > 0 for acceptance in part.report.acceptance)
    if whole.report.schedule.step_sizes is not None and part.report.schedule.step_sizes is not None:
        # Half of the steps lead out of the support. The step size may be shorter, but not by orders of magnitude.
        assert part.report.schedule.step_sizes[-1] > 0.01
    # A proposal from one weight of zero to another one is no fault of the scores.
    assert part.report.num_invalid == 0


def test_bounded_latents() -> None:
    gan = uniform_latents()
    result = AIS(LatentPosterior(gan.generator, gan.log_ratio, gan.prior), linear(5), num_particles=NUM_PARTICLES)()
    assert (result.samples["z"].abs() <= 1).all()
    assert_unbiased(result.log_weights, gan.law.log_normaliser, "bounded latents")


# Bad input


@pytest.mark.parametrize("value", [None, "x", math.nan, 1.5, [2], -1, torch.zeros(2, 2), object()])
def test_hostile_input_raises(value: Any) -> None:
    target = target_of(affine())
    z, schedule = target.sample_prior(4), Schedule(linear(3), None, 1)
    for make in (
        lambda: AIS(value, linear(3))(),
        lambda: AIS(affine(), linear(3), num_particles=value),
        lambda: AIS(affine(), linear(3), num_moves=value),
        lambda: AIS(affine(), linear(3), kernel=value),
        lambda: AIS(affine(), value),
        lambda: AIS(affine(), linear(3)).reverse(value, schedule),
        lambda: AIS(affine(), linear(3)).reverse({"z": z}, value),
        lambda: anneal(value, z, schedule),
        lambda: anneal(target, value, schedule),
        lambda: anneal(target, z, value),
        lambda: anneal(target, z, schedule, kernel=value),
        lambda: anneal(target, z, schedule, num_groups=value),
        lambda: tune(target, z, value),
        lambda: SMC(value)(),
        lambda: SMC(affine(), value),
        lambda: SMC(affine(), ess_threshold=value),
        lambda: linear(value),
        lambda: geometric(3, first=value),
    ):
        with pytest.raises(ValueError, match="Expected .*; got"):
            make()


def test_bad_input_raises() -> None:
    with pytest.raises(ValueError, match="num_particles of at least 2; got 1"):
        AIS(affine(), linear(3), num_particles=1)
    with pytest.raises(ValueError, match="a ladder, such as .*or the schedule.* got neither"):
        AIS(affine())
    with pytest.raises(ValueError, match="a ladder, such as .*or the schedule.* got both"):
        AIS(affine(), linear(2), schedule=Schedule(linear(2), None, 1))
    with pytest.raises(ValueError, match="num_moves of at least 1; got 0"):
        AIS(affine(), linear(3), num_moves=0)
    with pytest.raises(ValueError, match=r"step_sizes of shape \(4, group\); got \(2, 1\).*one row for each power"):
        AIS(affine(), schedule=Schedule(linear(3), torch.ones(2, 1), 1))
    with pytest.raises(ValueError, match=r"ladder of powers; got 100\. linear\(100\)"):
        AIS(affine(), 100)
    with pytest.raises(ValueError, match=r"what kernel\(target\) returns of type BatchKernel; got 3\. Pass MALA"):
        AIS(affine(), linear(3), kernel=lambda target: 3)()
    with pytest.raises(ValueError, match=r"lambda target: MALA\(target, \.\.\.\), not MALA\(model\)"):
        AIS(affine(), linear(3), kernel=MALA(affine()))
    from_data = functools.partial(IndependenceMH, initial_log_ratio=torch.zeros(3))
    with pytest.raises(ValueError, match="without initial_log_ratio"):
        AIS(affine(), linear(3), kernel=from_data)()
    with_steps = Schedule(linear(3), torch.ones(4, 1), 1)
    with pytest.raises(ValueError, match="schedule without step sizes, because IndependenceMH has none"):
        AIS(affine(), schedule=with_steps, kernel=IndependenceMH)()
    with pytest.raises(ValueError, match=r"step sizes at a power of shape \(2,\); got \(1,\).*pass the num_groups"):
        anneal(target_of(affine()), torch.zeros(4, 2).double(), with_steps, num_groups=2)
    with pytest.raises(ValueError, match=r"z of shape \(particle, 2\); got \(4, 3\)"):
        anneal(target_of(affine()), torch.zeros(4, 3), Schedule(linear(3), None, 1))
    with pytest.raises(ValueError, match=r"samples for the sites \['z'\]; got \['w'\]"):
        AIS(affine(), linear(3)).reverse({"w": torch.zeros(4, 2)}, Schedule(linear(3), None, 1))
    bare = make_target(None, lambda p: p["z"].square().sum(-1), prototype={"z": torch.zeros(2)})
    with pytest.raises(ValueError, match="does not say which part of it is the prior: pass a model"):
        anneal(bare, torch.zeros(3, 2), Schedule(linear(3), None, 1))
