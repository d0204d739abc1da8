"""One call: a generator and real data in, a better generator out, with the certificate that it is better."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import by_chunk, chunk_rows
from pyro_gan._random import rng_fork, seed_rng
from pyro_gan._typing import Critic, Generator
from pyro_gan.checks.calls import ContextError
from pyro_gan.evaluate.features import extract_features
from pyro_gan.evaluate.temperature import TemperatureStep, certify_temperature, choose_temperature
from pyro_gan.improved.generator import ImprovedGenerator, Sampler
from pyro_gan.improved.report import ImprovementReport
from pyro_gan.latent import LatentPosterior, LatentPrior
from pyro_gan.ratio import RandomFeatures, calibrate, fit_log_ratio
from pyro_gan.ratio._fit_checks import MIN_ROWS
from pyro_gan.ratio._holdout import first_of_equal

__all__ = ["improve"]

#: Real rows that choose, and again rows that certify: a quarter of all, and at most so many.
MAX_JUDGING_ROWS = 5000
#: Fewest of either: the Frechet distance of fewer rows is mostly noise.
MIN_JUDGING_ROWS = 100
#: Draws of the generator that choose, and again draws that certify.
NUM_DRAWS = 20_000

#: From this share of copies among the real rows on, the report mentions them.
MAX_COPIES = 0.01

Features = Callable[[Tensor], Tensor]


def improve(
    generator: Generator,
    real: Float[Tensor, "real *event"],
    *,
    prior: TorchDistribution,
    critic: Critic | None = None,
    network: nn.Module | None = None,
    features: Features | None = None,
    sampler: Sampler | None = None,
    max_seconds: float = 180.0,
    seed: int = 0,
    progress: bool = True,
) -> ImprovedGenerator:
    """Make a better generator of a trained one, or give it back as it is; a test on held-out rows decides.

    The real rows are split into three parts. The first makes a log ratio: `calibrate` of the critic, `fit_log_ratio`
    of the network, or both. The second chooses a ratio and the power 1/T of it that brings resampled outputs closest
    to the data. The third certifies: the powers that helped are tested again, from the flattest up to the chosen one,
    each one-sided at 5 %, and the first failure ends the tests. So outputs change only where a judge that chose nothing
    has seen them improve. If the ratio is worth nothing, the generator is left as it is in at least 95 of 100 runs.

    The judge is the Frechet distance of the features. It sees what the features see, and no more.

    Args:
        generator: The trained generator, `(batch, *latent) -> (batch, *event)`, in evaluation mode. Of a conditional
            one improve `lambda z: generator(z, y)`, with real rows of that condition.
        real: Real rows, `(real, *event)`, that did not train the critic. At least 400; some thousands are better.
        prior: Distribution of the latents.
        critic: The generator's own critic or any other, to be calibrated.
        network: An untrained critic, to be fitted; it trains in place.
        features: Maps rows to columns, `(batch, *event) -> (batch, feature)`, such as a classifier without its last
            layer; `RandomFeatures` of the first part of the rows if None.
        sampler: Draws latents of the posterior, `(posterior, num_outputs) -> latents`; `resample` if None.
        max_seconds: Largest duration of the fit of the network.
        seed: Of the split, the draws and the fit. Global generators are left as they were.
        progress: Whether to show a bar during a fit.

    Returns:
        The improved generator. `print(better.report)` shows what was tried.

    Raises:
        ValueError: if neither a critic nor a network is given, there are too few rows, or shapes disagree.

    Example:
        >>> from pyro_gan import toys
        >>> toy = toys.gaussian_shift(0.8)
        >>> better = improve(toy.generator, toy.sample_data(4000), prior=toy.prior, critic=toy.log_ratio)
        >>> better.temperature < 2, better(5).shape
        (True, torch.Size([5, 1]))
    """
    if critic is None and network is None:
        raise ValueError(
            "Expected a critic to calibrate or a network to fit; got neither. Pass critic=discriminator, or an "
            "untrained network=nn.Sequential(...) that maps data to one number a row."
        )
    try:
        LatentPrior(generator, prior).validate()
    except ContextError as error:
        raise ValueError(
            f"Expected a generator that takes latents alone; got the error: {error.__cause__ or error}. Improve a "
            "conditional one for one condition, lambda z: generator(z, y), with real rows of that condition."
        ) from error
    checks.rows("real data", real, cure="Scale images as the generator does.")
    num_judging = min(len(real) // 4, MAX_JUDGING_ROWS)
    if num_judging < MIN_JUDGING_ROWS:
        raise ValueError(
            f"Expected at least {4 * MIN_JUDGING_ROWS} real rows, to fit, to choose and to certify on different ones; "
            f"got {len(real)}. Collect more."
        )
    with rng_fork():
        seed_rng(checks.random_seed(seed))
        order = torch.randperm(len(real))
        sizes = (len(real) - 2 * num_judging, num_judging, num_judging)
        fit, choose, certify = (real[part.to(real.device)] for part in order.split(list(sizes)))
        describe = RandomFeatures(fit, seed=seed) if features is None else features
        ratios, messages = _ratios(generator, prior, fit, critic, network, max_seconds, progress)
        messages += filter(None, [_said_of_copies(generator, prior, real)])
        best: tuple[str, LatentPosterior, float, tuple[TemperatureStep, ...]] | None = None
        real_features = extract_features(choose, describe)
        pool = prior.sample((NUM_DRAWS,))
        for name, ratio in ratios.items():
            posterior = LatentPosterior(generator, ratio, prior)
            scores, x = _scored(posterior, pool, describe)
            power, steps = choose_temperature(x, scores, real_features, seed=seed)
            if best is None or _distance(steps, power) < _distance(best[3], best[2]):
                best = name, posterior, power, steps
        if best is None:
            report = ImprovementReport(None, 0.0, sizes, (), (), None, tuple(messages))
            alone = LatentPosterior(generator, _no_ratio, prior, temperature=math.inf)
            return ImprovedGenerator(alone, sampler=sampler, report=report)
        name, posterior, power, chosen = best
        tried = [step for step in chosen if step.inverse_temperature <= power]
        # Small powers may do harm where large ones do good, and then say nothing about them.
        tested = [step.inverse_temperature for step in tried if step.improves or step.inverse_temperature == power]
        certified: tuple[TemperatureStep, ...] = ()
        if tested:
            scores, x = _scored(posterior, prior.sample((NUM_DRAWS,)), describe)
            real_features = extract_features(certify, describe)
            power, certified = certify_temperature(x, scores, real_features, inverse_temperatures=tested, seed=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            check = posterior.check(choose, features=describe, num_draws=NUM_DRAWS, seed=seed)
        messages += [f"{name}: {warning.message}" for warning in caught]
        report = ImprovementReport(name, power, sizes, chosen, certified, check, tuple(messages))
        temperature = 1 / power if power else math.inf
        posterior = LatentPosterior(generator, ratios[name], prior, temperature=temperature)
        return ImprovedGenerator(posterior, sampler=sampler, report=report)


def _ratios(
    generator: Generator,
    prior: TorchDistribution,
    real: Tensor,
    critic: Critic | None,
    network: nn.Module | None,
    max_seconds: float,
    progress: bool,
) -> tuple[dict[str, Critic], list[str]]:
    """Return the log ratios that could be made, by name, and what was said on the way."""
    ratios: dict[str, Critic] = {}
    messages: list[str] = []
    makers: dict[str, Callable[[], Critic]] = {}
    if critic is not None:
        own = critic

        def calibrated() -> Critic:
            with torch.no_grad():
                z = prior.sample((max(len(real), 10_000),))
                return calibrate(own, real, by_chunk(generator, z, None))

        makers["calibrated critic"] = calibrated
    if network is not None:
        fresh = network
        # Few rows need a larger share, to have enough to choose and to judge.
        share = max(0.1, MIN_ROWS / len(real))
        makers["fresh critic"] = lambda: fit_log_ratio(
            generator, prior, real, fresh, validation_fraction=share, max_seconds=max_seconds, progress=progress
        )
    for name, make in makers.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                ratios[name] = make()
            except RuntimeError as error:  # no state of the critic leaves enough overlap
                messages.append(f"{name}: {error}")
        messages += [f"{name}: {warning.message}" for warning in caught]
    return ratios, messages


def _said_of_copies(generator: Generator, prior: TorchDistribution, real: Tensor) -> str:
    """Return a sentence if some of the real rows are copies of others and the generator's draws are not, or nothing."""
    num_copies = len(real) - len(first_of_equal(real))
    if num_copies < MAX_COPIES * len(real):
        return ""
    with torch.no_grad():
        draws = by_chunk(generator, prior.sample((1000,)), None)
    # Discrete data repeat on both sides.
    if len(first_of_equal(draws)) < len(draws):
        return ""
    return (
        f"{num_copies} of {len(real)} real rows are copies of others, as no draws of the generator are: if rows were "
        "repeated, pass each once, because the certificate counts every row as new evidence."
    )


def _scored(posterior: LatentPosterior, z: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    """Return the log ratios of latents and the features of their outputs."""
    scores, columns = [], []
    # All outputs at once may not fit into memory.
    for part in z.split(chunk_rows(posterior.chunk_size, z)):
        x = posterior.decode(part)
        with torch.no_grad():
            scores.append(posterior.log_ratio(x))
        columns.append(extract_features(x, features))
    return torch.cat(scores), torch.cat(columns)


def _distance(steps: tuple[TemperatureStep, ...], power: float) -> float:
    """Return the distance at a power of a choice, that of the generator alone for 0."""
    found: Any = [step.change.after for step in steps if step.inverse_temperature == power]
    return float(found[0]) if found else steps[0].change.before


def _no_ratio(x: Tensor, /, **context: Tensor) -> Tensor:
    return x.new_zeros(len(x))
