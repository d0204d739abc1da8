"""What a run keeps when it ends early, and that it goes on to the bits of one that did not: every kernel, every way."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC, toys
from pyro_gan.mcmc import MALA, PCN, BatchHMC, BatchKernel, ChEES, IndependenceMH
from tests.mcmc.members import KERNELS

NUM_CHAINS, WARMUP, DRAWS = 6, 6, 10
TOY = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))

Hook = Callable[[BatchKernel, Any, str, int], None]


class Breaks(nn.Module):
    """A log ratio that raises in a chosen call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.breaks_at, self.error = 0, -1, MemoryError("out of memory")

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.breaks_at:
            raise self.error
        return TOY.log_ratio(x)


def breaking() -> LatentPosterior:
    return LatentPosterior(TOY.generator, Breaks(), TOY.prior)


def runner(kernel: BatchKernel, num_samples: int = DRAWS, warmup: int = WARMUP, **options) -> VectorizedMCMC:
    options = {"num_chains": NUM_CHAINS, "disable_progbar": True} | options
    return VectorizedMCMC(kernel, num_samples, warmup, **options)


def interrupting(stage: str, i: int, error: BaseException | None = None) -> Hook:
    """Return a hook that raises once, after a step."""
    waiting = [error or KeyboardInterrupt()]

    def hook(kernel: BatchKernel, params: Any, now: str, step: int) -> None:
        if (now, step) == (stage, i) and waiting:
            raise waiting.pop()

    return hook


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let proposals that are scored ahead last for a few steps, and prior densities wait for a few draws."""
    monkeypatch.setattr("pyro_gan.mcmc.proposal.BLOCK_ROWS", 3 * NUM_CHAINS)
    monkeypatch.setattr("pyro_gan.mcmc.record.BLOCK_DRAWS", 3)


def assert_same(a: VectorizedMCMC, b: VectorizedMCMC) -> None:
    assert a.sample_stats.keys() == b.sample_stats.keys()
    for name, value in a.sample_stats.items():
        assert torch.equal(value, b.sample_stats[name]), name
    for name, value in a.get_samples(group_by_chain=True).items():
        assert torch.equal(value, b.get_samples(group_by_chain=True)[name])
        assert all(map(torch.equal, a.moments[name][:2], b.moments[name][:2]))
        assert torch.equal(a.last_params[name], b.last_params[name])
    assert a.kernel.diagnostics() == b.kernel.diagnostics()


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("share", [0.2, 0.8], ids=["in warmup", "among the draws"])
def test_an_error_in_the_middle_of_a_step_loses_that_step_alone(make, share: float, seed: int, tmp_path: Path) -> None:
    """The networks fail once, in some step. The run goes on, in this process and from a file, to the same bits."""

    def start(breaks_at: int = -1, hook: Hook | None = None) -> tuple[VectorizedMCMC, Breaks]:
        pyro.set_rng_seed(seed)
        gan = breaking()
        gan.log_ratio.calls, gan.log_ratio.breaks_at = 0, breaks_at
        mcmc = runner(make(gan), hook_fn=hook)
        if breaks_at < 0:
            mcmc.run()
        else:
            with pytest.raises(MemoryError, match="out of memory"):
                mcmc.run()
        return mcmc, gan.log_ratio

    first: list[int] = []
    start(hook=lambda kernel, *_: first.append(kernel.model.log_ratio.calls))
    whole, log_ratio = start()
    breaks_at = first[0] + 1 + int(share * (log_ratio.calls - first[0]))

    broken, _ = start(breaks_at)
    draws = broken.get_samples(group_by_chain=True)["z"].shape[1] if share > 0.5 else 0
    assert draws < DRAWS and (share < 0.5 or draws > 0)
    if draws:
        assert broken.num_samples == draws
        assert torch.equal(broken.sample_stats["lp"], whole.sample_stats["lp"][:, :draws])
        assert torch.equal(broken.sample_stats["log_ratio"], whole.sample_stats["log_ratio"][:, :draws])
    broken.save(tmp_path / "run.safetensors")
    torch.randn(7)
    broken.resume()
    assert_same(broken, whole)

    torch.manual_seed(seed + 1)
    loaded = runner(make(breaking()))
    loaded.load(tmp_path / "run.safetensors")

    loaded.resume()
    assert_same(loaded, whole)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), RuntimeError("full"), MemoryError()])
@pytest.mark.parametrize("stage, i", [("Warmup", 0), ("Warmup", 3), ("Sample", 0), ("Sample", 7)])
def test_any_exception_is_raised_again_and_goes_on(error: BaseException, stage: str, i: int, seed: int) -> None:
    whole = runner(MALA(breaking()), num_chains=5)
    whole.run()
    pyro.set_rng_seed(seed)
    mcmc = runner(MALA(breaking()), num_chains=5, hook_fn=interrupting(stage, i, error))
    with pytest.raises(type(error)) as caught:
        mcmc.run()
    assert caught.value is error
    (note,) = error.__notes__[-1:]
    assert f"after step {i + 1 + (WARMUP if stage == 'Sample' else 0)} of {WARMUP + DRAWS}" in note
    if stage == "Warmup":
        with pytest.raises(ValueError, match="no draws yet"):
            mcmc.get_samples()
    else:
        assert torch.equal(mcmc.sample_stats["lp"], whole.sample_stats["lp"][:, : i + 1])
    mcmc.resume()
    assert_same(mcmc, whole)


def test_a_run_begins_again_after_an_interrupt() -> None:
    mcmc = runner(MALA(breaking()), num_chains=5, hook_fn=interrupting("Sample", 7))
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    assert mcmc.num_samples == 8
    mcmc.run()
    assert mcmc.num_samples == DRAWS and mcmc.get_samples(group_by_chain=True)["z"].shape == (5, DRAWS, 2)


def test_thinning_and_the_last_draw_go_on_too(seed: int, tmp_path: Path) -> None:
    for options in ({"thin": 3}, {"keep": "last"}, {"thin": 2, "num_superchains": 3, "save_params": ["z"]}):
        pyro.set_rng_seed(seed)
        whole = runner(BatchHMC(breaking(), num_steps=2), num_chains=6, **options)
        whole.run()
        pyro.set_rng_seed(seed)
        hook = interrupting("Sample", 7)
        mcmc = runner(BatchHMC(breaking(), num_steps=2), num_chains=6, hook_fn=hook, **options)
        with pytest.raises(KeyboardInterrupt):
            mcmc.run()
        mcmc.save(tmp_path / "run.safetensors")
        loaded = runner(BatchHMC(breaking(), num_steps=2), num_chains=6, **options)
        loaded.load(tmp_path / "run.safetensors")
        loaded.resume()
        assert_same(loaded, whole)


def test_a_finished_run_is_made_longer(seed: int, tmp_path: Path) -> None:
    whole = runner(ChEES(breaking()), 25, num_chains=9)
    whole.run()
    pyro.set_rng_seed(seed)
    half = runner(ChEES(breaking()), 10, num_chains=9)
    half.run()
    half.save(tmp_path / "run.safetensors")
    longer = runner(ChEES(breaking()), 25, num_chains=9)
    longer.load(tmp_path / "run.safetensors")
    assert torch.equal(longer.get_samples()["z"], half.get_samples()["z"]) and longer.num_samples == 10
    longer.resume()
    assert_same(longer, whole)
    with pytest.raises(ValueError, match="at most num_samples=9"):
        runner(ChEES(breaking()), 9, num_chains=9).load(tmp_path / "run.safetensors")


def test_positions_that_a_hook_changes_go_on(seed: int, tmp_path: Path) -> None:
    """A hook writes into the positions after each step; the last thing before a save is such a change."""

    def shift(kernel, params, stage, i) -> None:
        params["z"].add_(0.01)

    whole = runner(MALA(breaking()), num_chains=5, hook_fn=shift)
    whole.run()
    pyro.set_rng_seed(seed)
    stop = interrupting("Sample", 4)

    def shift_and_stop(kernel, params, stage, i) -> None:
        shift(kernel, params, stage, i)
        stop(kernel, params, stage, i)

    mcmc = runner(MALA(breaking()), num_chains=5, hook_fn=shift_and_stop)
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    mcmc.save(tmp_path / "run.safetensors")
    mcmc.resume()
    assert_same(mcmc, whole)
    loaded = runner(MALA(breaking()), num_chains=5, hook_fn=shift)
    loaded.load(tmp_path / "run.safetensors")
    loaded.resume()
    assert_same(loaded, whole)


def test_chains_that_start_at_real_data_go_on(seed: int, tmp_path: Path) -> None:
    scores = TOY.log_ratio(TOY.sample_data(200))

    def kernel() -> BatchKernel:
        return IndependenceMH(breaking(), initial_log_ratio=scores, policy="drop")

    whole = runner(kernel(), num_chains=100)
    for i in (2, None):
        pyro.set_rng_seed(seed)
        mcmc = whole if i is None else runner(kernel(), num_chains=100, hook_fn=interrupting("Warmup", i))
        if i is None:
            with pytest.warns(UserWarning, match="dropped"):
                mcmc.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                mcmc.run()
            mcmc.save(tmp_path / "run.safetensors")
    loaded = runner(kernel(), num_chains=100)
    loaded.load(tmp_path / "run.safetensors")
    with pytest.warns(UserWarning, match="dropped"):
        loaded.resume()
    assert_same(loaded, whole) and loaded.num_chains < 100


def test_a_program_and_a_bounded_prior_go_on(seed: int, tmp_path: Path) -> None:
    """Sites of other supports, positional arguments, and starting points of the user's."""

    def model(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, scale).expand([3]).to_event(1), obs=y)

    y, start = torch.tensor([1.0, -2.0, 0.5]), {"scale": torch.linspace(-1, 1, 6)}
    whole = runner(MALA(model), num_chains=6, initial_params=start)
    whole.run(y)
    pyro.set_rng_seed(seed)
    mcmc = runner(MALA(model), num_chains=6, initial_params=start, hook_fn=interrupting("Sample", 4))
    with pytest.raises(KeyboardInterrupt):
        mcmc.run(y)
    mcmc.save(tmp_path / "run.safetensors")
    loaded = runner(MALA(model), num_chains=6)
    loaded.load(tmp_path / "run.safetensors")
    loaded.resume(y)
    assert_same(loaded, whole)
    assert torch.equal(loaded.last_params["scale"].exp(), loaded.get_samples(group_by_chain=True)["scale"][:, -1])


