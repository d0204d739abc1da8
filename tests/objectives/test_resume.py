"""A checkpoint of `fit_gan` goes on with the run that wrote it, and with no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_gan.objectives import (
    MMD,
    R1,
    Bernoulli,
    FittedGAN,
    GaussianKernel,
    GradientPenalty,
    Paired,
    RationalQuadraticKernel,
    ReverseKL,
    Wasserstein,
    fit_gan,
)

PRIOR = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
DATA = torch.randn(96, 2, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A network with a number that stands in no layer and no state."""

    def __init__(self, width: int, activation: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.layers, self.scale = nn.Sequential(nn.Linear(2, 8), activation, nn.Linear(8, width)), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.scale * x)


def run(
    path: Path | None,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    scale: float = 1.0,
    num_steps: int = 5,
    **changes: Any,
) -> FittedGAN:
    generator, critic = Net(2, activation()), Net(1, activation(), scale)
    if changes.pop("no_critic", False):
        changes |= {"critic_optimizer": None}
    settings = {
        "prior": PRIOR, "data": DATA, "objective": Bernoulli(), "batch_size": 8, "critic_steps": 2, "penalty": R1(1.0),
        "averaging": 0.9, "generator_optimizer": torch.optim.Adam(generator.parameters(), lr=0.01),
        "critic_optimizer": torch.optim.Adam(critic.parameters(), lr=0.01), "progress": False,
    }  # fmt: skip
    settings |= changes
    kept = None if settings["critic_optimizer"] is None else critic
    return fit_gan(generator, kept, num_steps=num_steps, checkpoint=path, **settings)


def loader(data: Tensor = DATA, batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(data), batch_size=batch_size, shuffle=True)


