"""Checkpoints: of another run, bent, half, on a full disk, by time, after Ctrl-C, SIGTERM and SIGKILL."""

from __future__ import annotations

import copy
import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyro.distributions import Categorical, MultivariateNormal, Normal
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset

from pyro_gan import files
from pyro_gan.files import FileError
from pyro_gan.objectives import DRAGAN, R1, Bernoulli, GradientPenalty
from pyro_gan.training import CheckpointError, Player, train
from pyro_gan.training.checkpoint import KIND
from pyro_gan.training.describe import check_outputs, describe, describe_data, structure


def line(steps: int = 1, network: nn.Module | None = None) -> list[Player]:
    model = nn.Linear(1, 1) if network is None else network
    moved = Adam(model.parameters(), lr=0.1)
    return [Player("line", model, moved, lambda x: (model(x) - 3.0 * x).square().mean(), steps)]


def run(path: Path, players: list[Player] | None = None, **options: Any) -> int:
    settings = {"num_steps": 6, "checkpoint": path, "checkpoint_every": 2, "progress": False}
    return train(line() if players is None else players, lambda: torch.randn(4, 1), **(settings | options))


def step(path: Path) -> int:
    return files.load(path, kind=KIND)["progress"]["step"]


class Memory:
    """A state whose loading may fail."""

    def __init__(self, refuses: bool = False) -> None:
        self.value, self.refuses = 1, refuses

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
        if self.refuses and self.value == 5:
            raise RuntimeError("this value is refused")


def everything(players: list[Player], memory: Memory) -> list[Any]:
    states = [part.state_dict() for player in players for part in (player.module, player.optimizer)]
    return copy.deepcopy([states, memory.value, torch.get_rng_state().tolist()])


# What a file may be bent to: each entry changes the content, which is then written with a right checksum.
BENT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no player": (lambda c: c["parts"].pop("line.module"), "line.module"),
    "no optimiser": (lambda c: c["parts"].pop("line.optimizer"), "line.optimizer"),
    "no state": (lambda c: c["parts"].pop("state"), "state"),
    "no generators": (lambda c: c.pop("rng"), "rng"),
    "half a network": (lambda c: c["parts"]["line.module"].pop("bias"), "bias"),
    "half an optimiser": (lambda c: c["parts"]["line.optimizer"].pop("state"), "state"),
    "wrong generators": (lambda c: c["rng"].update(cpu=torch.zeros(3, dtype=torch.uint8)), "does not fit"),
    "a network of another shape": (lambda c: c["parts"]["line.module"].update(bias=torch.zeros(2)), "bias"),
    "step -5": (lambda c: c["progress"].update(step=-5), "-5"),
    "step NaN": (lambda c: c["progress"].update(step=float("nan")), "nan"),
    "step 1e9": (lambda c: c["progress"].update(step=1e9), "1000000000"),
    "step 10**9": (lambda c: c["progress"].update(step=10**9), "num_steps of at least the 1000000000"),
    "step true": (lambda c: c["progress"].update(step=True), "True"),
    "no step": (lambda c: c["progress"].pop("step"), "step"),
    "ended 3": (lambda c: c["progress"].update(ended=3), "ended"),
    "no settings": (lambda c: c.pop("settings"), "settings"),
    "a refused state": (lambda c: c["parts"]["state"].update(value=5), "this value is refused"),
}


@pytest.mark.parametrize("name", BENT)
def test_a_bent_file_is_loaded_not_at_all(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path, num_steps=4, state=Memory())
    content = files.load(path, kind=KIND)
    change, words = BENT[name]
    change(content)
    files.save(path, content, kind=KIND)
    players, memory = line(), Memory(refuses=True)
    run(tmp_path / "other", players, num_steps=1)  # so that the optimiser has a state to lose
    before = everything(players, memory)
    with pytest.raises(CheckpointError, match=f"{path}(.|\n)*") as caught:
        run(path, players, state=memory)
    assert words in str(caught.value) and "another path" in str(caught.value)
    assert str(everything(players, memory)) == str(before)
    assert sorted(os.listdir(tmp_path)) == ["other", "run"]