# Warm starts: the adaptation of a kernel that has run


@pytest.mark.parametrize("kernel_class", [MALA, BatchHMC, ChEES, PCN])
def test_what_a_kernel_has_learnt_is_kept_without_warmup(kernel_class) -> None:
    kernel = kernel_class(breaking())
    first = runner(kernel, 10, 60, num_chains=60)
    first.run()
    learnt = kernel.state_dict()
    second = runner(kernel, 10, 0, num_chains=60, initial_params=first.last_params)
    second.run()
    assert second.sample_stats["step_size"].unique().item() == first.sample_stats["step_size"].unique().item()
    assert abs(second.sample_stats["accept_prob"].mean() - first.sample_stats["accept_prob"].mean()) < 0.1
    if kernel_class is ChEES:
        for part in ("length", "scale"):
            assert torch.equal(kernel.state_dict()[part]["value"], learnt[part]["value"])
    # Negative control: with warmup everything is learnt anew, from the first step size on.
    seen: list[float] = []
    third = runner(kernel, 2, 5, num_chains=60, hook_fn=lambda k, *_: seen.append(float(k.step_size)))
    third.run()
    assert seen[-1] != float(learnt["adaptation"]["value"])


def test_an_interrupted_warmup_leaves_a_step_size_for_a_new_run() -> None:
    kernel = MALA(breaking(), step_size=1e-3)
    mcmc = runner(kernel, 20, 100, num_chains=100, hook_fn=interrupting("Warmup", 80))
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    second = runner(kernel, 50, 0, num_chains=100, initial_params=mcmc.last_params)
    second.run()
    assert abs(second.sample_stats["accept_prob"].mean() - MALA.optimal_accept_prob) < 0.15


