"""Two runs in two threads, a run in a hook, draws of another thread: none disturbs another."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC, probes, toys
from pyro_gan._random import DrawCounter, own_generators
from pyro_gan.distributions import EntropicGAN
from pyro_gan.mcmc import MALA

pytestmark = pytest.mark.filterwarnings("ignore:.*of the chains", "ignore:.*of the steps")  # the runs are short

TOY = toys.affine_gaussian(1.5 * torch.eye(2), torch.ones(2))


def posterior() -> LatentPosterior:
    return LatentPosterior(TOY.generator, TOY.log_ratio, TOY.prior)


def program() -> None:
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(0.0, scale), obs=torch.tensor([1.0, -2.0, 0.5]))


def run(model: Callable[..., object], hook: Callable | None = None) -> VectorizedMCMC:
    mcmc = VectorizedMCMC(MALA(model), 15, 30, num_chains=4, disable_progbar=True, hook_fn=hook)
    mcmc.run()
    return mcmc


def together(*functions: Callable[[], object]) -> list[BaseException]:
    """Run functions in threads that begin together, and return what they raised."""
    begin, raised = threading.Barrier(len(functions)), []

    def guarded(function: Callable[[], object]) -> None:
        begin.wait()
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("model", [posterior(), program], ids=["posterior", "program"])
def test_runs_in_threads(model) -> None:
    before = pyro.distributions.is_validation_enabled()
    assert not together(*[lambda: run(model)] * 3)
    assert pyro.distributions.is_validation_enabled() == before and pyro.infer.is_validation_enabled()
    # Pyro's stack of handlers is empty again: a trace sees its own sites.
    assert "scale" in pyro.poutine.trace(program).get_trace().nodes


def test_a_run_in_a_hook_of_another() -> None:
    inner: list[VectorizedMCMC] = []

    def hook(kernel, params, stage, i) -> None:
        if (stage, i) == ("Sample", 3):
            inner.append(run(program))

    outer = run(program, hook)
    assert outer.num_samples == inner[0].num_samples == 15


def busy(work: Callable[[], object], rounds: int = 5) -> Tensor:
    """Return a thread's draws, made one by one while another thread does some work a few times."""
    drawn: list[Tensor] = []
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            drawn.append(torch.rand(16, dtype=torch.float64))

    def do() -> None:
        try:
            for _ in range(rounds):
                work()
        finally:
            done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert not together(draw, do)
    finally:
        sys.setswitchinterval(interval)
    return torch.cat(drawn)


def num_repeats(draws: Tensor) -> int:
    return len(draws) - len(draws.unique())


def test_no_draw_of_another_thread_comes_twice() -> None:
    gan, y = EntropicGAN(nn.Linear(2, 3), TOY.prior, regularization=0.5), torch.zeros(4, 3)
    works: dict[str, Callable[[], object]] = {
        "EntropicGAN.log_prob": lambda: gan.log_prob(y),
        "EntropicGAN.estimate": lambda: gan.estimate(y),
        "a posterior": posterior,
        "the setup of a kernel": lambda: MALA(posterior(), num_chains=None).setup(0),
        "the setup of a program": lambda: MALA(program).setup(0),
        "a probe": lambda: probes.probe_critic(TOY.log_ratio, torch.zeros(9, 2)),
    }
    for name, work in works.items():
        assert num_repeats(busy(work)) == 0, name


def test_the_test_of_repeats_sees_them() -> None:
    """Negative control: a reseeded global generator repeats draws of another thread."""

    def reseed() -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(100):
                torch.rand(10, dtype=torch.float64)

    assert num_repeats(busy(reseed)) > 10


def test_draws_of_another_thread_are_no_noise_of_a_network() -> None:
    """And noise is still found while another thread draws."""

    def noisy(x: Tensor) -> Tensor:
        return x.sum(-1) + 0.0 * torch.randn(len(x))

    busy(posterior)
    raised: list[str] = []

    def probe() -> None:
        with pytest.raises(ValueError, match="draws noise") as caught:
            probes.probe_critic(noisy, torch.zeros(9, 2))
        raised.append(str(caught.value))

    busy(probe)
    assert raised


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randn(3),
        lambda: torch.randn_like(torch.zeros(3, 4).T),
        lambda: torch.rand_like(torch.zeros(2)),
        lambda: torch.randperm(7),
        lambda: torch.randint(9, (5,)),
        lambda: torch.empty(3).uniform_(-2, 2),
        lambda: dist.Gamma(torch.ones(3), 1.0).sample(),
        lambda: dist.Dirichlet(torch.ones(3)).sample((2,)),
        lambda: dist.StudentT(torch.ones(3)).sample(),
        lambda: dist.VonMises(torch.zeros(3), 1.0).sample(),
        lambda: dist.Categorical(torch.ones(3)).sample((5,)),
        lambda: dist.Poisson(torch.ones(3)).sample(),
        lambda: dist.MultivariateNormal(torch.zeros(2), torch.eye(2)).sample(),
    ],
)
def test_own_generators_give_the_numbers_of_a_seed_and_leave_torchs_alone(draw) -> None:
    torch.manual_seed(5)
    expected = [draw(), draw()]
    torch.manual_seed(6)
    state = torch.get_rng_state()
    with own_generators(5):
        first = draw()
        with own_generators():  # begins where the outer ones stand, and leaves them there
            inner = draw()
        second = draw()
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1]) and torch.equal(inner, second)
    with DrawCounter() as drawn:
        with own_generators():
            like_torchs = draw()
    assert drawn.count and torch.equal(state, torch.get_rng_state())
    assert torch.equal(draw(), like_torchs)
