"""The demo's GAN: two small networks, trained until the held-out Frechet distance stops falling."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyro_gan import toys
from pyro_gan.demo.settings import Settings
from pyro_gan.evaluate import frechet_distance
from pyro_gan.objectives import Bernoulli
from pyro_gan.training import Player, train

__all__ = ["GAN", "PixelScale", "Splits", "make_prior", "split_digits", "train_gan"]

#: Generated digits, always of the same latents, for the held-out Frechet distance.
NUM_EVAL_DRAWS = 5000


class Splits(NamedTuple):
    """The digits in three parts that share no image; labels serve the judge's classifier alone."""

    #: What the GAN trains on.
    gan: Float[Tensor, "draw 1 8 8"]
    #: What the ratios are made on.
    ratio: Float[Tensor, "draw 1 8 8"]
    #: What judges.
    judge: Float[Tensor, "draw 1 8 8"]
    gan_labels: Int[Tensor, " draw"]
    ratio_labels: Int[Tensor, " draw"]
    judge_labels: Int[Tensor, " draw"]


class GAN(NamedTuple):
    """The pair as training left it, in evaluation mode."""

    #: Latents `(batch, latent_dim)` to digits `(batch, 1, 8, 8)`.
    generator: nn.Module
    #: Digits to logits `(batch, 1)`.
    critic: nn.Module
    prior: Any
    #: Step and held-out Frechet distance of every evaluation.
    history: list[tuple[int, float]]
    #: The step whose weights were kept.
    best_step: int
    #: Whether the distance had stopped falling, and not the steps run out.
    reached_plateau: bool


class PixelScale(nn.Module):
    """Centres pixels and divides them by their standard deviations.

    Those at the rims hardly vary in real digits; unscaled, a critic overlooks what a generator does there.

    Args:
        real: Where the deviations come from, `(draw, 1, 8, 8)`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, real: Float[Tensor, "draw 1 8 8"]) -> None:
        super().__init__()
        deviation = real.std(0)
        self.register_buffer("mean", real.mean(0))
        # Some never vary at all, and the training of the pair runs wild on those that almost never do.
        self.register_buffer("scale", deviation.clamp(min=0.3 * float(deviation.max())))

    def forward(self, x: Tensor) -> Tensor:
        """Map digits to digits, `(batch, 1, 8, 8)`."""
        return (x - self.mean) / self.scale


def split_digits(settings: Settings) -> Splits:
    """Split the digits at random, by a generator of its own."""
    images, labels = toys.digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(settings.seed))
    sizes = [settings.num_gan, settings.num_ratio, len(images) - settings.num_gan - settings.num_ratio]
    parts = order.split(sizes)
    return Splits(*(images[part].to(settings.device) for part in parts), *(labels[part] for part in parts))


def make_prior(settings: Settings) -> Any:
    """Return the latents' law, a standard normal."""
    zero = torch.zeros(settings.latent_dim, device=settings.device)
    return dist.Normal(zero, torch.ones_like(zero)).to_event(1)


def train_gan(splits: Splits, settings: Settings, *, progress: bool) -> GAN:
    """Train the pair by binary cross-entropy, the generator's loss non-saturating.

    The generator kept is a running average of the one in training, as good GANs keep it. Of all states evaluated, the
    one with the lowest Frechet distance (of pixels) to digits that the GAN has not seen is kept, with its critic.

    Args:
        splits: The GAN trains on `gan`; its plateau is told on `ratio`.
        settings: Sizes and patience.
        progress: Show a bar.

    Returns:
        The trained pair.
    """
    sizes = [settings.latent_dim, settings.width, settings.width, 64]
    generator: nn.Module = nn.Sequential(
        toys.MLP(sizes, lambda: nn.LeakyReLU(0.2)), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
    )
    generator = generator.to(settings.device)
    averaged = copy.deepcopy(generator)
    critic = _make_critic(splits.gan, settings)
    prior, objective = make_prior(settings), Bernoulli()
    plateau = _Plateau(averaged, critic, splits.ratio, prior.sample((NUM_EVAL_DRAWS,)), settings)

    def next_batch() -> Tensor:
        return splits.gan[torch.randint(len(splits.gan), (settings.batch_size,), device=splits.gan.device)]

    def critic_loss(real: Tensor) -> Tensor:
        with torch.no_grad():
            generated = generator(prior.sample((len(real),)))
        scores = critic(torch.cat([real, generated])).squeeze(-1)
        return objective.critic_loss(scores[: len(real)], scores[len(real) :])

    def generator_loss(real: Tensor) -> Tensor:
        scores = critic(generator(prior.sample((len(real),)))).squeeze(-1)
        return objective.generator_loss(scores.new_zeros(0), scores)

    @torch.no_grad()
    def average(step: int, losses: dict[str, float]) -> bool:
        for old, new in zip(averaged.parameters(), generator.parameters(), strict=True):
            old.lerp_(new, 1 - settings.averaging)
        return plateau(step)

    def optimizer(network: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), settings.learning_rate, (0.5, 0.999))

    players = [
        Player("critic", critic, optimizer(critic), critic_loss),
        Player("generator", generator, optimizer(generator), generator_loss),
    ]
    train(players, next_batch, num_steps=settings.gan_max_steps, callback=average, progress=progress)
    averaged.load_state_dict(plateau.best[0])
    critic.load_state_dict(plateau.best[1])
    return GAN(
        averaged.eval().requires_grad_(False),
        critic.eval().requires_grad_(False),
        prior,
        plateau.history,
        plateau.best_step,
        plateau.is_reached,
    )


def _make_critic(real: Tensor, settings: Settings) -> nn.Module:
    def activation() -> nn.Module:
        return nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(settings.gan_dropout))

    layers = toys.MLP([64, settings.width, settings.width, 1], activation)
    return nn.Sequential(PixelScale(real), nn.Flatten(), layers).to(settings.device)


class _Plateau:
    """Evaluates, keeps the best pair, and says when nothing has got better for a while."""

    def __init__(
        self, generator: nn.Module, critic: nn.Module, real: Tensor, latents: Tensor, settings: Settings
    ) -> None:
        self.generator, self.critic, self.real, self.latents = generator, critic, real, latents
        self.settings = settings
        self.history: list[tuple[int, float]] = []
        self.best: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self.best_step = 0
        self.is_reached = False

    def __call__(self, step: int) -> bool:
        if step % self.settings.gan_eval_every:
            return False
        with torch.no_grad():
            distance = frechet_distance(self.generator(self.latents), self.real)
        if all(distance < earlier for _, earlier in self.history):
            self.best = (copy.deepcopy(self.generator.state_dict()), copy.deepcopy(self.critic.state_dict()))
            self.best_step = step
        self.history.append((step, distance))
        self.is_reached = step - self.best_step >= self.settings.gan_patience * self.settings.gan_eval_every
        return self.is_reached