def test_a_loaded_kernel_keeps_what_it_had_learnt(tmp_path: Path) -> None:
    first = runner(ChEES(breaking()), 20, 100, num_chains=50)
    first.run()
    first.save(tmp_path / "run.safetensors")
    kernel = ChEES(breaking())
    loaded = runner(kernel, 20, 100, num_chains=50)
    loaded.load(tmp_path / "run.safetensors")
    fresh = runner(kernel, 20, 0, num_chains=50, initial_params=loaded.last_params)
    fresh.run()
    assert fresh.sample_stats["step_size"].unique() == first.sample_stats["step_size"].unique()
    assert torch.equal(kernel.scale, first.kernel.scale)


# Files that do not fit


def test_a_run_of_other_settings_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    saved = runner(BatchHMC(breaking(), num_steps=3), num_chains=5)
    saved.run()
    saved.save(tmp_path / "run.safetensors")
    others = {
        "num_steps is 3, and here 4": runner(BatchHMC(breaking(), num_steps=4), num_chains=5),
        "kernel is 'BatchHMC', and here 'MALA'": runner(MALA(breaking()), num_chains=5),
        "step size initial is 0.1, and here 0.2": runner(
            BatchHMC(breaking(), num_steps=3, step_size=0.2), num_chains=5
        ),
        "num_chains is 5, and here 6": runner(BatchHMC(breaking(), num_steps=3), num_chains=6),
        "thin is 1, and here 2": runner(BatchHMC(breaking(), num_steps=3), num_chains=5, thin=2),
        "warmup_steps is 6, and here 7": runner(BatchHMC(breaking(), num_steps=3), warmup=7, num_chains=5),
    }
    for said, mcmc in others.items():
        with pytest.raises(ValueError, match=said):
            mcmc.load(tmp_path / "run.safetensors")
        with pytest.raises(ValueError, match="run to go on with"):
            mcmc.resume()


