"""fit_log_ratio that is broken off: the best state stays in the network, and a checkpoint is of one run alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from pyro_gan import files
from pyro_gan.objectives import Bernoulli, GradientPenalty
from pyro_gan.ratio import fit_log_ratio
from pyro_gan.training.checkpoint import KIND

PRIOR = Normal(0.0, 1.0).expand([1]).to_event(1)


def fit(data: Tensor, network: nn.Module, generator: Any = None, prior: Any = PRIOR, **options: Any) -> Any:
    generator = nn.Identity() if generator is None else generator
    small = dict(num_steps=60, num_validation_draws=1000, eval_every=10, progress=False)
    return fit_log_ratio(generator, prior, data, network, **small | options)


class Ends(nn.Module):
    """A generator that raises when it has been asked for so many batches of 128."""

    def __init__(self, error: BaseException, at: int) -> None:
        super().__init__()
        self.error, self.left = error, at

    def forward(self, z: Tensor) -> Tensor:
        self.left -= len(z) == 128
        if self.left == 0:
            raise self.error
        return z


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("out of memory")], ids=repr)
def test_any_exception_leaves_the_best_state_that_was_passed(error: Any, tmp_path: Path, seed: int) -> None:
    data = 1.0 + torch.randn(2000, 1)
    networks = []
    for checkpoint in (tmp_path / "fit", None):
        torch.manual_seed(seed)
        networks.append(nn.Linear(1, 1))
        nn.init.zeros_(networks[-1].weight)
        with pytest.raises(type(error)) as caught:
            # Steps that grow until they are far too large, so that the best state is not the last.
            course = {"optimizer": partial(Adam, lr=0.05), "scheduler": partial(ExponentialLR, gamma=1.15)}
            fit(data, networks[-1], Ends(error, at=48), checkpoint=checkpoint, **course)
        assert caught.value is error and not networks[-1].training
    content = files.load(tmp_path / "fit", kind=KIND)
    state, last = content["parts"]["state"], content["parts"]["critic.module"]
    losses = [point[1] for point in state["frontier"]]
    assert content["progress"]["step"] == 40 and min(losses) < losses[-1]
    assert not torch.equal(state["best"]["weight"], last["weight"])
    for network in networks:  # with a checkpoint, and without one
        assert torch.equal(network.weight, state["best"]["weight"])
        assert torch.equal(network.bias, state["best"]["bias"])


def test_before_the_first_evaluation_there_is_nothing_to_go_back_to() -> None:
    network = nn.Linear(1, 1)
    with pytest.raises(KeyboardInterrupt):
        fit(1.0 + torch.randn(2000, 1), network, Ends(KeyboardInterrupt(), at=5))
    assert not network.training


class Scaled(nn.Module):
    """A critic with a number that stands in no layer and no state."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(1, 1), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.scale * x)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "fit", 1.0 + torch.randn(2000, 1)
    fit(data, Scaled(1.0), checkpoint=path)
    others: dict[str, dict[str, Any]] = {
        "batch_size as in the checkpoint, 128; got 64": {"batch_size": 64},
        "penalty as in the checkpoint, None; got GradientPenalty": {"penalty": GradientPenalty(0.1)},
        "real_label=1.0.*real_label=0.9": {"objective": Bernoulli(real_label=0.9)},
        "data, generator and prior of the checkpoint": {"prior": Normal(0.1, 1.0).expand([1]).to_event(1)},
        "network returns other values": {"network": Scaled(1.5)},
        "eval_every as in the checkpoint, 10; got 20": {"eval_every": 20},
    }
    raw = path.read_bytes()
    for words, changes in others.items():
        with pytest.raises(ValueError, match=words) as caught:
            fit(**({"data": data, "network": Scaled(1.0), "checkpoint": path} | changes))
        assert str(path) in str(caught.value) and "another path" in str(caught.value)
        assert path.read_bytes() == raw
    assert fit(data, Scaled(1.0), checkpoint=path).ended == "num_steps: all 60 steps were made"


def test_a_full_disk_stops_no_fit(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="could not be written at step 10 .No space left"):
        log_ratio = fit(1.0 + torch.randn(2000, 1), nn.Linear(1, 1), checkpoint=tmp_path / "fit")
    assert log_ratio.frontier[-1].step == 60 and not list(tmp_path.iterdir())
