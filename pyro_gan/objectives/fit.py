"""The adversarial pair as two players of the training loop: `fit_gan`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_gan._networks import critic_scores
from pyro_gan.objectives.base import Objective, Penalty, TwoSampleLoss
from pyro_gan.objectives.entropic import EntropicTransport
from pyro_gan.training import Player, train
from pyro_gan.training.batches import Batches

__all__ = ["FittedGAN", "fit_gan"]


class FittedGAN(NamedTuple):
    """A trained pair, in evaluation mode.

    Attributes:
        generator: The generator, or its running average where one was asked for.
        critic: The critic; None for a loss on samples.
        num_steps: Steps done.
    """

    generator: nn.Module
    critic: nn.Module | None
    num_steps: int


def fit_gan(
    generator: nn.Module,
    critic: nn.Module | None,
    *,
    prior: TorchDistribution,
    data: Tensor | Iterable[Any],
    objective: Objective | TwoSampleLoss | EntropicTransport,
    generator_optimizer: Optimizer,
    critic_optimizer: Optimizer | None = None,
    num_steps: int,
    batch_size: int | None = None,
    critic_steps: int = 1,
    penalty: Penalty | None = None,
    averaging: float | None = None,
    callback: Callable[[int, dict[str, float]], bool | None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    progress: bool = True,
) -> FittedGAN:
    """Train a generator against a critic, or against a loss on samples.

    A step is `critic_steps` updates of the critic and one of the generator, each on a fresh batch and fresh latents.
    Networks are put in training mode and left in evaluation mode. A run that is killed goes on from its checkpoint, and
    ends with the bits of one that was not, if `data` is a tensor or draws each epoch's order from torch's generators as
    the epoch begins (a `DataLoader` does).

    Args:
        generator: Latents `(batch, *latent)` to data `(batch, *event)`.
        critic: Data to one score a row; None with a `TwoSampleLoss`.
        prior: The latents' law: `batch_shape ()`.
        data: All data, `(datum, *event)`, or an iterable of batches that can be iterated again; a batch is a tensor or
            a sequence that begins with one.
        objective: What critic and generator minimise; `Paired` gives each its own. `EntropicTransport` sees the data
            beside the critic, which has two outputs a row in its dual form.
        generator_optimizer: Of the generator's parameters.
        critic_optimizer: Of the critic's.
        num_steps: Steps in all, those before a resume included.
        batch_size: Rows of a batch, where `data` is a tensor.
        critic_steps: Updates of the critic in a step.
        penalty: Added to the critic's loss.
        averaging: Weight of the old in a running average of the generator's parameters and buffers, which is then the
            generator returned; .999 is usual.
        callback: Called after each step with the number of steps done and the losses "critic" and "generator". True
            ends the run.
        checkpoint: Path of a file; see `training.train`.
        checkpoint_every: Steps between checkpoints.
        progress: Show a bar with the losses.

    Returns:
        The pair. The critic that `LogRatio(critic, objective)` reads has seen the generator of every step, and not its
        average: for a sharp log ratio of that, fit a fresh one.

    Raises:
        ValueError: if critic, optimiser and objective do not belong together, generated data have another shape than
            real ones, the data end or are empty, or a checkpoint does not fit.
        NonFiniteLoss: naming player and step.

    References:
        Generative Adversarial Networks, I. Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661;
        The Unusual Effectiveness of Averaging in GAN Training, Y. Yazici et al., 2019,
        https://arxiv.org/abs/1806.04498

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.objectives import Bernoulli
        >>> generator, critic = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> gan = fit_gan(
        ...     generator, critic, prior=dist.Normal(0.0, 1.0).expand([1]).to_event(1), data=3 + torch.randn(500, 1),
        ...     objective=Bernoulli(), generator_optimizer=torch.optim.Adam(generator.parameters(), lr=0.01),
        ...     critic_optimizer=torch.optim.Adam(critic.parameters(), lr=0.01), num_steps=5, batch_size=64,
        ...     progress=False,
        ... )
        >>> gan.generator(torch.zeros(7, 1)).shape
        torch.Size([7, 1])
    """
    _check_pair(critic, objective, critic_optimizer, penalty, critic_steps, averaging)
    device = next(generator.parameters()).device
    batches = Batches(data, batch_size=batch_size, device=device)
    if checkpoint is not None and not batches.can_resume:
        raise ValueError(
            "Expected data that can be iterated again, to resume from a checkpoint; got an iterator. Pass the "
            "DataLoader or list itself, or no checkpoint."
        )
    averaged = None
    if averaging is not None:
        averaged = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(averaging), use_buffers=True)

    def generate(real: Tensor) -> Tensor:
        generated = generator(prior.sample((len(real),)))
        if generated.shape != real.shape:
            raise ValueError(
                f"Expected generated data of the real data's shape, {tuple(real.shape)}; got {tuple(generated.shape)}."
            )
        return generated

    def critic_loss(real: Tensor) -> Tensor:
        assert critic is not None and not isinstance(objective, TwoSampleLoss)
        with torch.no_grad():
            generated = generate(real)
        if isinstance(objective, EntropicTransport):
            loss = objective.critic_loss(critic, real, generated)
        else:
            loss = objective.critic_loss(critic_scores(critic, real), critic_scores(critic, generated))
        return loss if penalty is None else loss + penalty(critic, real, generated)

    def generator_loss(real: Tensor) -> Tensor:
        generated = generate(real)
        if isinstance(objective, TwoSampleLoss):
            return objective(real, generated)
        assert critic is not None
        if isinstance(objective, EntropicTransport):
            return objective.generator_loss(critic, real, generated)
        scores = critic_scores(critic, generated)
        return objective.generator_loss(scores.new_zeros(0), scores)

    def after_step(step: int, losses: dict[str, float]) -> bool | None:
        if averaged is not None:
            averaged.update_parameters(generator)
        return None if callback is None else callback(step, losses)

    players = [Player("generator", generator, generator_optimizer, generator_loss)]
    if critic is not None and critic_optimizer is not None:
        players.insert(0, Player("critic", critic, critic_optimizer, critic_loss, critic_steps))
    modes = [network.train() for network in (generator, critic) if network is not None]
    try:
        done = train(
            players,
            batches,
            num_steps=num_steps,
            callback=after_step,
            state=_Memory(batches, averaged),
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    finally:
        for network in modes:
            network.eval()
    kept = generator if averaged is None else averaged.module
    return FittedGAN(kept.eval(), critic, done)


class _Memory:
    """What a checkpoint keeps beside the players: the place in the data, and the running average."""

    def __init__(self, batches: Batches, averaged: nn.Module | None) -> None:
        self._batches, self._averaged = batches, averaged

    def state_dict(self) -> dict[str, Any]:
        averaged = {} if self._averaged is None else self._averaged.state_dict()
        return {"batches": self._batches.state_dict(), "averaged": averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if bool(state["averaged"]) != (self._averaged is not None):
            raise ValueError(
                "The checkpoint does not fit: averaging is on in one of file and call, and off in the other."
            )
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._batches.load_state_dict(state["batches"])


def _check_pair(
    critic: nn.Module | None,
    objective: Objective | TwoSampleLoss | EntropicTransport,
    critic_optimizer: Optimizer | None,
    penalty: Penalty | None,
    critic_steps: int,
    averaging: float | None,
) -> None:
    if not isinstance(objective, Objective | TwoSampleLoss | EntropicTransport):
        raise ValueError(
            f"Expected an objective or a loss on samples, such as Bernoulli(); got {objective!r}."
        )
    if isinstance(objective, TwoSampleLoss):
        if critic is not None or critic_optimizer is not None or penalty is not None:
            raise ValueError(
                f"Expected no critic, optimiser or penalty for one with {objective!r}: it needs none."
            )
    elif critic is None or critic_optimizer is None:
        raise ValueError(f"Expected a critic and a critic_optimizer with {objective!r}; got none.")
    if critic_steps < 1:
        raise ValueError(f"Expected critic_steps of at least 1; got {critic_steps}.")
    if averaging is not None and not 0 <= averaging < 1:
        raise ValueError(f"Expected averaging in [0, 1); got {averaging}. .999 is usual.")