def test_another_target_is_refused(tmp_path: Path) -> None:
    mcmc = runner(MALA(breaking()), num_chains=5, hook_fn=interrupting("Sample", 4))
    with pytest.raises(KeyboardInterrupt):
        mcmc.run()
    mcmc.save(tmp_path / "run.safetensors")
    toy = toys.affine_gaussian(2.0 * torch.eye(2), torch.ones(2))
    wider = toys.affine_gaussian(torch.eye(3), torch.ones(3))
    for other, said in ((toy, "potential at the position"), (wider, "of 2 numbers; got one of 3")):
        loaded = runner(MALA(LatentPosterior(other.generator, other.log_ratio, other.prior)), num_chains=5)
        loaded.load(tmp_path / "run.safetensors")
        with pytest.raises(ValueError, match=said):
            loaded.resume()


def test_nothing_to_go_on_with_and_nothing_to_save(tmp_path: Path) -> None:
    mcmc = runner(MALA(breaking()), num_chains=5)
    for call in (mcmc.resume, lambda: mcmc.save(tmp_path / "run.safetensors"), lambda: mcmc.last_params):
        with pytest.raises(ValueError, match="run"):
            call()
    with pytest.raises(ValueError, match="cannot be read"):
        mcmc.load(tmp_path / "absent.safetensors")


# Weights that change


