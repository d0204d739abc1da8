"""The zoo's WGAN-GP on 25 Gaussians: its log ratios, and the judges of its points."""

from __future__ import annotations

import functools
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, calibrate, fit_log_ratio, toys
from pyro_gan.evaluate import ModeReport, mode_report, residual_auc
from tests import zoo
from tests.numbers.judge import NUM_OUTPUTS, Estimates, shares, truth

__all__ = ["POSTERIORS", "before", "held_out", "judged", "statistics", "true_values"]


class Scale(torch.nn.Module):
    """Scales inputs up, so that a network learns their fine structure faster."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@functools.cache
def own_ratio(seed: int) -> LatentPosterior:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.gaussians25_generator(), zoo.gaussians25_prior()
    with torch.no_grad():
        generated = generator(prior.sample((50_000,)))
    return LatentPosterior(
        generator, calibrate(zoo.gaussians25_critic(), zoo.gaussians25_data(50_000), generated), prior
    )


@functools.cache
def fresh_ratio(seed: int) -> LatentPosterior:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.gaussians25_generator(), zoo.gaussians25_prior()
    ratio = fit_log_ratio(
        generator,
        prior,
        zoo.gaussians25_data(100_000),
        torch.nn.Sequential(Scale(zoo.SCALE), toys.MLP([2, 256, 256, 256, 1])),
        min_ess_fraction=0.02,
        num_steps=2500,
        batch_size=1024,
        eval_every=100,
        optimizer=lambda p: torch.optim.Adam(p, lr=3e-3),
        num_validation_draws=50_000,
        progress=False,
    )
    return LatentPosterior(generator, ratio, prior)


POSTERIORS = {"own critic, Platt": own_ratio, "fresh MLP": fresh_ratio}


def modes(x: Tensor) -> ModeReport:
    return mode_report(x, zoo.gaussians25_means(), sd=zoo.GAUSSIANS25_SD)


def statistics(x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    report = modes(x)
    return {
        "high quality": (torch.tensor(report.high_quality), torch.tensor(report.standard_error)),
        "mode shares": shares(report.counts),
    }


def judged(x: Tensor) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    report = modes(x)
    residual = residual_auc(
        x[:5000], zoo.gaussians25_data(5000), classifier=HistGradientBoostingClassifier(random_state=0)
    )
    return {
        "high_quality": report.high_quality,
        "num_modes": report.num_modes,
        "jsd": report.jsd,
        "mode_sd": report.mode_sd,
        "residual_auc": residual.value,
        "residual_auc_se": residual.standard_error,
    }


@functools.cache
def before(seed: int) -> dict[str, Any]:
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        return judged(zoo.gaussians25_generator()(zoo.gaussians25_prior().sample((NUM_OUTPUTS,))))


@functools.cache
def true_values(ratio: str) -> Estimates:
    """Return the truth for a ratio of seed 0; it is calculated once per session."""
    pyro.set_rng_seed(100)
    return truth(POSTERIORS[ratio](0), statistics)


def held_out() -> Tensor:
    """Return data that no ratio was made from."""
    return zoo.gaussians25_data(5000)
