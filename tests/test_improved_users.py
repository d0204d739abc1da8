"""`improve` in the hands of users: tables, copies, other units, few rows, conditional generators, hopeless ratios."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, improve
from pyro_gan.evaluate.change import FrechetChange
from pyro_gan.evaluate.temperature import TemperatureStep
from pyro_gan.improved import ImprovedGenerator, one_call, resample

PRIOR = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here needs no precision."""
    monkeypatch.setattr(one_call, "NUM_DRAWS", 3000)
    monkeypatch.setattr("pyro_gan.evaluate.temperature._NUM_BOOTSTRAP", 20)
    monkeypatch.setattr("pyro_gan.evaluate.temperature._FEW_BOOTSTRAP", 20)


def identity(x: Tensor) -> Tensor:
    return x


def line(x: Tensor) -> Tensor:
    return x.sum(1)


def data(num_rows: int, shift: float = 1.0) -> Tensor:
    return torch.randn(num_rows, 2) + shift


def improved(real: Tensor, **changes: Any) -> ImprovedGenerator:
    arguments = {"prior": PRIOR, "critic": line, "features": identity} | changes
    return improve(arguments.pop("generator", identity), real, **arguments)


def test_a_ratio_of_few_effective_draws_is_not_certified() -> None:
    """The exact ratio of N(3, .5^2) to N(0, 1) leaves some ten of 3000 draws; flatter powers leave enough."""
    better = improved(data(600, 6.0) / 2, critic=lambda x: x.square().sum(1) / 2 - 2 * (x - 3).square().sum(1))
    assert all(step.change.ess >= 100 for step in better.report.certified if step.improves)
    assert better.temperature > 1


def test_data_in_other_units_are_noticed_with_a_critic_too() -> None:
    report = improved(torch.rand(400, 2) * 255, generator=torch.tanh, critic=line).report
    assert any("different ranges" in message for message in report.messages)


def test_copies_among_the_real_rows_are_mentioned() -> None:
    rows = data(300).repeat(2, 1)
    messages = improved(rows).report.messages
    assert "300 of 600 real rows are copies of others" in messages[0] and "pass each once" in messages[0]


@pytest.mark.parametrize("discrete", [False, True])
def test_rare_copies_and_those_of_discrete_data_are_nothing_to_mention(discrete: bool) -> None:
    def coarse(z: Tensor) -> Tensor:
        return z.round()

    rows, change = (data(400).round(), {"generator": coarse}) if discrete else (data(400), {})
    rows[0] = rows[1]
    assert not any("copies" in message for message in improved(rows, **change).report.messages)


def test_a_network_takes_as_few_rows_as_a_critic() -> None:
    better = improved(data(400), critic=None, network=nn.Linear(2, 1), max_seconds=1, progress=False)
    assert better.report.ratio == "fresh critic"


def test_a_row_is_one_number() -> None:
    better = improved(data(400)[:, 0], generator=lambda z: z[:, 0], critic=identity, features=None)
    assert better.temperature < 2 and better(5).shape == (5,)


def test_what_certifies_has_chosen_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default features come from the rows that fit; other rows and draws choose, and again others certify."""
    monkeypatch.setattr(one_call, "MAX_JUDGING_ROWS", 110)
    real = data(500)
    seen, made_of = [], []

    def features(rows: Tensor) -> Tensor:
        seen.append(rows)
        return rows

    monkeypatch.setattr(one_call, "RandomFeatures", lambda rows, *, seed: made_of.append(rows) or features)
    report = improved(real, features=None).report
    assert report.num_real == (280, 110, 110) and report.certified
    known = {tuple(row) for row in real.tolist()}
    used = {tuple(row) for rows in seen for row in rows.tolist()}
    fitted = {tuple(row) for row in made_of[0].tolist()}
    assert len(fitted) == 280 and len(used & known) == 220 and not used & fitted
    # Draws choose, certify, and are checked.
    assert len(used - known) > 2.9 * one_call.NUM_DRAWS


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_powers_that_helped_up_to_the_chosen_one_are_tested(power: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small power may harm where larger ones help: it is not tested, because its failure would end the tests."""
    change = FrechetChange(1.0, 0.5, -0.5, 0.1, 1000.0)
    steps = tuple(TemperatureStep(p, change, p in (0.25, 1.0)) for p in (0.125, 0.25, 0.5, 1.0))
    tested: list[list[float]] = []

    def certify(*_: Tensor, inverse_temperatures: list[float], seed: int) -> tuple[float, tuple[TemperatureStep, ...]]:
        tested.append(inverse_temperatures)
        return 0.25, steps[1:2]

    monkeypatch.setattr(one_call, "choose_temperature", lambda *_, seed: (power, steps))
    monkeypatch.setattr(one_call, "certify_temperature", certify)
    better = improved(data(400))
    assert tested == {0.0: [], 0.5: [[0.25, 0.5]], 1.0: [[0.25, 1.0]]}[power]
    assert better.temperature == (4.0 if power else math.inf)


def test_the_report_has_what_is_said_of_the_ratio_and_by_the_check() -> None:
    """A critic of the wrong sign is named by the calibration, and one that harms by the check."""
    report = improved(data(400), critic=lambda x: -line(x)).report
    assert any("calibrated critic: The critic scores real data no higher" in message for message in report.messages)
    report = improved(data(400, 20.0)).report
    assert any("mean ratio over generated data" in message for message in report.messages)
    assert report.check is not None and all(text in str(report) for text in report.messages)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prior": {"z": PRIOR}}, "prior to be a distribution"),
        ({"prior": None}, "prior to be a distribution"),
        ({"generator": lambda z, y: z + y}, "conditional one for one condition"),
        ({"generator": nn.Sequential(nn.BatchNorm1d(2))}, "evaluation mode"),
        ({"real": torch.ones(400, 2), "features": None}, "equal rows"),
    ],
)
def test_errors_say_what_is_wrong(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        improved(change.pop("real", data(400)), **change)


@pytest.mark.parametrize(("scale", "each"), [(0.0, 10), (1000.0, 1000)])
def test_resampling_ends_however_few_draws_are_effective(scale: float, each: int, monkeypatch) -> None:
    """Ten draws an output where all are effective and a thousand at most, in rounds that fit into memory."""
    monkeypatch.setattr("pyro_gan.improved.generator.MAX_POOL", 40_000)
    sizes = []

    def critic(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return -scale * x.square().sum(1)

    posterior = LatentPosterior(identity, critic, PRIOR)
    sizes.clear()
    z = resample(posterior, 110)
    assert z.shape == (110, 2)
    # Ten thousand find out the share, and each round tries a few rows before.
    assert each * 110 <= sum(sizes) - 10_000 < each * 110 + 800
    assert float(z.std()) == pytest.approx(1 / math.sqrt(1 + 2 * scale), rel=0.3)