@pytest.mark.parametrize("how", ["step of an optimiser", "data", "load"])
@pytest.mark.parametrize("kind", ["posterior", "program", "bare potential"])
def test_weights_that_change_during_a_run_raise(how: str, kind: str) -> None:
    critic = nn.Linear(2, 1)
    gan = LatentPosterior(TOY.generator, lambda x: critic(x).squeeze(-1), TOY.prior)

    def program() -> None:
        z = pyro.sample("z", TOY.prior)
        pyro.factor("ratio", critic(z).squeeze(-1))

    def change(kernel, params, stage, i) -> None:
        if (stage, i) != ("Sample", 3):
            return
        if how == "data":
            critic.weight.data.mul_(1.5)
        elif how == "load":
            critic.load_state_dict({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
        else:
            critic.weight.grad = torch.ones_like(critic.weight)
            torch.optim.SGD(critic.parameters(), lr=0.1).step()

    make: dict[str, Callable[[], BatchKernel]] = {
        "posterior": lambda: MALA(gan),
        "program": lambda: MALA(program),
        "bare potential": lambda: MALA(potential_fn=lambda p: p["z"].square().sum(-1) + critic(p["z"]).squeeze(-1)),
    }
    start = {"z": torch.randn(5, 2)} if kind == "bare potential" else None
    mcmc = runner(make[kind](), num_chains=5, hook_fn=change, initial_params=start)
    with pytest.raises(RuntimeError, match="weights of a network have changed at step"):
        mcmc.run()
    # A change through .data leaves no count, and is found when the weights are read again.
    assert mcmc.num_samples == (9 if how == "data" else 4)


def test_weights_that_are_loaded_again_or_are_of_another_network_do_not_raise() -> None:
    critic, other = nn.Linear(2, 1), nn.Linear(2, 1)
    gan = LatentPosterior(TOY.generator, lambda x: critic(x).squeeze(-1), TOY.prior)

    def same(kernel, params, stage, i) -> None:
        critic.load_state_dict(critic.state_dict())
        other.weight.data.mul_(1.5)

    mcmc = runner(MALA(gan), num_chains=5, hook_fn=same)
    mcmc.run()
    assert mcmc.num_samples == DRAWS


# Signals, in a process of their own


def told(name: str, stage: str, step: int, path: Path) -> None:
    """Run a child that sends itself a signal after a step, and saves its run at each fifth step and at its end."""

    def hook(kernel: BatchKernel, params: Any, now: str, i: int) -> None:
        if i % 5 == 0:
            mcmc.save(path)
        if (now, i) == (stage, step):
            os.kill(os.getpid(), getattr(signal, name))

    mcmc = runner(MALA(breaking()), 20, 10, hook_fn=hook)
    try:
        mcmc.run()
    finally:
        mcmc.save(path)


@pytest.mark.parametrize(
    "name, stage, step, num_draws",
    [
        ("SIGTERM", "Sample", 12, 13),
        ("SIGINT", "Sample", 12, 13),
        ("SIGTERM", "Warmup", 4, 0),
        ("SIGKILL", "Sample", 12, 11),
    ],
)
def test_a_signal_keeps_the_run(name: str, stage: str, step: int, num_draws: int, seed: int, tmp_path: Path) -> None:
    """SIGTERM is as good as Ctrl-C, and SIGKILL leaves the file of the last save; each goes on to the same bits."""
    path = tmp_path / "run.safetensors"
    child = multiprocessing.get_context("fork").Process(target=told, args=(name, stage, step, path))
    child.start()
    child.join(60)
    assert child.exitcode == (-signal.SIGKILL if name == "SIGKILL" else 1)
    whole, loaded = runner(MALA(breaking()), 20, 10), runner(MALA(breaking()), 20, 10)
    whole.run()
    loaded.load(path)
    assert (loaded.num_samples if num_draws else 0) == num_draws
    loaded.resume()
    assert_same(loaded, whole)
    assert list(tmp_path.iterdir()) == [path]
