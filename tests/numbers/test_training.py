"""Pairs trained by `fit_gan`: WGAN-GP in the plane with the gain by resampling, and objectives on parallel planes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, calibrate, fit_log_ratio, toys
from pyro_gan.evaluate import mode_report, transport_distance
from pyro_gan.ratio import diagnose
from tests.numbers.pairs import CHOSEN, METHODS, NEAR_OPTIMUM, Pair, parallel_planes, plane_wgan
from tests.pages import ROOT

pytestmark = pytest.mark.numbers
NUM_OUTPUTS, NUM_DRAWS = 10_000, 300_000


class Scaled(nn.Module):
    """Multiplies the input, so that the fine structure of the data has a scale that a network learns."""

    def __init__(self, factor: float, network: nn.Module) -> None:
        super().__init__()
        self.factor, self.network = factor, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.factor * x)


def own_critic(pair: Pair, real: Tensor) -> nn.Module:
    """Return the critic that trained the generator, calibrated on new data."""
    return calibrate(pair.critic, real, pair.generate(len(real)))


def fresh_critic(pair: Pair, real: Tensor) -> nn.Module:
    """Return a critic fitted to the finished generator."""
    return fit_log_ratio(
        pair.generator,
        pair.prior,
        real,
        Scaled(6.0, toys.MLP([2, 128, 128, 128, 1])),
        min_ess_fraction=0.02,
        num_steps=3000,
        batch_size=512,
        eval_every=100,
        optimizer=lambda p: torch.optim.Adam(p, lr=3e-3),
        num_validation_draws=20_000,
        progress=False,
    )


def outputs(pair: Pair, real: Tensor) -> dict[str, tuple[Tensor, dict[str, Any]]]:
    """Return 10 000 points from the generator alone and from each ratio, with the diagnostics of the ratio's tail."""
    found: dict[str, tuple[Tensor, dict[str, Any]]] = {"generator alone": (pair.generate(NUM_OUTPUTS), {})}
    for name, make in {"own critic, calibrated": own_critic, "fresh critic": fresh_critic}.items():
        gan = LatentPosterior(pair.generator, make(pair, real), pair.prior)
        result = ImportanceResampler(gan)(NUM_OUTPUTS, NUM_DRAWS)
        tail = result.report.tail
        found[name] = (gan.decode(result.samples["z"]), {"ess_fraction": tail.ess_fraction, "pareto_k": tail.pareto_k})
    return found


def gaussians25_pair(seed: int) -> tuple[Pair, Tensor, Tensor]:
    """Return a pair trained on 25 Gaussians, data for ratios, and held-out data."""
    mixture = toys.gaussians25()
    pyro.set_rng_seed(100 + seed)
    training, real, held_out = (mixture.sample((n,)) for n in (50_000, 50_000, NUM_OUTPUTS))
    return plane_wgan(training, seed), real, held_out


