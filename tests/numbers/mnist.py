"""The zoo's MNIST GAN, from another project: its log ratios, and the judges of its digits."""

from __future__ import annotations

import functools
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio, calibrate, fit_log_ratio
from pyro_gan.evaluate import class_counts, classifier_score, frechet_distance, residual_auc, total_variation
from pyro_gan.objectives import Bernoulli
from tests import zoo
from tests.numbers.judge import NUM_OUTPUTS, Estimates, shares, truth

__all__ = ["EXACT", "POSTERIORS", "before", "digits", "features", "held_out", "judged", "statistics", "true_values"]


def conv_critic() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.SiLU(), nn.Dropout(0.5),
        nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU(), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 1),
    )  # fmt: skip


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return 5000 test digits for calibration and 5000 for judging, shuffled because the file is ordered."""
    images = zoo.mnist_test().images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:5000]], images[order[5000:]]


@functools.cache
def own_ratio(seed: int, cap: float | str | None = None) -> LatentPosterior:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.mnist_generator(), zoo.mnist_prior()
    with torch.no_grad():
        generated = generator(prior.sample((5000,)))
    ratio = calibrate(LogRatio(zoo.mnist_discriminator(), Bernoulli()), digits()[0], generated, max_log_ratio=cap)
    return LatentPosterior(generator, ratio, prior)


@functools.cache
def fresh_ratio(seed: int) -> LatentPosterior:
    pyro.set_rng_seed(seed)
    generator, prior = zoo.mnist_generator(), zoo.mnist_prior()
    ratio = fit_log_ratio(
        generator,
        prior,
        zoo.mnist_train().images[:50_000],
        conv_critic(),
        num_steps=500,
        min_ess_fraction=0.2,
        progress=False,
    )
    return LatentPosterior(generator, ratio, prior)


def guarded_ratio(seed: int) -> LatentPosterior:
    return own_ratio(seed, "auto")


POSTERIORS = {"own D, Platt": own_ratio, "own D, Platt, guard": guarded_ratio, "fresh conv critic": fresh_ratio}
EXACT = ["own D, Platt", "fresh conv critic"]


@functools.cache
def network() -> zoo.LeNet:
    return zoo.lenet()


def features(x: Tensor) -> Tensor:
    return torch.cat([network().features(part) for part in x.split(500)])


def statistics(x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    log_probabilities = network().head(features(x))
    score = classifier_score(log_probabilities)
    return {
        "LeNet score": (torch.tensor(score.value), torch.tensor(score.standard_error)),
        "class shares": shares(class_counts(log_probabilities)),
    }


def judged(x: Tensor, seed: int) -> dict[str, Any]:
    """Return scores, distances to held-out digits, and the AUC of a fresh critic.

    The residual AUC is of LeNet's features, which describe shapes, and of pixels. In pixels this generator's noise
    identifies nearly every output, and no choice among its outputs can change that.
    """
    held_out = digits()[1]
    real_features = features(held_out)
    values = statistics(x)
    counts = class_counts(network().head(features(x)))
    seen = residual_auc(features(x[:5000]), real_features)
    figures = {
        "score": float(values["LeNet score"][0]),
        "score_se": float(values["LeNet score"][1]),
        "frechet": frechet_distance(features(x), real_features),
        "class_tv": total_variation(counts, class_counts(network().head(real_features))),
        "residual_auc": seen.value,
        "residual_auc_se": seen.standard_error,
    }
    if seed == 0:  # It is slow, and every seed gives the same result.
        pixels = residual_auc(x[:5000], held_out)
        figures |= {"pixel_residual_auc": pixels.value, "pixel_residual_auc_se": pixels.standard_error}
    return figures


@functools.cache
def before(seed: int) -> dict[str, Any]:
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        return judged(zoo.mnist_generator()(zoo.mnist_prior().sample((NUM_OUTPUTS,))), seed)


@functools.cache
def true_values(ratio: str) -> Estimates:
    """Return the truth for a ratio of seed 0; it is calculated once per session."""
    pyro.set_rng_seed(100)
    return truth(POSTERIORS[ratio](0), statistics)


def held_out() -> Tensor:
    """Return real digits that no ratio was made from."""
    return digits()[1]
