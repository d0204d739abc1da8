"""A log ratio in a file: the same values, map, guard, constant, objective and report, around a fresh network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LogRatio, calibrate, fit_log_ratio, objectives
from pyro_gan.objectives import KLIEP, Bernoulli, Objective, Spherical
from pyro_gan.ratio import (
    Beta,
    CalibratedLogRatio,
    Isotonic,
    MeanLogRatio,
    MonotoneSpline,
    Platt,
    Temperature,
    load_log_ratio,
    save_log_ratio,
)
from tests.registry import concrete_members

REAL, GENERATED = torch.randn(400, 2) + 0.5, torch.randn(500, 2)
X = torch.randn(30, 2)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).eval()


def around(log_ratio: nn.Module, path: Path, *critics: Any) -> Any:
    save_log_ratio(log_ratio, path)
    return load_log_ratio(path, critics[0] if len(critics) == 1 else list(critics))


@pytest.mark.parametrize("method", [Platt, Temperature, Beta, MonotoneSpline, Isotonic])
def test_a_calibration_comes_back_whole(method, tmp_path: Path) -> None:
    saved = calibrate(network(), REAL, GENERATED, method=method())
    loaded = around(saved, tmp_path / "ratio.safetensors", network())
    assert torch.equal(loaded(X), saved(X)) and loaded.upper_bound == saved.upper_bound is not None
    assert str(loaded.report) == str(saved.report) and loaded.report.num_fit == saved.report.num_fit
    assert type(loaded.calibrator) is method and type(loaded.report.after) is type(saved.report.after)


def objective(name: str) -> Objective:
    """Return an objective with other arguments than the defaults, where there are some."""
    if name == "Normalised":
        return LogRatio.normalised(network(), KLIEP(), generated=GENERATED).objective
    kind = getattr(objectives, name)
    inner = {"Minimax": (Bernoulli(),), "Paired": (Bernoulli(0.3), Spherical())}
    return kind(*inner.get(name, (0.3,) if issubclass(kind, objectives.ScoringRule) else ()))


def leaves_a_ratio(name: str) -> bool:
    try:
        objective(name).log_ratio(torch.empty(0))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", [*filter(leaves_a_ratio, concrete_members(objectives, Objective))])
def test_every_objective_that_leaves_a_ratio_comes_back(name: str, tmp_path: Path) -> None:
    def critic() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 1), nn.Hardsigmoid())  # every objective takes outputs in (0, 1)

    saved = LogRatio(critic(), objective(name))
    loaded = around(saved, tmp_path / "ratio.safetensors", critic())
    assert repr(loaded.objective) == repr(saved.objective) and type(loaded.objective) is type(saved.objective)
    with torch.no_grad():
        assert torch.equal(loaded(X), saved(X))


def test_a_fresh_ratio_and_a_mean_come_back(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_steps": 20, "eval_every": 10, "progress": False}
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
    saved = fit_log_ratio(nn.Identity(), prior, REAL.repeat(3, 1), network(), **options)
    loaded = around(saved, tmp_path / "ratio.safetensors", network())
    assert torch.equal(loaded(X), saved(X)) and loaded.ended == saved.ended
    assert loaded.frontier == saved.frontier and str(loaded.report) == str(saved.report)
    mean = LogRatio(MeanLogRatio([LogRatio(network(), Bernoulli(0.3)), network()]), Bernoulli())
    loaded = around(mean, tmp_path / "ratio.safetensors", network(), network())
    assert torch.equal(loaded(X), mean(X))
    for critics, said in (([network()], "too few"), ([network()] * 3, "fewer networks than 3")):
        with pytest.raises(ValueError, match=said):
            load_log_ratio(tmp_path / "ratio.safetensors", critics)


def test_probabilities_functions_and_nested_ratios_come_back(tmp_path: Path) -> None:
    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network()

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.layers(x))

    odds = LogRatio.from_probability(Discriminator())
    assert torch.equal(around(odds, tmp_path / "a.safetensors", Discriminator())(X), odds(X))
    nested = calibrate(LogRatio(network(), Bernoulli(0.3)), REAL, GENERATED)
    assert torch.equal(around(nested, tmp_path / "b.safetensors", network())(X), nested(X))

    def function(x: Tensor) -> Tensor:
        return x.sum(-1)

    plain = calibrate(function, REAL, GENERATED)
    assert torch.equal(around(plain, tmp_path / "c.zip", function)(X), plain(X))


def test_weights_go_into_the_network_that_is_given(tmp_path: Path) -> None:
    fresh = network()
    loaded = around(LogRatio(network(), Bernoulli(0.3)), tmp_path / "ratio.safetensors", fresh)
    assert loaded.critic is fresh


def test_other_networks_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    save_log_ratio(LogRatio(network(), Bernoulli(0.3)), tmp_path / "ratio.safetensors")
    wide = nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 1))
    other = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    for critic in (wide, other, lambda x: x.sum(-1)):
        before = {name: value.clone() for name, value in getattr(critic, "state_dict", dict)().items()}
        with pytest.raises(ValueError, match="of the layers that were saved"):
            load_log_ratio(tmp_path / "ratio.safetensors", critic)
        assert all(torch.equal(value, before[name]) for name, value in getattr(critic, "state_dict", dict)().items())

    class Hidden(nn.Module):
        """Layers that its `repr` does not show."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(size))

        def forward(self, x: Tensor) -> Tensor:
            return x.sum(-1) * self.weight.sum()

    save_log_ratio(LogRatio(Hidden(3), Bernoulli(0.3)), tmp_path / "ratio.safetensors")
    with pytest.raises(ValueError, match=r"'critic.weight' is of shape \(3,\) there and of shape \(4,\) here"):
        load_log_ratio(tmp_path / "ratio.safetensors", Hidden(4))


def test_what_a_file_cannot_name_is_refused(tmp_path: Path) -> None:
    class Own(Platt):
        pass

    with pytest.raises(ValueError, match="map of pyro_gan.ratio; got Own"):
        save_log_ratio(CalibratedLogRatio(network(), method=Own()), tmp_path / "ratio.safetensors")
    with pytest.raises(ValueError, match="log_ratio"):
        save_log_ratio(network(), tmp_path / "ratio.safetensors")
    assert not list(tmp_path.iterdir())
