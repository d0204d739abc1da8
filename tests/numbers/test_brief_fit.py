"""A fresh critic of the WGAN-GP that is fitted too briefly: the fit, the check and `improve` say it or do no harm."""

from __future__ import annotations

import warnings

import pyro
import pytest
import torch

from pyro_gan import LatentPosterior, fit_log_ratio, improve
from pyro_gan.evaluate import frechet_distance
from tests import zoo
from tests.numbers import mnist

pytestmark = [pytest.mark.numbers, pytest.mark.full]

#: Outputs of the same generator differ by 1 to 2 % in Frechet distance, so 3 % is no harm.
MAX_HARM = 1.03
NUM_OUTPUTS = 5000
NUM_STEPS = 100
SECONDS = 15.0


def test_a_brief_fit_is_called_wrong(figure) -> None:
    """Its ESS fraction looks comfortable; its mean over generated digits does not."""
    pyro.set_rng_seed(0)
    generator, prior = zoo.mnist_wgan_generator(), zoo.mnist_prior()
    with warnings.catch_warnings(record=True) as of_fit:
        warnings.simplefilter("always", UserWarning)
        ratio = fit_log_ratio(
            generator,
            prior,
            zoo.mnist_train().images[:50_000],
            mnist.conv_critic(),
            num_steps=NUM_STEPS,
            num_validation_draws=5000,
            max_seconds=3600.0,
            progress=False,
        )
    with warnings.catch_warnings(record=True) as of_check:
        warnings.simplefilter("always", UserWarning)
        check = LatentPosterior(generator, ratio, prior).check(mnist.held_out(), num_draws=10_000)
    report, moments = ratio.report, check.moments
    assert report is not None and moments is not None
    figure(
        "brief fit, wgan_gp",
        num_steps=NUM_STEPS,
        auc=report.auc,
        slope=report.slope,
        mean_ratio=report.mean_ratio,
        ess_fraction=check.tail.ess_fraction,
        verdict=check.mean_ratio.verdict,
        checked_mean=check.mean_ratio.value,
        moments=moments.verdict,
        moments_change=moments.change,
        moments_change_se=moments.change_se,
        of_fit=[str(warning.message)[:60] for warning in of_fit],
        of_check=list(check.problems),
    )
    assert check.tail.ess_fraction > 0.01
    assert any("do not overlap" in str(w.message) or "fresh ratio is wrong" in str(w.message) for w in of_fit)
    assert check.mean_ratio.verdict == "wrong" or moments.verdict == "worse"
    assert of_check and check.problems


def test_improve_with_a_brief_fit_does_no_harm(figure) -> None:
    pyro.set_rng_seed(0)
    generator, prior = zoo.mnist_wgan_generator(), zoo.mnist_prior()
    better = improve(
        generator,
        zoo.mnist_train().images[:20_000],
        prior=prior,
        network=mnist.conv_critic(),
        max_seconds=SECONDS,
        progress=False,
    )
    real = mnist.features(mnist.held_out())
    with torch.no_grad():
        alone = torch.cat([generator(part) for part in prior.sample((NUM_OUTPUTS,)).split(500)])
    before, after = (frechet_distance(mnist.features(x), real) for x in (alone, better(NUM_OUTPUTS)))
    assert better.report is not None
    figure(
        "improve with a brief fit, wgan_gp",
        seconds=SECONDS,
        inverse_temperature=better.report.inverse_temperature,
        before=before,
        after=after,
        said=[message[:80] for message in better.report.messages],
    )
    assert after <= MAX_HARM * before
