"""The adversarial pair as two players of the training loop: `fit_gan`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, final

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_gan._networks import critic_scores
from pyro_gan._random import rng_fork
from pyro_gan.checks import count, function, instance, real, shaped, tensor
from pyro_gan.checks.calls import FAULTS, TRIAL_FAULTS, called
from pyro_gan.objectives.base import Objective, Penalty, TwoSampleLoss
from pyro_gan.objectives.entropic import EntropicTransport
from pyro_gan.training import Batches, Player, train
from pyro_gan.training.describe import check_outputs, describe, describe_draws

__all__ = ["FittedGAN", "fit_gan"]


@final
class FittedGAN(NamedTuple):
    """A trained pair, in evaluation mode.

    Attributes:
        generator: The generator, or its running average if `averaging` was set.
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
    callback: Callable[[int, dict[str, float], FittedGAN], bool | None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    checkpoint_minutes: float = 10.0,
    progress: bool = True,
) -> FittedGAN:
    """Train a generator against a critic, or against a loss on samples.

    A step is `critic_steps` updates of the critic and one of the generator, each on a fresh batch and fresh latents.
    Networks are set to training mode for the run and to evaluation mode after it. A run that is killed continues from
    its checkpoint. It ends with the bits of an uninterrupted run if `data` is a tensor, or draws the order of each
    epoch from torch's generators as the epoch begins (a `DataLoader` does).

    Args:
        generator: Latents `(batch, *latent)` to data `(batch, *event)`.
        critic: Data to one score for each row; None with a `TwoSampleLoss`.
        prior: The distribution of the latents, `batch_shape ()`.
        data: All data, `(datum, *event)`, or an iterable of batches that can be iterated again; a batch is a tensor or
            a sequence that begins with one.
        objective: What critic and generator minimise; `Paired` gives each its own. `EntropicTransport` takes the data
            too; in its dual form the critic has two outputs for each row.
        generator_optimizer: The optimiser of the generator's parameters.
        critic_optimizer: The optimiser of the critic's parameters.
        num_steps: The total number of steps, those before a resume included.
        batch_size: Rows of a batch, if `data` is a tensor.
        critic_steps: Updates of the critic in a step.
        penalty: Added to the critic's loss.
        averaging: Weight of the old values in a running average of the generator's parameters and buffers; the average
            is then the generator returned. Usual is .999.
        callback: Called after each step with the number of steps done, the losses "critic" and "generator", and the
            `FittedGAN` that this call would return if it ended there. True ends the run.
        checkpoint: Path of a file; see `training.train`. A file of another objective, penalty, prior, batch size,
            number of critic steps or average, of other data or networks is refused.
        checkpoint_every: Largest number of steps between checkpoints.
        checkpoint_minutes: Largest time between checkpoints, in minutes.
        progress: Show a bar with the losses.

    Returns:
        The pair. The critic, as `LogRatio(critic, objective)` takes it, was trained on the generator of every step and
        never on the average: for a sharp log ratio of the average, fit a fresh critic.

    Raises:
        ValueError: if an argument does not fit, generated data have another shape than real ones, the data end, or a
            checkpoint belongs to another run, is damaged or in use.
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
    _check_pair(critic, objective, critic_optimizer, penalty)
    for name, value in (("penalty", penalty), ("callback", callback)):
        if value is not None:
            function(name, value)
    prior, critic_steps = instance("prior", prior, Distribution), count("critic_steps", critic_steps)
    device = next(instance("generator", generator, nn.Module).parameters(), torch.empty(0)).device
    batches = Batches(data, batch_size=batch_size, device=device)
    if checkpoint is not None and not batches.can_resume:
        raise ValueError(
            "Expected data that can be iterated again, to resume from a checkpoint; got an iterator. Pass the "
            "DataLoader or list itself, or no checkpoint."
        )
    averaged, kept = None, generator
    if averaging is not None:
        averaging = real("averaging", averaging, minimum=0, below=1, cure="Usual is .999.")
        averaged = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(averaging), use_buffers=True)
        kept = averaged.module.eval()

    tried: set[str] = set()

    def called_with(name: str, network: Any, takes: str, x: Tensor) -> AbstractContextManager[None]:
        # Only in its first call is an error of torch more likely one of shapes than one of the machine.
        faults = FAULTS if name in tried else TRIAL_FAULTS
        tried.add(name)
        return called(name, network, f"{takes} of shape {tuple(x.shape)}", faults=faults)

    def generate(real: Tensor) -> Tensor:
        z = prior.sample((len(real),))
        with called_with("generator", generator, "draws of the prior,", z):
            generated = generator(z)
        cure = "Let the generator return the data alone, in one tensor."
        return shaped("generated data like the real data,", tensor("generated data", generated, cure=cure), real.shape)

    def score(x: Tensor) -> Tensor:
        assert critic is not None
        with called_with("critic", critic, "a batch of data", x):
            return critic_scores(critic, x)

    def critic_loss(real: Tensor) -> Tensor:
        assert critic is not None and not isinstance(objective, TwoSampleLoss)
        with torch.no_grad():
            generated = generate(real)
        if isinstance(objective, EntropicTransport):
            loss = objective.critic_loss(critic, real, generated)
        else:
            loss = objective.critic_loss(score(real), score(generated))
        return loss if penalty is None else loss + penalty(critic, real, generated)

    def generator_loss(real: Tensor) -> Tensor:
        generated = generate(real)
        if isinstance(objective, TwoSampleLoss):
            return objective(real, generated)
        assert critic is not None
        if isinstance(objective, EntropicTransport):
            return objective.generator_loss(critic, real, generated)
        scores = score(generated)
        return objective.generator_loss(scores.new_zeros(0), scores)

    def after_step(step: int, losses: dict[str, float]) -> bool | None:
        if averaged is not None:
            averaged.update_parameters(generator)
        if callback is None:
            return None
        networks.eval()
        ended = callback(step, losses, FittedGAN(kept, critic, step))
        networks.train()
        return ended

    players = [Player("generator", generator, generator_optimizer, generator_loss)]
    if critic is not None and critic_optimizer is not None:
        players.insert(0, Player("critic", critic, critic_optimizer, critic_loss, critic_steps))
    networks = nn.ModuleList(network for network in (generator, critic) if network is not None).train()
    settings = (
        {}
        if checkpoint is None
        else batches.settings
        | {
            "prior": describe_draws(prior),
            "objective": describe(objective),
            "penalty": describe(penalty),
            "averaging": str(averaging),
        }
    )
    try:
        done = train(
            players,
            batches,
            num_steps=num_steps,
            callback=after_step,
            state=_Memory(batches, averaged, networks, prior),
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            checkpoint_minutes=checkpoint_minutes,
            settings=settings,
            progress=progress,
        )
    finally:
        networks.eval()
    return FittedGAN(kept, critic, done)


@final
class _Memory:
    """What a checkpoint keeps besides the players: the position in the data, the average, outputs of the networks."""

    def __init__(
        self, batches: Batches, averaged: nn.Module | None, networks: nn.ModuleList, prior: Distribution
    ) -> None:
        self._batches, self._averaged, self._networks, self._prior = batches, averaged, networks, prior

    def state_dict(self) -> dict[str, Any]:
        averaged = {} if self._averaged is None else self._averaged.state_dict()
        return {"batches": self._batches.state_dict(), "averaged": averaged, "outputs": self._outputs()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._batches.load_state_dict(state["batches"])
        for there, here, name in zip(state["outputs"], self._outputs(), ("generator", "critic"), strict=False):
            check_outputs(name, there, here)

    def _outputs(self) -> list[Tensor]:
        self._networks.eval()
        both = []
        with rng_fork(), torch.no_grad(), contextlib.suppress(RuntimeError):  # of networks for batches of one size
            for _ in range(2):
                torch.manual_seed(0)
                x = self._prior.sample(torch.Size([4]))
                both.append([x := network(x) for network in self._networks])
        self._networks.train()
        # A network with noise that torch does not make returns something else each time, and is not compared.
        same = len(both) == 2 and all(map(torch.equal, *both))
        return [values.float().cpu() for values in both[0]] if same else []


def _check_pair(critic: Any, objective: Any, critic_optimizer: Any, penalty: Any) -> None:
    instance("objective", objective, Objective, TwoSampleLoss, EntropicTransport, cure="For instance Bernoulli().")
    if isinstance(objective, TwoSampleLoss):
        if critic is not None or critic_optimizer is not None or penalty is not None:
            raise ValueError(f"Expected no critic, critic_optimizer or penalty with {objective!r}; got one.")
        return
    instance("critic", critic, nn.Module, cure=f"{objective!r} needs one.")
    instance("critic_optimizer", critic_optimizer, Optimizer, cure=f"{objective!r} needs one.")
