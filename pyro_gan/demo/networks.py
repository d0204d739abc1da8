"""The demo's networks: a GAN of digits, its own critic, calibrated, and a fresh critic, fitted."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import LatentPosterior, calibrate, evaluate, fit_log_ratio, toys
from pyro_gan.demo.settings import Settings
from pyro_gan.objectives import Bernoulli, FittedGAN, fit_gan
from pyro_gan.ratio.diagnostics import FrontierPoint

__all__ = ["GAN", "LATENT_DIM", "MIN_ESS_FRACTION", "Ratio", "Splits", "fit_fresh", "make_own", "train_gan"]

#: Latent dimensions, and width of the two hidden layers of the GAN's networks.
LATENT_DIM, WIDTH = 32, 256

#: Generated digits for the held-out Frechet distance, always of the same latents; evaluations without a lower distance
#: before training ends.
NUM_EVAL_DRAWS, PATIENCE = 5000, 8

#: Generated rows that `calibrate` chooses from: more than any class of real digits.
NUM_GENERATED = 2000

#: Smallest effective share of the generator's draws that the fresh ratio must leave.
MIN_ESS_FRACTION = 0.1


@final
class Splits(NamedTuple):
    """The digits in three parts that share no image. Only the judge's classifier uses the labels."""

    #: The GAN trains on these.
    gan: toys.Digits
    #: The ratios are made on these; the GAN's plateau is found on them too.
    ratio: toys.Digits
    #: These judge.
    judge: toys.Digits

    @classmethod
    def draw(cls, settings: Settings) -> Splits:
        """Split the digits at random, with a random generator of its own."""
        images, labels = toys.digits()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(settings.seed))
        parts = order.split([797, 500, 500])
        return cls(*(toys.Digits(images[part].to(settings.device), labels[part]) for part in parts))


@final
class GAN(NamedTuple):
    """The best pair that training passed, in evaluation mode, and how training went."""

    #: Latents `(batch, latent_dim)` to digits `(batch, 1, 8, 8)`.
    generator: nn.Module
    #: Digits to logits `(batch, 1)`.
    critic: nn.Module
    prior: dist.TorchDistribution
    #: `history`: step and held-out Frechet distance of every evaluation. `best_step`: the step whose weights were kept.
    #: `reached_plateau`: whether training ended because the distance had stopped falling, before the steps ran out.
    figures: dict[str, Any]


@final
class Ratio(NamedTuple):
    """A log ratio, the target that it makes, and what is known of both before sampling."""

    name: str
    posterior: LatentPosterior
    #: Real digits that its critic has not trained on.
    unseen: Float[Tensor, "draw 1 8 8"]
    #: `made`: how the ratio was made, in words. `tail`: the weights of prior draws.
    figures: dict[str, Any]
    #: The evaluations of a fit; empty without one.
    frontier: tuple[FrontierPoint, ...] = ()

    def __call__(self, images: Float[Tensor, "draw 1 8 8"]) -> Float[Tensor, " draw"]:
        """Return the log ratios of digits."""
        with torch.no_grad():
            return self.posterior.log_ratio(images)

    def mean(self, images: Float[Tensor, "draw 1 8 8"]) -> dict[str, float]:
        """Return the mean log ratio of independent digits, and its standard error."""
        values = self(images)
        error = float(values.std()) / math.sqrt(len(values))
        return {"log_ratio": float(values.mean()), "log_ratio_se": error}


