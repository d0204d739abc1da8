"""ChEES and jittered trajectories: what warmup learns, that it stops, and that chains are exact afterwards."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import BatchHMC, BatchKernel, ChEES, IndependenceMH, Info, LocalGlobal, State, SteppedKernel
from pyro_gan.mcmc._halton import halton
from pyro_gan.mcmc.hmc import accept_trajectory, leapfrog
from pyro_gan.mcmc.scale import RunningScale
from pyro_gan.mcmc.trajectory import TrajectoryLength, chees_gradient
from tests.exact_targets import TARGETS, correlated_gaussian
from tests.statistics import assert_chain_mean, assert_chain_sd, assert_different, assert_same_distribution

pytestmark = pytest.mark.filterwarnings("ignore:.*accepted nothing", "ignore:.*after warmup diverged")


class Gaussian:
    """The potential of a normal distribution, which counts its evaluations."""

    def __init__(self, precision: Tensor) -> None:
        self.precision = precision.double()
        self.calls = 0

    def __call__(self, params: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return 0.5 * ((params["z"] @ self.precision) * params["z"]).sum(-1)

    @property
    def covariance(self) -> Tensor:
        return torch.linalg.inv(self.precision)

    @property
    def sd(self) -> Tensor:
        return self.covariance.diag().sqrt()

    def sample(self, num_draws: int) -> Tensor:
        return (
            torch.randn(num_draws, len(self.precision), dtype=torch.float64) @ torch.linalg.cholesky(self.covariance).T
        )


def scaled(dim: int, condition: float) -> Gaussian:
    """Independent coordinates with standard deviations from 1 to 1 / sqrt(condition)."""
    return Gaussian(torch.logspace(0, math.log10(condition), dim).diag())


def rotated(dim: int, condition: float) -> Gaussian:
    """The same distribution, rotated: no diagonal mass helps."""
    turn, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    return Gaussian(turn * torch.logspace(0, math.log10(condition), dim, dtype=torch.float64) @ turn.T)


def run(kernel: BatchKernel, start: Tensor, *, draws: int = 150, warmup: int = 150, **options: Any) -> VectorizedMCMC:
    mcmc = VectorizedMCMC(
        kernel, draws, warmup, num_chains=len(start), initial_params={"z": start}, disable_progbar=True, **options
    )
    mcmc.run()
    return mcmc


def ess_per_gradient(make: Callable[..., BatchKernel], law: Gaussian, *, num_chains: int = 100) -> float:
    """Return effective draws for each gradient after warmup: the least over coordinates and their squares."""
    before: list[int] = []

    def count(kernel: BatchKernel, params: Any, stage: str, step: int) -> None:
        if stage == "Warmup":
            before[:] = [law.calls]

    start = torch.randn(num_chains, len(law.precision), dtype=torch.float64)
    z = run(make(potential_fn=law), start, draws=100, hook_fn=count).get_samples(group_by_chain=True)["z"]
    ess = min(float(effective_sample_size(x).min()) for x in (z, z.square()))
    return ess / num_chains / (law.calls - before[0])


# The jitter sequence.


def test_the_halton_sequence_covers_the_interval() -> None:
    shares = torch.tensor([halton(index) for index in range(1, 256)], dtype=torch.float64)
    torch.testing.assert_close(shares.sort().values, torch.arange(1, 256) / 256.0, check_dtype=False)


# Exactness.


class LengthOfTheState(SteppedKernel):
    """HMC whose trajectories have a length that depends on their start."""

    uses_gradient = True
    optimal_accept_prob = 0.65

    def transition(self, state: State) -> tuple[State, Info]:
        momentum = torch.randn_like(state.z)
        size = self.step_size * (1 + 0.9 * torch.tanh(state.z[:, :1]))
        return accept_trajectory(state, *_swapped(leapfrog(state, self.target, size, 5, momentum), momentum))


def _swapped(ends: tuple[State, Tensor], momentum: Tensor) -> tuple[State, Tensor, Tensor]:
    return ends[0], momentum, ends[1]


def learnt(kernel: BatchKernel, draws: Tensor) -> BatchKernel:
    """Return a kernel after 20 warmup steps, with a chain for each draw."""
    kernel.bind(len(draws))
    kernel.initial_params = {"z": draws}
    kernel.setup(20)
    params = kernel.initial_params
    for _ in range(20):
        params = kernel.sample(params)
    return kernel


def model_of(name: str) -> LatentPosterior:
    law = TARGETS[name]()
    return LatentPosterior(torch.nn.Identity(), law.log_weight, law.prior, chunk_size=10_000)


@pytest.mark.parametrize("target", TARGETS)
def test_what_warmup_leaves_is_exact(target: str) -> None:
    law = TARGETS[target]()
    kernel = learnt(ChEES(model_of(target)), law.sample(10_000))
    assert (kernel.scale != 1).all()
    steps = []
    # Trajectories of several lengths, each from new exact draws.
    for _ in range(3):
        after = kernel.sample({"z": law.sample(10_000)})["z"]
        steps.append(kernel.num_steps)
        assert_same_distribution(after, law.sample(10_000), f"{target}, {steps[-1]} steps")


@pytest.mark.parametrize("jitter", [0.0, 0.9])
def test_jittered_trajectories_are_exact(jitter: float) -> None:
    law = TARGETS["banana"]()
    kernel = learnt(BatchHMC(model_of("banana"), jitter=jitter, num_steps=4), law.sample(10_000))
    for _ in range(3):
        assert_same_distribution(kernel.sample({"z": law.sample(10_000)})["z"], law.sample(10_000), f"jitter {jitter}")


def test_a_length_that_depends_on_the_state_is_found() -> None:
    law = TARGETS["banana"]()
    kernel = LengthOfTheState(model_of("banana"), step_size=0.3)
    kernel.bind(50_000)
    kernel.initial_params = {"z": law.sample(50_000)}
    kernel.setup(0)
    assert_different(kernel.sample(kernel.initial_params)["z"], law.sample(50_000), "length of the state")


@pytest.mark.parametrize("law", [scaled(5, 1e6), rotated(5, 100.0)], ids=["scaled", "rotated"])
def test_moments_of_ill_scaled_gaussians(law: Gaussian) -> None:
    mcmc = run(ChEES(potential_fn=law), torch.randn(1000, 5, dtype=torch.float64), draws=100, warmup=200)
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert_chain_mean(z, 0.0)
    assert_chain_sd(z, law.sd, 0.0, max_relative_se=0.006)


# What is learnt.


@pytest.mark.parametrize("start", ["prior", "one point", "far away"])
def test_scales_are_found(start: str) -> None:
    law = scaled(6, 1e3)
    points = torch.zeros(200, 6, dtype=torch.float64)
    points = {"prior": torch.randn_like(points), "one point": points, "far away": points + 30.0}[start]
    kernel = ChEES(potential_fn=law)
    run(kernel, points, warmup=250, draws=5)
    torch.testing.assert_close(kernel.scale / law.sd, torch.ones(6, dtype=torch.float64), atol=0.15, rtol=0)


@pytest.mark.parametrize("first", [0.1, 1.0, 2.0])
def test_the_trajectory_length_does_not_depend_on_where_it_starts(first: float) -> None:
    # Coordinates of one scale have the period 2 pi. The criterion has another maximum near 5, too near a start at 3.
    kernel = ChEES(potential_fn=rotated(30, 1.0), trajectory_length=first)
    run(kernel, torch.randn(200, 30, dtype=torch.float64), warmup=300, draws=5)
    assert 1.4 < float(kernel.trajectory_length) < 2.6


def test_the_criterion_is_about_the_centre_of_the_target() -> None:
    # About the origin half a turn, pi, would be best: it changes the distance from there most.
    law = Gaussian(torch.eye(30))
    kernel = ChEES(potential_fn=lambda params: law({"z": params["z"] - 100.0}))
    run(kernel, 100 + torch.randn(200, 30, dtype=torch.float64), warmup=300, draws=5)
    assert 1.4 < float(kernel.trajectory_length) < 2.6


def test_chains_that_start_far_away_do_not_spoil_the_trajectory() -> None:
    # The slowest coordinate needs 3.6 in units of the scales; far away the criterion is a million times larger.
    kernel = ChEES(potential_fn=rotated(20, 100.0))
    run(kernel, 30 + torch.randn(100, 20, dtype=torch.float64), warmup=400, draws=5)
    assert 2.3 < float(kernel.trajectory_length) < 5.0


def test_one_chain_learns_from_its_own_past() -> None:
    law = scaled(3, 1e4)
    kernel = ChEES(potential_fn=law)
    run(kernel, torch.randn(1, 3, dtype=torch.float64), warmup=1000, draws=5)
    assert ((kernel.scale / law.sd).log().abs() < math.log(2)).all()
    assert 0.7 < float(kernel.trajectory_length) < 3.5


@pytest.mark.parametrize(("dim", "condition"), [(2, 100.0), (20, 100.0), (60, 10.0), (20, 1.0)])
@pytest.mark.parametrize("shape", [scaled, rotated])
def test_effective_draws_a_gradient_against_ten_fixed_steps(
    shape: Callable[[int, float], Gaussian], dim: int, condition: float
) -> None:
    ours = ess_per_gradient(ChEES, shape(dim, condition))
    theirs = ess_per_gradient(BatchHMC, shape(dim, condition))
    # A diagonal mass does not help a rotated distribution, and ten steps happen to be the best number.
    ten_are_best = shape is rotated and condition == 100
    assert ours > (0.9 if ten_are_best else 1.2) * theirs


def test_the_trajectory_length_is_close_to_the_best() -> None:
    law = rotated(20, 100.0)
    fixed = [
        ess_per_gradient(functools.partial(ChEES, trajectory_length=length, adapt_trajectory_length=False), law)
        for length in (1.0, 2.0, 4.0, 8.0)
    ]
    assert fixed[0] < 0.7 * max(fixed) and fixed[-1] < 0.9 * max(fixed)
    assert ess_per_gradient(ChEES, law) > 0.7 * max(fixed)


def test_jitter_breaks_resonance() -> None:
    law = Gaussian(torch.linspace(1.0, 4.0, 60).diag())
    jittered, fixed = (ess_per_gradient(functools.partial(BatchHMC, jitter=jitter), law) for jitter in (0.5, 0.0))
    assert jittered > 5 * fixed


# Warmup ends.


def settings(kernel: ChEES) -> tuple[float, ...]:
    assert kernel.step_size is not None
    return (float(kernel.step_size), float(kernel.trajectory_length), *kernel.scale.tolist())


def test_nothing_is_learnt_after_warmup() -> None:
    seen: list[tuple[float, ...]] = []
    steps: list[int] = []

    def note(kernel: Any, params: Any, stage: str, step: int) -> None:
        seen.append(settings(kernel))
        steps.append(kernel.num_steps)

    run(
        ChEES(potential_fn=rotated(4, 10.0)), torch.randn(50, 4, dtype=torch.float64), warmup=30, draws=20, hook_fn=note
    )
    assert all(len(set(column[:29])) == 29 for column in zip(*seen, strict=True))
    assert len(set(seen[29:])) == 1
    longest = seen[-1][1] / seen[-1][0]
    assert steps[30:] == [math.ceil(halton(31 + index) * longest) for index in range(20)]


def test_nothing_is_learnt_after_warmup_inside_another_kernel() -> None:
    model = model_of("gaussian 2")
    inner = ChEES(model)
    seen: list[tuple[float, ...]] = []
    mcmc = VectorizedMCMC(
        LocalGlobal(inner, IndependenceMH(model), num_local=2), 10, 20, num_chains=50, disable_progbar=True,
        hook_fn=lambda *_: seen.append(settings(inner)),
    )  # fmt: skip
    mcmc.run()
    assert len(set(seen[:20])) == 20 and len(set(seen[20:])) == 1


def test_without_warmup_or_adaptation_the_settings_stay() -> None:
    start = torch.randn(20, 3, dtype=torch.float64)
    fixed = {"adapt_step_size": False, "adapt_trajectory_length": False, "adapt_mass_matrix": False}
    for warmup, options in ((0, {}), (20, fixed)):
        kernel = ChEES(potential_fn=scaled(3, 4.0), step_size=0.25, trajectory_length=0.75, **options)
        run(kernel, start, warmup=warmup, draws=5)
        assert settings(kernel) == (0.25, 0.75, 1.0, 1.0, 1.0)


def test_a_second_run_begins_anew_and_without_warmup_keeps_what_was_learnt() -> None:
    kernel = ChEES(potential_fn=scaled(3, 4.0))
    start = torch.randn(20, 3, dtype=torch.float64)
    learnt = []
    for _ in range(2):
        pyro.set_rng_seed(0)
        run(kernel, start, warmup=30, draws=2)
        learnt.append(settings(kernel))
    assert learnt[0] == learnt[1] and learnt[0][1:] != (1.0, 1.0, 1.0, 1.0)
    run(kernel, start, warmup=0, draws=2)
    assert settings(kernel) == learnt[0]


@pytest.mark.parametrize("make", [ChEES, BatchHMC])
def test_no_step_after_warmup_waits_for_the_device(make: Callable[..., BatchKernel], monkeypatch) -> None:
    kernel = learnt(make(potential_fn=scaled(3, 4.0)), torch.randn(20, 3, dtype=torch.float64))
    params = kernel.sample(kernel.target.unpack(kernel.state.z))

    def refuse(*_: Any) -> Any:
        raise AssertionError("a number was read from the device")

    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(Tensor, name, refuse)
    for _ in range(5):
        params = kernel.sample(params)


def test_a_trajectory_takes_as_many_gradients_as_it_says() -> None:
    law = scaled(3, 100.0)
    kernel = learnt(ChEES(potential_fn=law), torch.randn(20, 3, dtype=torch.float64))
    fixed = learnt(BatchHMC(potential_fn=law, num_steps=7), torch.randn(20, 3, dtype=torch.float64))
    for one in (kernel, fixed):
        params = one.sample(one.target.unpack(one.state.z))
        for _ in range(5):
            before = law.calls
            params = one.sample(params)
            assert law.calls - before == one.num_steps


# When it goes wrong.


def test_a_limit_that_holds_trajectories_back_is_kept_and_warned_of() -> None:
    steps: list[int] = []
    with pytest.warns(UserWarning, match="max_num_steps=4"):
        run(
            ChEES(potential_fn=rotated(5, 1000.0), max_num_steps=4), torch.randn(50, 5, dtype=torch.float64),
            hook_fn=lambda kernel, *_: steps.append(kernel.num_steps), draws=20,
        )  # fmt: skip
    assert max(steps) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(ChEES(potential_fn=rotated(5, 1.0)), torch.randn(50, 5, dtype=torch.float64), draws=20)


def test_regions_without_a_score_do_not_stop_learning() -> None:
    def half(params: dict[str, Tensor]) -> Tensor:
        z = params["z"]
        return torch.where(z[:, 0] > 1.0, torch.nan, z.square().sum(-1) / 2)

    kernel = ChEES(potential_fn=half)
    start = torch.randn(200, 3, dtype=torch.float64)
    start[:, 0] = -start[:, 0].abs()
    z = run(kernel, start).get_samples()["z"]
    assert torch.isfinite(z).all() and (z[:, 0] <= 1).all()
    assert all(math.isfinite(value) for value in settings(kernel)) and 0.05 < settings(kernel)[0]
    assert 0.5 < float(kernel.trajectory_length) < 5.0


def test_one_stuck_chain_counts_and_the_edge_of_the_support_does_not() -> None:
    kernel = learnt(ChEES(potential_fn=scaled(3, 4.0)), torch.randn(100, 3, dtype=torch.float64))
    accept_prob = torch.ones(100)
    accept_prob[:1] = 0.0
    info = kernel.info._replace(accept_prob=accept_prob)
    kernel._inside = torch.ones(100, dtype=torch.bool)
    assert float(kernel.adaptation_statistic(info)) < 0.1
    kernel._inside = accept_prob > 0
    assert float(kernel.adaptation_statistic(info)) == pytest.approx(0.99)
    kernel._inside = torch.zeros(100, dtype=torch.bool)
    assert float(kernel.adaptation_statistic(info)) == 0.0


def test_no_chain_is_left_where_the_target_is_narrow() -> None:
    # With a plain mean of 0.8 chains in the neck of the funnel never move.
    def funnel(params: dict[str, Tensor]) -> Tensor:
        v, x = params["z"][:, 0], params["z"][:, 1:]
        return v.square() / 2 + (x.square() * torch.exp(-v).unsqueeze(-1)).sum(-1) / 2 + x.shape[1] * v / 2

    mcmc = run(ChEES(potential_fn=funnel), torch.randn(200, 4, dtype=torch.float64), warmup=200)
    assert float(mcmc.sample_stats["accept_prob"].mean(1).min()) > 0.3


def test_a_gradient_without_any_chance_to_move_is_left_out() -> None:
    length = TrajectoryLength(1.5, True)
    length.reset(torch.zeros(2), adapting=True)
    nothing = torch.full((4, 2), torch.nan)
    gradient = chees_gradient(torch.randn(4, 2), nothing, nothing, torch.zeros(4), 0.5)
    length.update(gradient, torch.tensor(0.1), torch.tensor(100.0))
    assert float(length.value) == 1.5


def test_the_gradient_of_the_criterion() -> None:
    # On N(0, I) positions rotate; 1/4 E (|q'|^2 - |q|^2)^2 = d sin(t)^2 / 2 has the slope d t sin(t) cos(t) in log t.
    q, p = torch.randn(2, 400_000, 2, dtype=torch.float64)
    for t in (0.4, 1.2, 2.0):
        end, momentum = q * math.cos(t) + p * math.sin(t), p * math.cos(t) - q * math.sin(t)
        slope = chees_gradient(q, end, momentum, torch.ones(len(q), dtype=torch.float64), t)
        expected = 2 * 2 * t * math.sin(t) * math.cos(t) / 16
        assert float(slope) == pytest.approx(expected, abs=0.01)


def test_a_coordinate_in_which_all_chains_agree_has_scale_one() -> None:
    scale = RunningScale(True)
    scale.reset(torch.zeros(2), adapting=True)
    scale.update(torch.stack([torch.zeros(1000), 0.1 * torch.randn(1000)], dim=1))
    assert float(scale.value[0]) == 1.0 and float(scale.value[1]) < 0.2


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        *((ChEES, "trajectory_length", value) for value in (0.0, -1.0, math.nan, math.inf)),
        (ChEES, "max_num_steps", 0),
        *((BatchHMC, "jitter", value) for value in (-0.1, 1.0, math.nan)),
        (BatchHMC, "num_steps", 0),
    ],
)
def test_bad_numbers_raise(make: Callable[..., BatchKernel], option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        make(potential_fn=correlated_gaussian(2).potential, **{option: value})
