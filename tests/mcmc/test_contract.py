"""The contract of every kernel: shapes, dtypes, runners, pickling, NaN, stored states, adaptation."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import ISIR, MALA, ULA, BatchHMC, BatchKernel, ChEES, IndependenceMH
from tests.mcmc.members import EXACT, KERNELS, STEPPED, described

# In a few steps some chains do not move.
pytestmark = pytest.mark.filterwarnings("ignore:.*accepted nothing", "ignore:.*after warmup diverged")

# Kernels that propose from a distribution, which a bare potential does not have.
PROPOSING = {name: make for name, make in KERNELS.items() if described(make).needs_prior}
# Kernels with an integrator, which can diverge.
WITH_GRADIENT = [make for make in KERNELS.values() if described(make).uses_gradient]


@pytest.fixture(params=KERNELS)
def kernel_class(request: pytest.FixtureRequest) -> Callable[..., BatchKernel]:
    return KERNELS[request.param]


@pytest.fixture(params=STEPPED)
def stepped_class(request: pytest.FixtureRequest) -> Callable[..., BatchKernel]:
    return STEPPED[request.param]


def posterior(dtype: torch.dtype = torch.float32, dim: int = 2) -> LatentPosterior:
    toy = toys.affine_gaussian(1.5 * torch.eye(dim, dtype=dtype), torch.ones(dim, dtype=dtype))
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior)


def bare(kernel_class: Callable[..., BatchKernel], potential_fn: Callable, **kwargs: Any) -> BatchKernel:
    if kernel_class in PROPOSING.values():
        kwargs["proposal"] = dist.Normal(torch.zeros(2), 2.0).to_event(1)
    return kernel_class(potential_fn=potential_fn, **kwargs)


def quiet(kernel: BatchKernel, **kwargs: Any) -> VectorizedMCMC:
    return VectorizedMCMC(kernel, disable_progbar=True, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_chains", [1, 5])
def test_vectorised_shapes_dtypes_and_stats(kernel_class, dtype, num_chains) -> None:
    mcmc = quiet(kernel_class(posterior(dtype)), num_samples=6, warmup_steps=3, num_chains=num_chains)
    mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert z.shape == (num_chains, 6, 2) and z.dtype == dtype
    assert mcmc.get_samples()["z"].shape == (num_chains * 6, 2)
    for name in ("lp", "energy", "accept_prob", "log_ratio", "diverging", "moved"):
        assert mcmc.sample_stats[name].shape == (num_chains, 6)
    assert ("step_size" in mcmc.sample_stats) == (kernel_class in STEPPED.values())
    gan = posterior(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(mcmc.sample_stats["lp"], -gan.potential_fn({"z": z}), **tolerance)
    torch.testing.assert_close(mcmc.sample_stats["log_ratio"], gan.log_weight({"z": z}), **tolerance)


def test_one_chain_under_pyro(kernel_class) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc = MCMC(kernel_class(posterior()), num_samples=8, warmup_steps=4, disable_progbar=True)
        mcmc.run()
    assert mcmc.get_samples()["z"].shape == (8, 2)
    diagnostics = mcmc.diagnostics()
    assert diagnostics["divergences"] == {"chain 0": []}
    assert 0 <= diagnostics["acceptance rate"]["chain 0"] <= 1


def test_sequential_chains_under_pyro_start_apart(kernel_class) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc = MCMC(kernel_class(posterior()), num_samples=5, warmup_steps=0, num_chains=3, disable_progbar=True)
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert z.shape == (3, 5, 2)
    assert len(z[:, 0, 0].unique()) == 3


def check_two_processes(monkeypatch, mp_context: str) -> None:
    """Two chains in processes of their own; a spawned process imports all and gets the kernel as a pickle."""
    # Pyro uses one process if it counts fewer than three cores.
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 3)
    mcmc = MCMC(MALA(posterior()), 5, 3, num_chains=2, mp_context=mp_context, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert z.shape == (2, 5, 2)
    assert not torch.equal(z[0], z[1])


def test_two_processes_under_pyro(monkeypatch) -> None:
    # `make numbers` spawns them too, which takes seconds; that kernels pickle is tested below.
    check_two_processes(monkeypatch, "fork")


def test_a_batched_kernel_under_pyro_runs_and_warns(kernel_class) -> None:
    mcmc = MCMC(kernel_class(posterior(), num_chains=7), num_samples=5, disable_progbar=True)
    with pytest.warns(UserWarning, match="VectorizedMCMC"):
        mcmc.run()
    assert mcmc.get_samples()["z"].shape == (5, 7, 2)


def test_pickles(kernel_class) -> None:
    kernel = kernel_class(posterior())
    mcmc = quiet(pickle.loads(pickle.dumps(kernel)), num_samples=4, num_chains=3)
    mcmc.run()
    again = pickle.loads(pickle.dumps(mcmc))
    torch.testing.assert_close(again.get_samples()["z"], mcmc.get_samples()["z"])


def test_events_of_any_shape(kernel_class) -> None:
    prior = dist.Normal(0.0, 1.0).expand([3, 1, 2]).to_event(3)
    gan = LatentPosterior(torch.nn.Flatten(), lambda x: -x.square().sum(-1), prior)
    mcmc = quiet(kernel_class(gan), num_samples=4, num_chains=5)
    mcmc.run()
    assert mcmc.get_samples(group_by_chain=True)["z"].shape == (5, 4, 3, 1, 2)


def test_bare_potential_batched_and_single(kernel_class) -> None:
    def potential(params: dict[str, Tensor]) -> Tensor:
        return params["a"].square().sum(-1) / 2 + params["b"].square() / 2

    kernel = bare(kernel_class, potential)
    start = {"b": torch.zeros(4), "a": torch.zeros(4, 1)}
    mcmc = quiet(kernel, num_samples=3, num_chains=4, initial_params=start)
    mcmc.run()
    samples = mcmc.get_samples(group_by_chain=True)
    assert samples["a"].shape == (4, 3, 1) and samples["b"].shape == (4, 3)
    single = {"b": torch.zeros(()), "a": torch.zeros(1)}
    one = MCMC(bare(kernel_class, potential), num_samples=3, initial_params=single, disable_progbar=True)
    one.run()
    assert one.get_samples()["a"].shape == (3, 1) and one.get_samples()["b"].shape == (3,)


def test_a_weight_of_zero_is_a_rejection_like_any_other(kernel_class) -> None:
    def half(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, -torch.inf, -x.square().sum(-1))

    gan = LatentPosterior(torch.nn.Identity(), half, dist.Normal(torch.zeros(2), 1.0).to_event(1))
    options = {"step_size": 0.5, "adapt_step_size": False} if kernel_class in STEPPED.values() else {}
    mcmc = quiet(kernel_class(gan, **options), num_samples=30, warmup_steps=0, num_chains=50)
    mcmc.run()
    assert (mcmc.get_samples()["z"][:, 0] <= 0).all()
    if kernel_class not in WITH_GRADIENT:
        assert mcmc.num_invalid == mcmc.num_diverging == 0


class Patchy(torch.nn.Module):
    """A critic that is NaN, plus and minus infinity on parts of the plane."""

    def forward(self, x: Tensor) -> Tensor:
        value = -x.square().sum(-1) / 2
        value = torch.where(x[:, 0] > 1.0, torch.nan, value)
        value = torch.where(x[:, 1] > 1.5, torch.inf, value)
        return torch.where(x[:, 1] < -1.5, -torch.inf, value)


def test_unusable_scores_are_rejected_and_counted(kernel_class) -> None:
    gan = LatentPosterior(torch.nn.Identity(), Patchy(), dist.Normal(torch.zeros(2), 1.0).to_event(1))
    options = {"step_size": 1.0, "adapt_step_size": False} if kernel_class in STEPPED.values() else {}
    mcmc = quiet(kernel_class(gan, **options), num_samples=50, warmup_steps=5, num_chains=40)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert torch.isfinite(z).all() and torch.isfinite(mcmc.sample_stats["lp"]).all()
    assert (z[:, 0] <= 1).all() and (z[:, 1].abs() <= 1.5).all()
    assert mcmc.num_invalid > 0
    diverging = mcmc.sample_stats["diverging"]
    if kernel_class in WITH_GRADIENT:
        # A trajectory that ends where the weight is zero has diverged as well.
        assert mcmc.num_diverging > mcmc.num_invalid
    else:
        assert mcmc.num_diverging == mcmc.num_invalid
    assert int(diverging.sum()) == mcmc.num_diverging
    by_chain = mcmc.diagnostics()["divergences"]
    assert sum(len(draws) for draws in by_chain.values()) == mcmc.num_diverging


def test_no_finite_start_raises(kernel_class) -> None:
    factor = [1.0]

    def late_nan(x: Tensor) -> Tensor:
        return x.sum(-1) * factor[0]

    gan = LatentPosterior(torch.nn.Identity(), late_nan, dist.Normal(torch.zeros(2), 1.0).to_event(1))
    factor[0] = torch.nan  # it has passed the probe at construction, and fails afterwards
    gan.validate = lambda **context: None
    with pytest.raises(ValueError, match="no starting point"):
        quiet(kernel_class(gan), num_samples=2, num_chains=3).run()


def test_positions_that_the_caller_has_changed_are_evaluated_again(kernel_class) -> None:
    kernel = kernel_class(posterior())
    kernel.bind(3)
    kernel.setup(0)
    params = kernel.sample(kernel.initial_params)
    for move in (lambda z: z + 1, lambda z: z.add_(1)):
        moved = {"z": move(params["z"])}
        seen: list[Tensor] = []
        evaluate = kernel.evaluate
        kernel.evaluate = lambda z, seen=seen, evaluate=evaluate: seen.append(z.clone()) or evaluate(z)
        before = moved["z"].clone()
        params = kernel.sample(moved)
        kernel.evaluate = evaluate
        torch.testing.assert_close(seen[0], before)
        potential = posterior().potential_fn({"z": kernel.state.z})
        torch.testing.assert_close(kernel.state.potential, potential, rtol=1e-4, atol=1e-4)


def test_a_copied_kernel_does_not_trust_foreign_tensors(kernel_class) -> None:
    kernel = kernel_class(posterior())
    kernel.bind(3)
    kernel.setup(0)
    kernel.sample(kernel.initial_params)
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        seen: list[Tensor] = []
        evaluate = other.evaluate
        other.evaluate = lambda z, seen=seen, evaluate=evaluate: seen.append(z.clone()) or evaluate(z)
        for _ in range(50):
            foreign = {"z": torch.full((3, 2), 9.0)}
            seen.clear()
            other.sample(foreign)
            torch.testing.assert_close(seen[0], torch.full((3, 2), 9.0))


@pytest.mark.parametrize("proposing", PROPOSING.values(), ids=PROPOSING)
def test_a_learned_proposal_leaves_no_graph(proposing) -> None:
    proposal = dist.Normal(torch.zeros(2, requires_grad=True), 2.0).to_event(1)
    kernel = proposing(potential_fn=lambda p: p["z"].square().sum(-1) / 2, proposal=proposal)
    kernel.bind(3)
    kernel.initial_params = {"z": torch.zeros(3, 2)}
    kernel.setup(0)
    kernel.sample(kernel.initial_params)
    known = [value for value in (*kernel.state, kernel.info.accept_prob) if value is not None]
    assert not any(value.requires_grad for value in known)


def test_a_finite_energy_error_can_be_a_divergence() -> None:
    kernel = BatchHMC(posterior(), step_size=20.0, num_steps=3, adapt_step_size=False)
    kernel.bind(50)
    kernel.setup(0)
    kernel.sample(kernel.initial_params)
    assert kernel.info.diverging.any() and not kernel.info.invalid.any()


def test_the_frozen_step_size_is_the_average(stepped_class) -> None:
    kernel = stepped_class(posterior())
    kernel.bind(20)
    kernel.setup(30)
    params = kernel.initial_params
    for _ in range(30):
        averaging = kernel.adaptation._averaging
        params = kernel.sample(params)
    last, average = averaging.get_state()
    torch.testing.assert_close(kernel.step_size, average.exp())
    assert not torch.isclose(average, last)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("warmup_steps", [1, 3, 10, 100])
def test_any_length_of_warmup_leaves_a_usable_step_size(stepped_class, warmup_steps) -> None:
    mcmc = quiet(stepped_class(posterior(dim=10)), num_samples=20, warmup_steps=warmup_steps, num_chains=100)
    mcmc.run()
    assert float(mcmc.sample_stats["accept_prob"].mean()) > 0.2


def test_rare_starting_regions_are_found(kernel_class) -> None:
    def critic(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 2.0, -x.square().sum(-1), torch.nan)

    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    gan = LatentPosterior(torch.nn.Identity(), Patient(critic), prior)
    kernel = kernel_class(gan)
    kernel.bind(500)
    kernel.setup(0)
    assert (kernel.state.z[:, 0] > 2).all() and torch.isfinite(kernel.state.potential).all()
    torch.testing.assert_close(kernel.state.potential, gan.potential_fn({"z": kernel.state.z}))


class Patient(torch.nn.Module):
    """Has a finite score for the eight rows of a probe, which would rarely be in a rare region."""

    def __init__(self, critic: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1) if len(x) <= 8 else self.critic(x)


def test_ula_is_adjusted_while_it_adapts_and_not_after() -> None:
    narrow = {"potential_fn": lambda p: 1e4 * p["z"].square().sum(-1) / 2}
    accepted: list[Tensor] = []
    mcmc = quiet(
        ULA(**narrow), num_samples=30, warmup_steps=100, num_chains=200, initial_params={"z": torch.zeros(200, 2)},
        hook_fn=lambda kernel, *_: accepted.append(kernel.info.accepted),
    )  # fmt: skip
    mcmc.run()
    taken = torch.stack(accepted)
    assert not taken[:100].all() and taken[100:].all()
    # The target has an sd of 0.01, a tenth of the initial step size: unadjusted steps would have left it for good.
    assert float(mcmc.get_samples()["z"].std()) < 0.015


def test_one_gradient_a_mala_step() -> None:
    kernel = MALA(posterior(), adapt_step_size=False)
    kernel.bind(3)
    kernel.setup(0)
    calls = []
    target = kernel.target
    inner = target.potential_and_grad
    target.potential_and_grad = lambda z: calls.append(1) or inner(z)
    params = kernel.initial_params
    for _ in range(10):
        params = kernel.sample(params)
    assert len(calls) == 10


@pytest.mark.parametrize("adjusted", [name for name in STEPPED if name in EXACT])
def test_each_chain_is_accepted_on_its_own(adjusted) -> None:
    kernel = STEPPED[adjusted](posterior(), step_size=1.0, adapt_step_size=False)
    kernel.bind(200)
    kernel.setup(0)
    kernel.sample(kernel.initial_params)
    assert 0 < int(kernel.info.accepted.sum()) < 200


def test_adaptation_meets_its_target_and_stops(stepped_class) -> None:
    kernel = stepped_class(posterior(), step_size=1e-3)
    sizes = []
    mcmc = quiet(
        kernel,
        num_samples=100,
        warmup_steps=200,
        num_chains=200,
        hook_fn=lambda k, p, s, i: sizes.append(float(k.step_size)),
    )
    mcmc.run()
    assert len(set(sizes[:199])) > 100 and len(set(sizes[200:])) == 1
    target = kernel.adaptation.target_accept_prob
    # With jitter the acceptance differs from step to step, and adaptation ends a little off. ChEES adapts a harmonic
    # mean.
    tolerance = {BatchHMC: 0.1, ChEES: 0.3}.get(type(kernel), 0.05)
    assert float(mcmc.sample_stats["accept_prob"].mean()) == pytest.approx(target, abs=tolerance)
    assert (mcmc.sample_stats["step_size"] == sizes[-1]).all()


def test_without_warmup_or_adaptation_the_step_size_stays(stepped_class) -> None:
    for warmup_steps, adapt in ((0, True), (10, False)):
        mcmc = quiet(
            stepped_class(posterior(), step_size=0.25, adapt_step_size=adapt),
            num_samples=5,
            warmup_steps=warmup_steps,
            num_chains=3,
        )
        mcmc.run()
        assert (mcmc.sample_stats["step_size"] == 0.25).all()


def test_runs_again_and_reproduces_from_a_seed(kernel_class, seed) -> None:
    import pyro

    mcmc = quiet(kernel_class(posterior()), num_samples=5, num_chains=4)
    mcmc.run()
    first = mcmc.get_samples()["z"]
    pyro.set_rng_seed(seed)
    # Building the posterior must not change the state of the generator either.
    again = quiet(kernel_class(posterior()), num_samples=5, num_chains=4)
    again.run()
    torch.testing.assert_close(again.get_samples()["z"], first)
    mcmc.run()
    assert not torch.equal(mcmc.get_samples()["z"], first)


# Bad input.


def test_bad_numbers_raise(kernel_class) -> None:
    gan = posterior()
    for options in ({"num_chains": 0}, {"num_samples": 0}, {"warmup_steps": -1}, {"thin": 0}, {"mp_context": "fork"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            quiet(kernel_class(gan), **{"num_samples": 3, "num_chains": 2, **options})
    for num_chains in (0, 1.5, float("nan"), "x", True, [3], torch.zeros(2)):
        with pytest.raises(ValueError, match="Expected num_chains .* got"):
            kernel_class(gan, num_chains=num_chains)
    with pytest.raises(ValueError, match="num_chains=3"):
        quiet(kernel_class(gan, num_chains=3), num_samples=3, num_chains=2)
    with pytest.raises(ValueError, match="exactly one"):
        kernel_class()


@pytest.mark.parametrize("step_size", [0.0, -0.1, float("nan"), float("inf"), None, "x", [0.1], torch.ones(2)])
def test_bad_step_sizes_raise(stepped_class, step_size) -> None:
    with pytest.raises(ValueError, match="step_size"):
        stepped_class(posterior(), step_size=step_size)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.5, float("nan"), "x", [0.5]])
def test_bad_target_acceptance_raises(stepped_class, target) -> None:
    with pytest.raises(ValueError, match="target_accept_prob"):
        stepped_class(posterior(), target_accept_prob=target)


def test_bad_initial_params_raise(kernel_class) -> None:
    good = torch.zeros(3, 2)
    nan = good.clone()
    nan[1, 0] = torch.nan
    for params, words in (
        ({"z": torch.zeros(2, 2)}, r"\(3, 2\)"),
        ({"z": torch.zeros(3, 4)}, r"\(3, 2\)"),
        ({"w": good}, "sites"),
        ({"z": good, "w": good}, "sites"),
        ({"z": nan}, "NaN"),
        ({"z": good.double()}, "float64"),
        ({"z": good.tolist()}, "torch.Tensor"),
        ({"z": torch.zeros(())}, r"\(3, 2\)"),
        (good, "type Mapping.*Pass {site: values}"),
    ):
        with pytest.raises(ValueError, match=words):
            quiet(kernel_class(posterior()), num_samples=2, num_chains=3, initial_params=params).run()


def test_positions_that_are_no_positions_raise(kernel_class) -> None:
    kernel = kernel_class(posterior())
    kernel.bind(3)
    kernel.setup(0)
    for params, words in (
        (None, "params of type Mapping"),
        ({}, "params for the sites"),
        ({"z": None}, "torch.Tensor"),
        ({"z": torch.zeros(2, 2)}, r"\(3, 2\)"),
        ({"z": torch.zeros(3, 2).double()}, "float64"),
    ):
        with pytest.raises(ValueError, match=words):
            kernel.sample(params)


def test_initial_params_outside_the_target_raise(kernel_class) -> None:
    gan = LatentPosterior(torch.nn.Identity(), Patchy(), dist.Normal(torch.zeros(2), 1.0).to_event(1))
    start = {"z": torch.tensor([[0.0, 0.0], [2.0, 0.0]])}
    with pytest.raises(ValueError, match="1 of 2 chains"):
        quiet(kernel_class(gan), num_samples=2, num_chains=2, initial_params=start).run()


def test_a_bare_potential_of_the_wrong_shape_raises(kernel_class) -> None:
    kernel = bare(kernel_class, lambda params: params["z"].square().sum())
    with pytest.raises(ValueError, match=r"what potential_fn returns of shape \(3,\).*one value for each chain"):
        quiet(kernel, num_samples=2, num_chains=3, initial_params={"z": torch.zeros(3, 2)}).run()


def test_a_bare_potential_needs_a_start(stepped_class) -> None:
    with pytest.raises(ValueError, match="initial_params"):
        quiet(bare(stepped_class, lambda p: p["z"].sum(-1)), num_samples=2, num_chains=3).run()


@pytest.mark.parametrize("proposing", PROPOSING.values(), ids=PROPOSING)
def test_kernels_that_propose_need_a_proposal_for_a_bare_potential(proposing) -> None:
    with pytest.raises(ValueError, match="proposal="):
        proposing(potential_fn=lambda p: p["z"].sum(-1))


@pytest.mark.parametrize("proposing", PROPOSING.values(), ids=PROPOSING)
def test_proposals_that_do_not_fit_raise(proposing) -> None:
    for proposal, words in (
        (dist.Normal(torch.zeros(2), 1.0), "to_event"),
        (dist.Normal(torch.zeros(3), 1.0).to_event(1), "2 numbers"),
        (dist.Normal(torch.zeros(2).double(), 1.0).to_event(1), "float32"),
    ):
        with pytest.raises(ValueError, match=words):
            quiet(proposing(posterior(), proposal=proposal), num_samples=2, num_chains=3).run()


@pytest.mark.parametrize(
    "proposal",
    [
        dist.Uniform(torch.zeros(2), torch.ones(2), validate_args=True),
        # Its log_prob returns a number also outside the support.
        dist.Exponential(torch.ones(2)),
    ],
)
@pytest.mark.parametrize("proposing", [IndependenceMH, ISIR])
def test_proposals_that_do_not_cover_the_target_raise(proposing, proposal) -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="support covers the target's.*unconstrained.*such as a Normal"):
        quiet(proposing(posterior(), proposal=proposal.to_event(1)), num_samples=2, num_chains=3).run()
    assert torch.equal(torch.get_rng_state(), before)
    # If the target has no density there either, nothing is missed.
    half = LatentPosterior(
        torch.nn.Identity(), lambda x: torch.where((x > 0).all(-1), -x.sum(-1), -torch.inf), posterior().prior
    )
    if isinstance(proposal, dist.Exponential):
        quiet(proposing(half, proposal=proposal.to_event(1)), num_samples=2, num_chains=3).run()


@pytest.mark.parametrize("model", ["x", 3, torch.zeros(2), [1], LatentPosterior])
def test_something_else_instead_of_a_model_raises(kernel_class, model) -> None:
    with pytest.raises(ValueError, match="model to be a function or a network; got"):
        kernel_class(model)


def test_models_without_a_latent_site_raise(kernel_class) -> None:
    with pytest.raises(ValueError, match="latent site"):
        quiet(kernel_class(lambda: None), num_samples=2, num_chains=3).run()


def test_pyros_kernels_raise() -> None:
    from pyro.infer import NUTS

    with pytest.raises(ValueError, match=r"pyro\.infer\.MCMC"):
        VectorizedMCMC(NUTS(posterior()), num_samples=2)


def test_results_before_a_run_raise(kernel_class) -> None:
    mcmc = quiet(kernel_class(posterior()), num_samples=2)
    for ask in (mcmc.get_samples, mcmc.diagnostics, mcmc.summary, lambda: mcmc.never_moved):
        with pytest.raises(ValueError, match=r"run\(\)"):
            ask()
