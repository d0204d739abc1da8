"""A fresh ratio of features beside one of pixels, on the zoo's digits: overlap, mean ratio, resampled outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, fit_log_ratio, toys
from pyro_gan.evaluate import classifier_score, frechet_distance
from tests import zoo
from tests.numbers import mnist
from tests.numbers.judge import NUM_OUTPUTS

pytestmark = [pytest.mark.numbers, pytest.mark.full]

#: Steps of each fit: figures do not depend on the load of the machine. The convolutional generator is slow, and a
#: hundred steps tell its pixels apart.
NUM_STEPS = {"mnist_mlp_gan": 300, "mnist_wgan_gp": 150}
NUM_DRAWS = 30_000


class Encoder(nn.Module):
    """LeNet without its last layer, in units of the size of a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.network = zoo.lenet()

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x) / 5


def of_features() -> nn.Module:
    encoder = Encoder().eval().requires_grad_(False)
    return nn.Sequential(encoder, toys.MLP([84, 128, 128, 1], lambda: nn.Sequential(nn.SiLU(), nn.Dropout(0.2))))


GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "mnist_mlp_gan": zoo.mnist_generator,
    "mnist_wgan_gp": zoo.mnist_wgan_generator,
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {"pixels": mnist.conv_critic, "features": of_features}


@pytest.mark.parametrize("pair", GENERATORS)
def test_a_ratio_of_features_beside_one_of_pixels(pair: str, figure) -> None:
    """LeNet's features make one ratio and judge both, so the moments of pixels judge them too."""
    generator, prior = GENERATORS[pair](), zoo.mnist_prior()
    overlap = {}
    for of, network in NETWORKS.items():
        pyro.set_rng_seed(0)
        data = zoo.mnist_train().images[:50_000]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ratio = fit_log_ratio(
                generator,
                prior,
                data,
                network(),
                num_steps=NUM_STEPS[pair],
                eval_every=10,  # of the WGAN-GP's features the overlap is gone within 50 steps
                num_validation_draws=3000,
                max_seconds=3600,
                progress=False,
            )
        report = ratio.report
        assert report is not None
        gan = LatentPosterior(generator, ratio, prior)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check = gan.check(mnist.held_out(), num_draws=5000)
            resampled = ImportanceResampler(gan, min_ess=1)(NUM_OUTPUTS, NUM_DRAWS)
        moments = check.moments
        assert moments is not None
        overlap[of] = report.auc
        figure(
            "ratio of features",
            pair=pair,
            of=of,
            steps=NUM_STEPS[pair],
            auc=report.auc,
            mean_ratio=report.mean_ratio,
            mean_ratio_se=report.mean_ratio_se,
            slope=report.slope,
            ess_fraction=resampled.report.tail.ess_fraction,
            pareto_k=resampled.report.tail.pareto_k,
            warnings=len(said),
            check=check.mean_ratio.verdict,
            moments_before=moments.before,
            moments_after=moments.after,
            moments_change=moments.change,
            moments_change_se=moments.change_se,
            moments=moments.verdict,
            **judged(gan.decode(resampled.samples["z"])),
        )
    figure("ratio of features", pair=pair, of="no ratio", **judged(alone(generator)))
    # Features forget what pixels give away: the ratio of f(x) cannot separate better.
    assert overlap["features"] < overlap["pixels"]


def judged(x: Tensor) -> dict[str, float]:
    """Return the score of the digits and their Frechet distance to others, both by LeNet."""
    score = classifier_score(mnist.network().head(mnist.features(x)))
    distance = frechet_distance(mnist.features(x), mnist.features(mnist.held_out()))
    return {"score": score.value, "score_se": score.standard_error, "frechet": distance}


def alone(generator: nn.Module) -> Tensor:
    with torch.no_grad():
        return torch.cat([generator(part) for part in zoo.mnist_prior().sample((NUM_OUTPUTS,)).split(500)])