# What differs -> the change, and what the error must name: the setting, the value of the file and the value that came.
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "objective": ({"objective": Wasserstein()}, r"objective as in the checkpoint, Bernoulli\(.*; got Wasserstein\(\)"),
    "number in the objective": ({"objective": Bernoulli(0.4)}, r"class_prior=0.5.*class_prior=0.4"),
    "objective of the generator": ({"objective": Paired(Bernoulli(), ReverseKL())}, r"; got Paired\(.*ReverseKL"),
    "data": ({"data": DATA + 1}, r"data as in the checkpoint, float32 tensor \(96, 2\)"),
    "one number of the data": ({"data": DATA + torch.eye(96)[:, :2] * 1e-3}, "data as in"),
    "prior": ({"prior": dist.Normal(torch.ones(2), torch.ones(2)).to_event(1)}, "prior as in .*mean .*; got .*mean"),
    "width of the prior": ({"prior": dist.Normal(torch.zeros(2), 2 * torch.ones(2)).to_event(1)}, "prior as in"),
    "batch size": ({"batch_size": 16}, "batch_size as in the checkpoint, 8; got 16"),
    "critic steps": ({"critic_steps": 3}, "steps of player 'critic' as in the checkpoint, 2; got 3"),
    "penalty": ({"penalty": GradientPenalty(5.0)}, r"penalty as in .*R1\(.*; got GradientPenalty\(.*weight=5.0"),
    "weight of the penalty": ({"penalty": R1(2.0)}, "penalty as in .*weight=1.0.*weight=2.0"),
    "no penalty": ({"penalty": None}, "penalty as in the checkpoint, R1.*; got None"),
    "average": ({"averaging": 0.99}, "averaging as in the checkpoint, 0.9; got 0.99"),
    "no average": ({"averaging": None}, "averaging as in the checkpoint, 0.9; got None"),
    "activation": ({"activation": nn.Tanh}, r"layer 'layers.1' of critic.module is ReLU\(\) there and Tanh\(\) here"),
    "number in the network": ({"scale": 1.5}, "the critic returns other values than it did"),
    "source of the data": ({"data": loader(), "batch_size": None}, "data as in"),
    "loss on samples": (
        {"objective": MMD(GaussianKernel([1.0])), "penalty": None, "no_critic": True}, "as in the checkpoint",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "gan"
    run(path, num_steps=3)
    raw = path.read_bytes()
    changes, words = OTHERS[name]
    with pytest.raises(ValueError, match=words) as caught:
        run(path, **changes)
    assert str(path) in str(caught.value) and "another path" in str(caught.value)
    assert path.read_bytes() == raw


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    """The control: nothing that was built anew is taken for something else."""
    run(tmp_path / "gan", num_steps=3)
    prior = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    assert run(tmp_path / "gan", prior=prior, data=DATA.clone(), objective=Bernoulli(), penalty=R1(1.0)).num_steps == 5


def test_losses_on_samples_are_told_apart(tmp_path: Path) -> None:
    losses = [MMD(GaussianKernel([1.0])), MMD(GaussianKernel([2.0])), MMD(RationalQuadraticKernel([1.0]))]
    for index, one in enumerate(losses):
        path = tmp_path / str(index)
        run(path, objective=one, penalty=None, no_critic=True, num_steps=2)
        run(path, objective=one, penalty=None, no_critic=True, num_steps=3)
        for other in losses[:index]:
            with pytest.raises(ValueError, match="objective as in the checkpoint"):
                run(path, objective=other, penalty=None, no_critic=True)


@pytest.mark.parametrize(
    "other",
    [loader(DATA[:16]), loader(DATA + 1), loader(batch_size=12), list(DATA.split(8)), DATA],
    ids=lambda x: type(x).__name__,
)
def test_a_loader_of_other_data_is_refused(other: Any, tmp_path: Path) -> None:
    run(tmp_path / "gan", data=loader(), batch_size=None, num_steps=3)
    run(tmp_path / "gan", data=loader(), batch_size=None, num_steps=4)
    with pytest.raises(ValueError, match="data as in the checkpoint"):
        run(tmp_path / "gan", data=other, batch_size=8 if other is DATA else None)


class Stream(IterableDataset[Tensor]):
    """Data without a length."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Any:
        return iter(torch.randn(self.number, 2))


def test_a_shorter_stream_names_the_epoch(tmp_path: Path) -> None:
    """The length of a stream is found out when the position is searched."""
    run(tmp_path / "gan", data=DataLoader(Stream(80), batch_size=8), batch_size=None, num_steps=3)
    with pytest.raises(ValueError, match="at least 9 batches in an epoch; got 2"):
        run(tmp_path / "gan", data=DataLoader(Stream(16), batch_size=8), batch_size=None)


class Noisy(nn.Module):
    """A generator with noise of its own, from torch or from elsewhere."""

    def __init__(self, draw: Callable[[tuple[int, ...]], Tensor]) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(2, 2), draw

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z) + self.draw(tuple(z.shape))


def numpy_noise(shape: tuple[int, ...]) -> Tensor:
    import numpy as np

    return torch.as_tensor(np.random.default_rng().normal(size=shape)).float()


@pytest.mark.parametrize("draw", [torch.randn, numpy_noise])
def test_a_noisy_generator_goes_on(draw: Any, tmp_path: Path) -> None:
    for num_steps in (2, 4):
        generator, critic = Noisy(draw), nn.Linear(2, 1)
        gan = fit_gan(
            generator, critic, prior=PRIOR, data=DATA, objective=Bernoulli(), batch_size=8, num_steps=num_steps,
            generator_optimizer=torch.optim.SGD(generator.parameters(), lr=0.01), progress=False,
            critic_optimizer=torch.optim.SGD(critic.parameters(), lr=0.01), checkpoint=tmp_path / "gan",
        )  # fmt: skip
        assert gan.num_steps == num_steps


def test_checkpoints_leave_the_run_as_it_is(tmp_path: Path, seed: int) -> None:
    ends = []
    for path in (None, tmp_path / "gan"):
        torch.manual_seed(seed)
        gan = run(path, checkpoint_every=1)
        ends.append([*gan.generator.parameters(), torch.get_rng_state()])
    assert all(map(torch.equal, *ends))
