"""What calibration does to the log loss, the overlap and the samples of a real critic; the three differ."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch

from pyro_gan import ImportanceResampler, LatentPosterior, LogRatio, calibrate
from pyro_gan.evaluate import frechet_distance, mode_report
from pyro_gan.objectives import Bernoulli
from pyro_gan.ratio import Beta, Isotonic, MonotoneSpline, Platt, RatioReport, Temperature
from tests import zoo
from tests.numbers import mnist
from tests.numbers.size import SEEDS

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore")]
METHODS = {
    "temperature": Temperature(),
    "platt": Platt(),
    "beta": Beta(),
    "spline": MonotoneSpline(),
    "isotonic": Isotonic(),
}
NUM_OUTPUTS = 10_000


def resampled(gan: LatentPosterior, num_draws: int) -> tuple[torch.Tensor, dict[str, Any]]:
    samples, _, report = ImportanceResampler(gan, min_ess=1)(NUM_OUTPUTS, num_draws)
    figures = {"ess_fraction": report.tail.ess_fraction, "pareto_k": report.tail.pareto_k}
    return gan.decode(samples["z"]), figures | {"distinct": report.distinct / NUM_OUTPUTS}


def of_report(report: RatioReport) -> dict[str, float]:
    return {key: getattr(report, key) for key in ("log_loss", "slope", "ece", "auc")}


@pytest.mark.parametrize("seed", SEEDS)
def test_mnist_discriminator(seed: int, figure) -> None:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.mnist_generator(), zoo.mnist_prior()
    real, judge = mnist.digits()
    with torch.no_grad():
        generated = generator(prior.sample((len(real),)))
        fresh = generator(prior.sample((NUM_OUTPUTS,)))
    features = mnist.features(judge)
    raw = LogRatio(zoo.mnist_discriminator(), Bernoulli())
    # Every method splits the rows in the same way, so the raw discriminator is judged by the same rows.
    before = calibrate(raw, real, generated).report.before
    losses = {}
    for method in (None, *METHODS):
        ratio = raw if method is None else calibrate(raw, real, generated, method=METHODS[method])
        report = before if method is None else ratio.report.after
        x, figures = resampled(LatentPosterior(generator, ratio, prior), 100_000)
        losses[method] = report.log_loss
        figure(
            "calibration",
            pair="mnist",
            method=method or "none",
            seed=seed,
            **of_report(report),
            **figures,
            frechet=frechet_distance(mnist.features(x), features),
        )
    figure("calibration", pair="mnist", method="generator alone", seed=seed,
           frechet=frechet_distance(mnist.features(fresh), features))  # fmt: skip
    # Measured by the log loss, which it is fitted for, every map is better than no map.
    assert max(loss for method, loss in losses.items() if method) < losses[None]


def test_25_gaussians_critic(figure) -> None:
    pyro.set_rng_seed(0)
    generator, prior = zoo.gaussians25_generator(), zoo.gaussians25_prior()
    with torch.no_grad():
        generated = generator(prior.sample((50_000,)))
    real = zoo.gaussians25_data(50_000)
    quality = {}
    for method in METHODS:
        ratio = calibrate(zoo.gaussians25_critic(), real, generated, method=METHODS[method])
        x, figures = resampled(LatentPosterior(generator, ratio, prior), 200_000)
        modes = mode_report(x, zoo.gaussians25_means(), sd=zoo.GAUSSIANS25_SD)
        quality[method] = modes.high_quality
        figure(
            "calibration",
            pair="gaussians25",
            method=method,
            seed=0,
            **of_report(ratio.report.after),
            **figures,
            high_quality=modes.high_quality,
            jsd=modes.jsd,
        )
    alone = mode_report(generated, zoo.gaussians25_means(), sd=zoo.GAUSSIANS25_SD).high_quality
    # A better map gains a few points of quality; a critic that knows more would gain tens of points.
    assert alone < min(quality.values()) and max(quality.values()) < 0.65
