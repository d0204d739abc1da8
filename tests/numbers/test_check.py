"""The check before sampling, on real pairs of which one is made worse by its own critic; its false alarms, in full."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio, calibrate
from pyro_gan.latent import PosteriorReport
from pyro_gan.objectives import Bernoulli
from pyro_gan.ratio import judge_mean_ratio
from tests import zoo
from tests.numbers.size import FULL

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore")]

NUM_RUNS, MAX_WRONG = 200, 2


def checked(generator: nn.Module, critic: nn.Module, prior: dist.TorchDistribution, seed: int) -> PosteriorReport:
    pyro.set_rng_seed(seed)
    images = zoo.mnist_test().images
    images = images[torch.randperm(len(images))]
    with torch.no_grad():
        generated = torch.cat([generator(prior.sample((500,))) for _ in range(10)])
    log_ratio = calibrate(critic, images[:5000], generated)
    return LatentPosterior(generator, log_ratio, prior).check(images[5000:], num_draws=10_000, seed=seed)


def record(figure, name: str, report: PosteriorReport, seed: int) -> None:
    moments, mean = report.moments, report.mean_ratio
    assert moments is not None
    figure(
        name,
        before=moments.before,
        after=moments.after,
        change=moments.change,
        change_se=moments.change_se,
        moments=moments.verdict,
        mean_ratio=mean.value,
        mean_ratio_se=mean.standard_error,
        verdict=mean.verdict,
        ess=report.tail.ess,
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(5 if FULL else 2))
def test_a_critic_that_makes_digits_worse_is_called_worse(seed: int, figure) -> None:
    report = checked(zoo.mnist_wgan_generator(), zoo.mnist_wgan_critic(), zoo.mnist_prior(), seed)
    record(figure, "check, wgan_gp, own critic", report, seed)
    assert report.moments is not None
    assert report.moments.verdict in ("worse", "too few effective draws") and report.problems
    assert report.mean_ratio.verdict in ("wrong", "not determined")


@pytest.mark.parametrize("seed", range(5 if FULL else 2))
def test_a_critic_that_makes_digits_better_is_called_better(seed: int, figure) -> None:
    critic = LogRatio(zoo.mnist_discriminator(), Bernoulli())
    report = checked(zoo.mnist_generator(), critic, zoo.mnist_prior(), seed)
    record(figure, "check, mlp_gan, own critic", report, seed)
    assert report.moments is not None and report.moments.verdict == "better"
    assert report.mean_ratio.verdict == "near 1"
    assert all("heavy tail" in problem for problem in report.problems)


@pytest.mark.parametrize("with_real", [True, False])
@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0, 4.0, 5.0])
def test_exact_ratios_are_called_wrong_in_one_run_of_a_hundred_at_most(shift: float, with_real: bool, figure) -> None:
    """N(shift, 1) against N(0, 1); the constant of 2 nats needs real rows, and is no fault of a bare function."""

    def log_ratio(x: Tensor) -> Tensor:
        return shift * x - shift**2 / 2

    for constant in (0.0, 2.0):
        verdicts = []
        for _ in range(NUM_RUNS):
            generated = log_ratio(torch.randn(20_000)) + constant
            real = log_ratio(torch.randn(1000) + shift) + constant if with_real else None
            verdicts.append(judge_mean_ratio(generated, real, is_normalised=with_real or not constant).verdict)
        wrong, determined = verdicts.count("wrong"), NUM_RUNS - verdicts.count("not determined")
        figure("false alarms of E_G[r]", shift=shift, constant=constant, real=with_real, wrong=wrong, of=determined)
        assert wrong <= MAX_WRONG


@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_a_flattened_ratio_is_not_judged(temperature: float) -> None:
    prior = dist.Normal(0, 1).expand([1]).to_event(1)
    gan = LatentPosterior(nn.Identity(), LogRatio(lambda x: x + 8, Bernoulli()), prior, temperature=temperature)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gan.check(num_draws=10_000).mean_ratio_verdict.startswith("not judged")