def roll_pair(seed: int) -> tuple[Pair, Tensor, Tensor]:
    """Return the same for the Swiss roll."""
    toy = toys.swiss_roll()
    pyro.set_rng_seed(100 + seed)
    training, real, held_out = (toy.sample_data(n) for n in (50_000, 50_000, NUM_OUTPUTS))
    return plane_wgan(training, seed, num_steps=2000), real, held_out


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Run on one thread, which is faster for networks as small as these."""
    torch.set_num_threads(1)


@pytest.mark.full
@pytest.mark.parametrize("seed", [0])
def test_wgan_gp_on_25_gaussians_and_the_gain_by_resampling(seed: int, figure) -> None:
    mixture = toys.gaussians25()
    pair, real, _ = gaussians25_pair(seed)
    reports = {}
    for name, (x, tail) in outputs(pair, real).items():
        reports[name] = report = mode_report(x, mixture.means, sd=mixture.scale)
        figure("WGAN-GP on 25 Gaussians", outputs=name, seed=seed, seconds=pair.seconds, **report._asdict(), **tail)
    alone, own, fresh = reports.values()
    assert all(report.num_modes == 25 for report in reports.values())
    # The public pair, which was trained longer, has .39.
    assert alone.high_quality > 0.45
    assert fresh.high_quality > max(own.high_quality, alone.high_quality) + 0.1


@pytest.mark.parametrize("seed", [0])
def test_wgan_gp_on_the_swiss_roll_and_the_gain_by_resampling(seed: int, figure) -> None:
    toy = toys.swiss_roll()
    pair, real, held_out = roll_pair(seed)
    found = outputs(pair, real)
    found["data themselves"] = toy.sample_data(NUM_OUTPUTS), {}
    off_roll, distances = {}, {}
    for name, (x, tail) in found.items():
        off_roll[name] = float((toys.roll_distance(x) > 4).double().mean())
        distances[name] = distance = transport_distance(x, held_out)
        figure(
            "WGAN-GP on the Swiss roll",
            outputs=name,
            seed=seed,
            seconds=pair.seconds,
            off_roll=off_roll[name],
            **distance._asdict(),
            **tail,
        )
    assert off_roll["fresh critic"] < off_roll["generator alone"] / 2


@pytest.mark.full
def test_the_default_of_a_fresh_ratio_reaches_the_plateau(figure) -> None:
    """1000 steps, once the default, learn next to nothing of the Swiss roll with this small network."""
    pair, real, held_out = roll_pair(0)
    generated = pair.generate(NUM_OUTPUTS)
    reports = []
    for settings in ({"num_steps": 1000}, {"max_seconds": 600.0}):
        pyro.set_rng_seed(0)
        network = Scaled(6.0, toys.MLP([2, 64, 64, 1]))
        ratio = fit_log_ratio(pair.generator, pair.prior, real, network, progress=False, **settings)
        with torch.no_grad():
            report = diagnose(ratio(held_out), ratio(generated))
        reports.append(report)
        figure(
            "default of a fresh ratio on the Swiss roll",
            **settings,
            ended=ratio.ended,
            steps=ratio.frontier[-1].step,
            log_loss=report.log_loss,
            auc=report.auc,
            slope=report.slope,
            ess_fraction=report.tail.ess_fraction,
        )
    # Two fresh critics of equal quality differ by less than .01.
    assert reports[1].log_loss < reports[0].log_loss - 0.05


@pytest.mark.parametrize("latent_dim, dim", list(CHOSEN))
def test_objectives_on_parallel_planes(latent_dim: int, dim: int, figure) -> None:
    """All generators start at a distance of 1 from the data, and the supports do not touch."""
    transport = {}
    for method in METHODS:
        settings = {"near its optimum": NEAR_OPTIMUM, "tuned": CHOSEN[latent_dim, dim][method]}
        for critic, (rate, critic_steps) in settings.items():
            found = [
                parallel_planes(method, seed, latent_dim=latent_dim, dim=dim, rate=rate, critic_steps=critic_steps)
                for seed in (0, 1, 2)
            ]
            transport[method, critic] = [run.transport for run in found]
            figure(
                "parallel planes",
                latent_dim=latent_dim,
                dim=dim,
                method=method,
                critic=critic,
                rate=rate,
                critic_steps=critic_steps,
                off_plane=[run.off_plane for run in found],
                transport=transport[method, critic],
                spread=[run.spread for run in found],
            )
    # The divergence is constant, so the loss that minimises it does not move; the other losses keep a gradient.
    stays = min(transport["saturating GAN", "near its optimum"])
    assert stays > 0.7
    for method in METHODS:
        assert max(transport[method, "tuned"]) < 0.75 * stays


@pytest.mark.parametrize("engine", ["accelerate", "lightning"])
def test_other_engines_run_the_code_of_the_page(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their blocks have the mark `py`, because neither library is a dependency."""
    pytest.importorskip(engine, reason=f"{engine} is no dependency, and is not installed")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/howto/training_loops.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    (theirs,) = (b for b in re.findall(r"^```py\n(.*?)^```", page, flags=re.M | re.S) if engine in b)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n".join([*blocks, theirs]), engine, "exec"), names)
    generated = names["trained"](torch.randn(100, 2))
    assert generated.shape == (100, 2) and bool(generated.isfinite().all())