def test_a_whole_file_is_loaded(tmp_path: Path) -> None:
    """The control of the test above."""
    run(tmp_path / "run", num_steps=4, state=Memory())
    assert run(tmp_path / "run", state=Memory(refuses=True)) == 6


@pytest.mark.parametrize("bad", ["torch", "empty", "cut", "content"])
def test_files_that_are_no_checkpoints_name_path_and_cure(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path)
    if bad == "torch":
        torch.save({"step": 1}, path)
    elif bad == "content":
        files.save(path, [1, 2], kind=KIND)
    else:
        path.write_bytes(path.read_bytes()[: 0 if bad == "empty" else 1000])
    with pytest.raises(ValueError, match=f"{path}.*Give another path"):
        run(path)


class Own(nn.Module):
    """A network whose activation stands in none of its layers."""

    def __init__(self, activation: Callable[[Tensor], Tensor], slope: float = 1.0) -> None:
        super().__init__()
        self.layer, self.activation, self.slope = nn.Linear(1, 1), activation, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.slope * self.layer(x))


def pair(kind: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(1, 1), kind())


NETWORKS: dict[str, tuple[nn.Module, nn.Module]] = {
    "layer": (pair(nn.ReLU), pair(nn.Tanh)),
    "slope of a layer": (pair(nn.LeakyReLU), pair(lambda: nn.LeakyReLU(0.3))),
    "function": (Own(torch.tanh), Own(torch.relu)),
    "function of torch": (Own(nn.functional.relu), Own(nn.functional.silu)),
    "lambda": (Own(lambda x: x), Own(lambda x: x * 2)),
    "closure": (Own((lambda a: lambda x: a * x)(1.0)), Own((lambda a: lambda x: a * x)(2.0))),
    "partial": (Own(functools.partial(torch.mul, other=1.0)), Own(functools.partial(torch.mul, other=2.0))),
    "order": (
        nn.Sequential(nn.Tanh(), nn.Linear(1, 1), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Linear(1, 1), nn.Tanh()),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_other_activations_is_refused(name: str, tmp_path: Path) -> None:
    one, other = NETWORKS[name]
    run(tmp_path / "run", line(network=one), num_steps=2)
    assert run(tmp_path / "run", line(network=copy.deepcopy(one)), num_steps=3) == 3
    with pytest.raises(CheckpointError, match=r"(layer '.*' of )?line.module(\.1\..*)? is .* there and .* here"):
        run(tmp_path / "run", line(network=other))


def test_settings_are_compared_in_words(tmp_path: Path) -> None:
    run(tmp_path / "run", settings={"colour": "red"})
    for settings, words in (
        ({"colour": "blue"}, "Expected colour as in the checkpoint, red; got blue"),
        ({}, "Expected colour as in the checkpoint, red; got absent"),
        ({"colour": "red", "size": "3"}, "Expected size as in the checkpoint, absent; got 3"),
    ):
        with pytest.raises(CheckpointError, match=f"{words}.*another path than {tmp_path / 'run'}"):
            run(tmp_path / "run", settings=settings)
    with pytest.raises(CheckpointError, match="Expected steps of player 'line' as in the checkpoint, 1; got 2"):
        run(tmp_path / "run", line(steps=2), settings={"colour": "red"})
    long = "a" * 1000
    run(tmp_path / "long", settings={"text": long + "b" + long})
    with pytest.raises(CheckpointError, match="aab?aa.*got .*aaca") as caught:
        run(tmp_path / "long", settings={"text": long + "c" + long})
    assert len(str(caught.value)) < 1000


def test_fewer_steps_than_the_file_has_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="num_steps of at least the 6 steps"):
        run(tmp_path / "run", num_steps=5)
    assert run(tmp_path / "run", num_steps=6) == 6


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
def test_a_full_disk_warns_and_training_goes_on(call: str, tmp_path: Path, monkeypatch: Any) -> None:
    path, real = tmp_path / "run", getattr(os, call)

    def full(*args: Any, **options: Any) -> Any:
        if call != "open" or str(args[0]).endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    def callback(done: int, losses: dict[str, float]) -> None:
        if done == 3:
            monkeypatch.setattr(os, call, full)
        if done == 5:
            monkeypatch.undo()

    torch.manual_seed(1)
    whole = line()
    run(path, whole)
    path.unlink()
    torch.manual_seed(1)
    players = line()
    with pytest.warns(UserWarning, match=f"{path} could not be written at step 4 .No space left.*goes on") as found:
        assert run(path, players, callback=callback) == 6
    assert len(found) == 1 and step(path) == 6 and os.listdir(tmp_path) == ["run"]
    assert torch.equal(players[0].module.weight, whole[0].module.weight)


def test_a_folder_that_vanishes_warns(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def callback(done: int, losses: dict[str, float]) -> None:
        if done == 3:
            for entry in folder.iterdir():
                entry.unlink()
            folder.rmdir()

    with pytest.warns(UserWarning, match="could not be written at step [46]"):
        assert run(folder / "run", callback=callback) == 6


def test_time_makes_checkpoints_beside_steps(tmp_path: Path, monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    written: list[int | None] = []

    def callback(done: int, losses: dict[str, float]) -> None:
        now[0] += 25.0
        written.append(step(tmp_path / "run") if (tmp_path / "run").exists() else None)

    run(tmp_path / "run", callback=callback, num_steps=9, checkpoint_every=1000, checkpoint_minutes=1.0)
    assert written == [None, None, None, 3, 3, 3, 6, 6, 6]  # seen before the step's own checkpoint
    for bad in (0, -1.0, float("nan"), "x", None):
        with pytest.raises(ValueError, match="checkpoint_minutes"):
            run(tmp_path / "run", checkpoint_minutes=bad)


def test_two_runs_cannot_share_a_file(tmp_path: Path) -> None:
    def second(done: int, losses: dict[str, float]) -> None:
        with pytest.raises(FileError, match="only writer of .*give another path"):
            run(tmp_path / "run")

    assert run(tmp_path / "run", callback=second, num_steps=2) == 2
    assert run(tmp_path / "run") == 6


@pytest.fixture
def default_handlers() -> Iterator[None]:
    numbers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_step(checkpoint: bool, number: Any, tmp_path: Path, seed: int) -> None:
    """Even one that comes in the middle of the loss leaves networks of a whole step, and the checkpoint of it."""

    def interrupted(players: list[Player], at: int) -> list[Player]:
        calls, loss = [0], players[0].loss

        def raising(x: Tensor) -> Tensor:
            calls[0] += 1
            if calls[0] == at:
                signal.raise_signal(number)
            return loss(x)

        return [players[0]._replace(loss=raising)]

    path = tmp_path / "run" if checkpoint else None
    torch.manual_seed(seed)
    three = line()
    run(None, three, num_steps=3)
    torch.manual_seed(seed)
    whole = line()
    run(None, whole)
    torch.manual_seed(seed)
    broken = line()
    with pytest.raises(KeyboardInterrupt):
        run(path, interrupted(broken, at=3), checkpoint_every=100)
    assert torch.equal(broken[0].module.weight, three[0].module.weight)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if checkpoint:
        assert step(path) == 3
        again = line()
        run(path, again)
        assert torch.equal(again[0].module.weight, whole[0].module.weight)
    with pytest.raises(KeyboardInterrupt):  # the second of two signals does not wait
        run(tmp_path / "none", [players._replace(loss=lambda x: twice(number)) for players in line()])
    assert not (tmp_path / "none").exists()


def twice(number: int) -> Tensor:
    signal.raise_signal(number)
    signal.raise_signal(number)
    raise AssertionError("the second signal did not wait")


@pytest.mark.usefixtures("default_handlers")
def test_a_handler_of_the_user_is_kept(tmp_path: Path) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    assert run(tmp_path / "run", callback=lambda done, losses: signal.raise_signal(signal.SIGTERM)) == 6
    assert heard == [signal.SIGTERM] * 6


# What describes a setting: equal for equal settings, different for others, the same in every process.


def test_descriptions_tell_settings_apart() -> None:
    settings: list[Any] = [
        1, 1.0, True, None, "1", [1], (1, 2), {"a": 1}, {1, 2}, Bernoulli(), Bernoulli(0.4), R1(), R1(5.0), DRAGAN(),
        DRAGAN(noise=torch.rand_like), DRAGAN(noise=lambda x: x), DRAGAN(noise=lambda x: 2 * x), GradientPenalty(),
        torch.relu, nn.functional.silu, torch.zeros(2), torch.ones(2), torch.zeros(2, dtype=torch.float64),
        Normal(0.0, 1.0), Normal(0.0, 2.0), Normal(1.0, 1.0), Normal(torch.zeros(2), 1.0).to_event(1),
        Categorical(torch.tensor([0.5, 0.5])), Categorical(torch.tensor([0.4, 0.6])), nn.Linear(2, 1), nn.Linear(1, 2),
        functools.partial(torch.add, alpha=2), functools.partial(torch.add, alpha=3), Bernoulli, Bernoulli().log_ratio,
    ]  # fmt: skip
    texts = [describe(value) for value in settings]
    assert len(set(texts)) == len(texts)
    assert [describe(value) for value in copy.deepcopy(settings)] == texts


def test_a_distribution_is_described_without_a_trace() -> None:
    prior = MultivariateNormal(torch.zeros(2), covariance_matrix=torch.eye(2))
    before, text = torch.get_rng_state(), describe(prior)
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        prior.precision_matrix.shape == (2, 2) and describe(prior) == text
    )  # what it has computed since is no setting


def test_a_description_is_the_same_in_another_process() -> None:
    """The order of sets and the addresses of objects are not."""
    value = "[lambda x: x in {'a', 'b', 'c', 'd', 'e'}, set('uvwxyz'), Normal(0.0, 1.0), object(), torch.ones(2)]"
    code = f"""import torch
from pyro.distributions import Normal
from pyro_gan.training.describe import describe
print(describe({value}))"""
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    names = {"Normal": Normal, "torch": torch, "__name__": "__main__"}
    assert done.stdout.strip() == describe(eval(value, names)) and "object()" in done.stdout


def test_data_are_told_apart() -> None:
    x = torch.randn(64, 2)
    one_bit = x.clone()
    one_bit[40, 1] += 1e-6

    def loader(data: Tensor, **options: Any) -> DataLoader[Any]:
        return DataLoader(TensorDataset(data), **({"batch_size": 8, "shuffle": True} | options))

    sources: list[Any] = [
        x, one_bit, x[:63], x.double(), [x], list(x.split(8)), list(x.split(4)), loader(x), loader(x[:32]),
        loader(x + 1), loader(x, batch_size=16), loader(x, shuffle=False), loader(x, drop_last=True), [],
    ]  # fmt: skip
    before = torch.get_rng_state()
    texts = [describe_data(source) for source in sources]
    assert len(set(texts)) == len(texts) and [describe_data(source) for source in sources] == texts
    assert torch.equal(torch.get_rng_state(), before)


def test_random_items_are_no_setting() -> None:
    class Crops(torch.utils.data.Dataset[Tensor]):
        calls = 0

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Tensor:
            self.calls += 1
            return torch.full((1,), float(self.calls))

    assert describe_data(Crops()) == "Crops, of 5"


def test_equal_structures_that_compute_something_else() -> None:
    assert structure(Own(torch.tanh, 1.0)) == structure(Own(torch.tanh, 2.0))
    check_outputs("critic", torch.ones(3), torch.ones(3) + 1e-6)
    check_outputs("critic", torch.full((3,), torch.nan), torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="the critic returns other values"):
        check_outputs("critic", torch.ones(3), torch.tensor([1.0, 1.0, 1.1]))
