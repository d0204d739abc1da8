"""The demo's two log ratios: the GAN's own critic, calibrated, and a fresh critic, fitted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import LatentPosterior, calibrate, fit_log_ratio
from pyro_gan.demo.gan import GAN, PixelScale, Splits
from pyro_gan.demo.settings import Settings
from pyro_gan.importance import WeightTail
from pyro_gan.objectives import Bernoulli
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport, diagnose
from pyro_gan.ratio.heads import LogRatio

__all__ = ["Ratio", "fit_fresh", "make_own", "verdict"]

#: Generated rows that `calibrate` chooses from: more than any class of real digits.
NUM_GENERATED = 2000


class Ratio(NamedTuple):
    """A log ratio, the target it makes, and what is known of both before anything is sampled."""

    name: str
    log_ratio: nn.Module
    posterior: LatentPosterior
    tail: WeightTail
    #: How the ratio was made, in words.
    made: str
    #: Real digits that its critic has not trained on.
    unseen: Float[Tensor, "draw 1 8 8"]
    #: What a fit passed on its way; empty otherwise.
    frontier: tuple[FrontierPoint, ...] = ()


def make_own(gan: GAN, splits: Splits, settings: Settings) -> Ratio:
    """Calibrate the GAN's own critic, which has seen neither part that this uses."""
    generated = gan.generator(gan.prior.sample((NUM_GENERATED,)))
    log_ratio = calibrate(gan.critic, splits.ratio, generated, seed=settings.seed)
    report = log_ratio.report
    assert report is not None
    made = (
        f"Platt {', '.join(f'{name} {value:.2f}' for name, value in report.parameters.items())}, "
        f"cap {report.cap:.2f} nats; fitted on {report.num_fit} digits, held out {report.num_held_out}"
    )
    return _ratio("own critic, calibrated", log_ratio, gan, settings, made, splits.ratio)


def fit_fresh(gan: GAN, splits: Splits, settings: Settings, *, progress: bool) -> Ratio:
    """Fit a fresh critic to digits that the GAN has not seen."""
    critic = _make_critic(splits.ratio, settings)
    log_ratio = fit_log_ratio(
        gan.generator,
        gan.prior,
        splits.ratio,
        critic,
        min_ess_fraction=settings.min_ess_fraction,
        num_steps=settings.ratio_max_steps,
        # A tenth of so few digits could not tell one evaluation from the next.
        validation_fraction=0.3,
        eval_every=settings.ratio_eval_every,
        progress=progress,
    )
    best = min(log_ratio.frontier, key=lambda p: (p.ess_fraction < settings.min_ess_fraction, p.log_loss))
    made = f"step {best.step} of {log_ratio.frontier[-1].step} had the lowest held-out loss"
    fresh = _ratio("fresh critic, fitted", log_ratio, gan, settings, made, splits.gan)
    return fresh._replace(frontier=log_ratio.frontier)


def verdict(
    log_ratio: nn.Module, real: Float[Tensor, "draw 1 8 8"], generated: Float[Tensor, "draw 1 8 8"]
) -> RatioReport:
    """Judge a log ratio, or a raw critic of logits, on digits that neither training nor calibration saw."""
    as_ratio = log_ratio if isinstance(log_ratio, LogRatio) else LogRatio(log_ratio, Bernoulli())
    with torch.no_grad():
        return diagnose(as_ratio(real), as_ratio(generated))


def _make_critic(real: Tensor, settings: Settings) -> nn.Module:
    """Return a small convolutional critic: so few digits teach it more than they teach one without weights to share."""
    dropout = settings.ratio_dropout
    layers = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32 * 4 * 4, 64),
        nn.SiLU(),
        nn.Dropout(dropout),
        nn.Linear(64, 1),
    ]
    return nn.Sequential(PixelScale(real), *layers).to(settings.device)


def _ratio(
    name: str,
    log_ratio: nn.Module,
    gan: GAN,
    settings: Settings,
    made: str,
    unseen: Float[Tensor, "draw 1 8 8"],
) -> Ratio:
    posterior = LatentPosterior(gan.generator, log_ratio, gan.prior)
    return Ratio(name, log_ratio, posterior, posterior.check(settings.check_draws), made, unseen)
