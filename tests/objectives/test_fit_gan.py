"""The adversarial pair: it learns, resumes with equal bits for every source of data, and refuses what does not fit."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_gan import LogRatio, files, toys
from pyro_gan.objectives import (
    MMD,
    Bernoulli,
    FittedGAN,
    GaussianKernel,
    GradientPenalty,
    Minimax,
    Paired,
    ReverseKL,
    Wasserstein,
    fit_gan,
)
from pyro_gan.training import NonFiniteLoss
from pyro_gan.training.checkpoint import KIND
from tests.killed import die_at, run_killed

PRIOR = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
STEPS = 12


def data() -> Tensor:
    return torch.tensor([3.0, -1.0]) + 0.5 * torch.randn(96, 2, generator=torch.Generator().manual_seed(0))


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(data(), torch.arange(96)), batch_size=20, shuffle=True)


SOURCES: dict[str, Any] = {
    "tensor": lambda: (data(), {"batch_size": 20}),
    "shuffled loader": lambda: (loader(), {}),
    "list": lambda: (list(data().split(20)), {}),
}


class Small(nn.Module):
    """A generator with buffers, which an average must include."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def run(seed: int, source: Any = None, **options: Any) -> FittedGAN:
    torch.manual_seed(seed)
    generator, critic = Small(), toys.MLP([2, 8, 1])
    source, sizes = SOURCES["tensor"]() if source is None else source
    settings = {
        "prior": PRIOR,
        "objective": Bernoulli(),
        "generator_optimizer": torch.optim.Adam(generator.parameters(), lr=0.01),
        "critic_optimizer": torch.optim.Adam(critic.parameters(), lr=0.01),
        "num_steps": STEPS,
        "critic_steps": 2,
        "averaging": 0.9,
        "checkpoint_every": 3,
        "progress": False,
        **sizes,
    }
    return fit_gan(generator, critic, data=source, **(settings | options))


def bits(gan: FittedGAN) -> list[Tensor]:
    critic = [] if gan.critic is None else list(gan.critic.state_dict().values())
    return [*gan.generator.state_dict().values(), *critic]


def assert_equal_bits(a: FittedGAN, b: FittedGAN) -> None:
    assert all(torch.equal(x, y) for x, y in zip(bits(a), bits(b), strict=True))


def adam(network: nn.Module, lr: float = 2e-3) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.9))


@pytest.mark.parametrize(
    ("objective", "penalty"),
    [(Bernoulli(), None), (Wasserstein(), GradientPenalty(1.0)), (Paired(Bernoulli(), Minimax(ReverseKL())), None)],
    ids=["bernoulli", "wgan-gp", "reverse KL"],
)
def test_the_pair_learns_where_the_data_are(objective, penalty) -> None:
    generator, critic = nn.Linear(2, 2), toys.MLP([2, 32, 32, 1])
    gan = fit_gan(
        generator, critic, prior=PRIOR, data=data(), objective=objective, penalty=penalty, batch_size=64,
        generator_optimizer=adam(generator, 5e-3), critic_optimizer=adam(critic, 5e-3), num_steps=1000, critic_steps=2,
        averaging=0.99, progress=False,
    )  # fmt: skip
    with torch.no_grad():
        x = gan.generator(PRIOR.sample((4000,)))
    # The players circle each other, so near means within half of the data's spread.
    assert (x.mean(0) - data().mean(0)).abs().max() < 0.25
    assert 0.2 < float(x.std(0).mean()) < 1.0


def test_a_loss_on_samples_needs_no_critic() -> None:
    generator = nn.Linear(2, 2)
    gan = fit_gan(
        generator, None, prior=PRIOR, data=data(), objective=MMD(GaussianKernel([0.5, 1.0, 2.0, 4.0])),
        generator_optimizer=adam(generator, 0.04), num_steps=300, batch_size=64, progress=False,
    )  # fmt: skip
    with torch.no_grad():
        x = gan.generator(PRIOR.sample((4000,)))
    assert gan.critic is None and (x.mean(0) - data().mean(0)).abs().max() < 0.2