def train_gan(splits: Splits, settings: Settings, *, progress: bool) -> GAN:
    """Train the pair by binary cross-entropy, the generator's loss non-saturating.

    The generator kept is a running average. Of all states evaluated, the one with the lowest Frechet distance (of
    pixels) to digits that the GAN has not seen is returned, with its critic.
    """
    prior = dist.Normal(torch.zeros(LATENT_DIM, device=settings.device), 1.0).to_event(1)
    layers = toys.MLP([LATENT_DIM, WIDTH, WIDTH, 64], lambda: nn.LeakyReLU(0.2))
    generator = nn.Sequential(layers, nn.Tanh(), nn.Unflatten(1, (1, 8, 8))).to(settings.device)
    layers = toys.MLP([64, WIDTH, WIDTH, 1], lambda: nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(0.5)))
    critic = nn.Sequential(_PixelScale(splits.gan.images), nn.Flatten(), layers).to(settings.device)
    latents, best = prior.sample((NUM_EVAL_DRAWS,)), FittedGAN(generator, critic, 0)
    history: list[dict[str, Any]] = []
    adams = [torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.999)) for net in (generator, critic)]

    @torch.no_grad()
    def at_plateau(step: int, losses: dict[str, float], gan: FittedGAN) -> bool:
        nonlocal best
        if step % settings.gan_eval_every:
            return False
        distance = evaluate.frechet_distance(gan.generator(latents), splits.ratio.images)
        if all(distance < earlier["frechet"] for earlier in history):
            best = copy.deepcopy(gan)
        history.append({"step": step, "frechet": distance})
        return step - best.num_steps >= PATIENCE * settings.gan_eval_every

    last = fit_gan(
        generator,
        critic,
        prior=prior,
        data=splits.gan.images,
        objective=Bernoulli(),
        generator_optimizer=adams[0],
        critic_optimizer=adams[1],
        num_steps=settings.gan_max_steps,
        batch_size=128,
        averaging=settings.averaging,
        callback=at_plateau,
        progress=progress,
    )
    found = last.num_steps < settings.gan_max_steps
    figures = {"best_step": best.num_steps, "reached_plateau": found, "history": history}
    assert best.critic is not None
    return GAN(best.generator.requires_grad_(False), best.critic.requires_grad_(False), prior, figures)


def make_own(gan: GAN, splits: Splits, settings: Settings) -> Ratio:
    """Calibrate the GAN's own critic on digits that it has not seen."""
    generated = gan.generator(gan.prior.sample((NUM_GENERATED,)))
    log_ratio = calibrate(gan.critic, splits.ratio.images, generated, seed=settings.seed)
    report = log_ratio.report
    assert report is not None
    made = (
        f"Platt {', '.join(f'{name} {value:.2f}' for name, value in report.parameters.items())}, "
        f"cap {report.cap:.2f} nats; fitted on {report.num_fit} digits, held out {report.num_held_out}"
    )
    return _ratio("own critic, calibrated", log_ratio, gan, settings, made, splits.ratio.images)


def fit_fresh(gan: GAN, splits: Splits, settings: Settings, *, progress: bool) -> Ratio:
    """Fit a fresh critic to digits that the GAN has not seen."""
    # Convolutions share their weights. They learn more from so few digits than layers that do not.
    critic = nn.Sequential(
        _PixelScale(splits.ratio.images),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        toys.MLP([32 * 4 * 4, 64, 1], lambda: nn.Sequential(nn.SiLU(), nn.Dropout(0.5))),
    )
    log_ratio = fit_log_ratio(
        gan.generator,
        gan.prior,
        splits.ratio.images,
        critic.to(settings.device),
        min_ess_fraction=MIN_ESS_FRACTION,
        num_steps=settings.ratio_max_steps,
        # A tenth of so few digits could not tell one evaluation from the next.
        validation_fraction=0.2,
        eval_every=25,
        progress=progress,
    )
    points = log_ratio.frontier
    best = min(points, key=lambda point: (point.ess_fraction < MIN_ESS_FRACTION, point.log_loss))
    made = f"step {best.step} of {points[-1].step} had the lowest held-out loss"
    fresh = _ratio("fresh critic, fitted", log_ratio, gan, settings, made, splits.gan.images)
    return fresh._replace(frontier=points)


def _ratio(name: str, log_ratio: nn.Module, gan: GAN, settings: Settings, made: str, unseen: Tensor) -> Ratio:
    posterior = LatentPosterior(gan.generator, log_ratio, gan.prior)
    tail = posterior.check(num_draws=settings.num_prior_draws).tail
    return Ratio(name, posterior, unseen, {"made": made, "tail": tail._asdict()})


@final
class _PixelScale(nn.Module):
    """Centres pixels and divides them by their standard deviations.

    Pixels at the rims hardly vary in real digits. Without the scaling a critic overlooks what a generator does there.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, real: Float[Tensor, "draw 1 8 8"]) -> None:
        super().__init__()
        deviation = real.std(0)
        self.register_buffer("mean", real.mean(0))
        # Some pixels never vary; dividing by a deviation near zero makes the training of the pair diverge.
        self.register_buffer("scale", deviation.clamp(min=0.3 * float(deviation.max())))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