@pytest.mark.parametrize("source", SOURCES)
def test_a_resumed_run_has_the_bits_of_a_whole_one(source, seed, tmp_path) -> None:
    path = tmp_path / "gan.pt"
    whole = run(seed, SOURCES[source]())
    run(seed, SOURCES[source](), checkpoint=path, num_steps=7)  # in the middle of an epoch
    resumed = run(seed + 1, SOURCES[source](), checkpoint=path)
    assert resumed.num_steps == STEPS
    assert_equal_bits(resumed, whole)


def test_a_killed_process_goes_on_from_its_checkpoint(seed, tmp_path) -> None:
    path = tmp_path / "gan.pt"
    run_killed(lambda: run(seed, (loader(), {}), checkpoint=path, callback=die_at(8)))
    assert files.load(path, kind=KIND)["progress"]["step"] == 6
    resumed = run(seed + 1, (loader(), {}), checkpoint=path)
    assert_equal_bits(resumed, run(seed, (loader(), {})))


def test_the_average_follows_at_its_pace() -> None:
    plain, averaged = run(0, averaging=None), run(0, averaging=0.9)
    assert any(not torch.equal(a, b) for a, b in zip(bits(plain), bits(averaged), strict=True))
    assert all(not module.training for gan in (plain, averaged) for module in gan.generator.modules())
    # With no memory it is the generator itself.
    assert_equal_bits(run(0, averaging=0.0), plain)


def test_the_average_is_of_parameters_and_buffers() -> None:
    """The first step starts the average, and each later one moves it by 1 - averaging, BatchNorm's statistics too."""
    generator, critic = Small(), toys.MLP([2, 8, 1])
    expected: dict[str, Tensor] = {}

    def follow(step: int, losses: dict[str, float], gan: FittedGAN) -> None:
        for name, value in generator.state_dict().items():
            if value.is_floating_point():
                expected[name] = value.clone() if step == 1 else expected[name].lerp(value, 1 - 0.9)

    gan = fit_gan(
        generator, critic, prior=PRIOR, data=data(), objective=Bernoulli(), num_steps=STEPS, batch_size=20,
        generator_optimizer=adam(generator), critic_optimizer=adam(critic), averaging=0.9, callback=follow,
        progress=False,
    )  # fmt: skip
    found = gan.generator.state_dict()
    assert {"layers.1.running_mean", "layers.1.running_var"} < set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
        assert not torch.equal(found[name], generator.state_dict()[name])


def test_the_critic_reads_as_a_log_ratio() -> None:
    gan = run(0)
    assert LogRatio(gan.critic, Bernoulli())(torch.randn(5, 2)).shape == (5,)


def test_callback_hears_of_every_step_and_may_end_the_run() -> None:
    heard: list[int] = []

    def hear(step: int, losses: dict[str, float], gan: FittedGAN) -> bool:
        assert set(losses) == {"critic", "generator"} and gan.num_steps == step
        heard.append(step)
        return step == 5

    assert run(0, callback=hear).num_steps == 5 and heard == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("averaging", [None, 0.9])
def test_callback_gets_what_a_run_of_so_many_steps_returns(averaging: float | None) -> None:
    seen: dict[int, FittedGAN] = {}

    def keep(step: int, losses: dict[str, float], gan: FittedGAN) -> None:
        seen[step] = copy.deepcopy(gan)

    final = run(0, callback=keep, averaging=averaging)
    assert all(not module.training for gan in seen.values() for net in gan[:2] for module in net.modules())
    for step in (1, 4, STEPS):
        assert_equal_bits(seen[step], run(0, num_steps=step, averaging=averaging))
    assert_equal_bits(final, run(0, averaging=averaging))


def test_batches_may_be_an_endless_iterator() -> None:
    assert run(0, (itertools.cycle(data().split(20)), {})).num_steps == STEPS


def test_nan_in_the_data_stops_the_run_and_names_the_step() -> None:
    bad = data()
    bad[:, 0] = torch.nan
    with pytest.raises(NonFiniteLoss, match="'critic'.*step 1"):
        run(0, (bad, {"batch_size": 20}))


# Bad input.


def three(batches: Iterable[Tensor]) -> Any:
    return itertools.islice(batches, 3)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: (three(data().split(20)), {}), "it ended after 3"),
        (lambda: ([], {}), "iterable is empty"),
        (lambda: (data(), {}), "batch_size"),
        (lambda: (data()[0], {"batch_size": 4}), r"shape \(datum, \*event\)"),
        (lambda: (loader(), {"batch_size": 4}), "no batch_size"),
        (lambda: ([{"x": data()}], {}), "tensors, or sequences"),
        (
            lambda: (torch.randn(50, 3), {"batch_size": 10}),
            r"generated data like the real data, of shape \(10, 3\); got \(10, 2\)",
        ),
    ],
)
def test_bad_data_raise(source, words) -> None:
    with pytest.raises(ValueError, match=words):
        run(0, source())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "bce"}, "Expected objective of type Objective or TwoSampleLoss or EntropicTransport"),
        ({"critic_optimizer": None}, "critic_optimizer"),
        ({"objective": MMD(GaussianKernel([1.0]))}, "no critic"),
        ({"critic_steps": 0}, "critic_steps"),
        ({"averaging": 1.0}, r"averaging in \[0, 1\)"),
        *[
            ({name: bad}, name)
            for name in ("num_steps", "critic_steps", "checkpoint_every", "batch_size")
            for bad in (None, "x", float("nan"), 0, -1, 2.5, torch.ones(2))
        ],
        *[({"averaging": bad}, "averaging") for bad in ("x", float("nan"), -0.1, torch.ones(2))],
        *[({"prior": bad}, "prior of type Distribution") for bad in (None, "x", torch.zeros(2))],
        *[({"penalty": bad}, "penalty to be a function") for bad in ("x", 1.0, GradientPenalty)],
        *[({"callback": bad}, "callback to be a function") for bad in ("x", 1.0)],
        *[({"checkpoint": bad}, "checkpoint of type str or PathLike") for bad in (1.0, torch.zeros(2))],
        *[({"objective": bad}, "objective of type") for bad in (None, Bernoulli, torch.zeros(2))],
        ({"generator_optimizer": None}, "optimizer of player 'generator' of type Optimizer"),
    ],
)
def test_bad_options_raise(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        run(0, **options)


@pytest.mark.parametrize("bad", [None, "x", 3.0, torch.zeros(2), nn.Linear])
def test_networks_that_are_none_raise(bad: Any) -> None:
    network, settings = (nn.Linear(2, 2), {"prior": PRIOR, "data": data(), "objective": Bernoulli(), "num_steps": 1})
    settings |= {"generator_optimizer": adam(network), "critic_optimizer": adam(network), "batch_size": 4}
    for generator, critic in ((bad, network), (network, bad)):
        with pytest.raises(ValueError, match="(generator|critic) of type Module"):
            fit_gan(generator, critic, **settings)


@pytest.mark.parametrize("bad", [None, "x", 3.0, float("nan"), np.zeros((5, 2)), [[1.0, 2.0]]])
def test_data_that_are_none_raise(bad: Any) -> None:
    with pytest.raises(ValueError, match="data of type Iterable|batch to be a torch.Tensor"):
        run(0, (bad, {}))


def test_an_iterator_cannot_be_resumed(tmp_path) -> None:
    with pytest.raises(ValueError, match="to resume from a checkpoint"):
        run(0, (iter(data().split(20)), {}), checkpoint=tmp_path / "gan.pt")
