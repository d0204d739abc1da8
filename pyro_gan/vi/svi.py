"""Pyro's SVI for objectives of several players: each network has its own optimiser, step count and loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_gan.checks import instance, shown
from pyro_gan.training import Player, train
from pyro_gan.training.batches import Batches
from pyro_gan.training.describe import describe

__all__ = ["AdversarialLoss", "AdversarialSVI"]


@runtime_checkable
class AdversarialLoss(Protocol):
    """An objective of several networks, each with its own loss. Both methods use the same names."""

    def networks(self) -> Mapping[str, nn.Module]:
        """Return the networks that can be trained, by name, in the order of their moves."""

    def losses(self) -> Mapping[str, Callable[..., Tensor]]:
        """Return each network's loss: it takes the arguments of a step, may read all networks, and gives a scalar."""


@final
class AdversarialSVI:
    """Train the networks of an adversarial objective in turn.

    Pyro's `SVI` moves every parameter that it meets down one loss, so a discriminator would move in the wrong
    direction. Here each player differentiates its own loss with respect to its own parameters: no loss moves another
    player's network or leaves a gradient on it. In a step the players move in the order of `loss.networks()`, each as
    often as `steps` says.

    Args:
        loss: `HybridLoss(...)`, or `RatioELBO(...)(model, guide)` for a Pyro model and guide that are modules.
        optimizers: For each network's name, an optimiser of its parameters, or None to hold it still, like the
            generator of a trained GAN while an encoder is fitted to it (call `eval()` on it first: batch statistics
            change without an optimiser).
        steps: Updates in one step, by name; 1 by default.
        schedulers: A scheduler that steps once in each step, by name.

    Raises:
        ValueError: if a network has no entry in `optimizers`, or a name belongs to no network; at the first step, if a
            player has no parameters or a parameter belongs to two.

    References:
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.vi import HYBRIDS, AggregatedRatio, ExplicitLikelihood, HybridLoss, ImplicitGuide, Joined
        >>> prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> loss = HybridLoss(
        ...     HYBRIDS["alpha-GAN"], generator=nn.Linear(2, 3), prior=prior, discriminator=nn.Linear(3, 1),
        ...     encoder=ImplicitGuide(Joined(nn.Linear(3 + 2, 2)), prior, event_shape=(2,)),
        ...     latent_ratio=AggregatedRatio(nn.Linear(2, 1)),
        ...     explicit_likelihood=ExplicitLikelihood("laplace", 1.0, reduction="sum"),
        ... )
        >>> svi = AdversarialSVI(
        ...     loss, {name: torch.optim.Adam(net.parameters(), lr=1e-3) for name, net in loss.networks().items()},
        ...     steps={"encoder": 2, "generator": 2},
        ... )
        >>> sorted(svi.step(torch.randn(8, 3)))
        ['discriminator', 'encoder', 'generator', 'latent_ratio']
        >>> svi.run(torch.randn(100, 3), num_steps=3, batch_size=8, progress=False)
        3
    """

    def __init__(
        self,
        loss: AdversarialLoss,
        optimizers: Mapping[str, Optimizer | None],
        *,
        steps: Mapping[str, int] | None = None,
        schedulers: Mapping[str, LRScheduler] | None = None,
    ) -> None:
        if isinstance(loss, type) or not isinstance(loss, AdversarialLoss):
            raise ValueError(
                f"Expected a loss with networks() and losses(); got {shown(loss)}. Pass HybridLoss(...), or "
                "RatioELBO(...)(model, guide)."
            )
        networks, losses = loss.networks(), loss.losses()
        steps = {} if steps is None else steps
        schedulers = {} if schedulers is None else schedulers
        for what, given in (("optimizers", optimizers), ("steps", steps), ("schedulers", schedulers)):
            instance(what, given, Mapping, cure=f"Pass {{name: ...}} for {sorted(networks)}.")
            if strangers := sorted(map(str, set(given) - networks.keys())):
                raise ValueError(
                    f"Expected {what} for the players {sorted(networks)}; got {strangers}. Correct the names."
                )
        if missing := sorted(networks.keys() - optimizers.keys()):
            raise ValueError(
                f"Expected an optimiser for each of {sorted(networks)}; got none for {missing}. Pass None for a "
                "network that is held still."
            )
        self.loss = loss
        self.players = tuple(
            Player(name, network, optimizer, _unpacked(losses[name]), steps.get(name, 1), schedulers.get(name))
            for name, network in networks.items()
            if (optimizer := optimizers[name]) is not None
        )

    def step(self, *args: Any) -> dict[str, float]:
        """Let every player move once (or as often as its step count) on the same arguments.

        Networks keep their modes.

        Args:
            *args: Arguments of the losses: a batch, or a Pyro model's arguments.

        Returns:
            Each player's loss before its last update.

        Raises:
            NonFiniteLoss: naming the player, before its update.
        """
        last: dict[str, float] = {}

        def keep(step: int, losses: dict[str, float]) -> None:
            last.update(losses)

        train(self.players, lambda: args, num_steps=1, callback=keep, progress=False)
        return last

    def evaluate_loss(self, *args: Any) -> dict[str, float]:
        """Return each player's loss, also for players without an optimiser; nothing moves.

        Args:
            *args: Arguments of the losses.
        """
        # In training mode a layer with batch statistics updates them at every call.
        buffers = [buffer for network in self.loss.networks().values() for buffer in network.buffers()]
        before = [(buffer, buffer.clone()) for buffer in buffers]
        with torch.no_grad():
            try:
                return {name: float(loss(*args)) for name, loss in self.loss.losses().items()}
            finally:
                for buffer, value in before:
                    buffer.copy_(value)

    def run(
        self,
        data: Tensor | Iterable[Any],
        *,
        num_steps: int,
        batch_size: int | None = None,
        callback: Callable[[int, dict[str, float]], bool | None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 1000,
        checkpoint_minutes: float = 10.0,
        progress: bool = True,
    ) -> int:
        """Train, each update on a new batch.

        Networks that move are in training mode during the run and in evaluation mode after it. An interrupted run goes
        on from its checkpoint and ends with the same bits as an uninterrupted one, if `data` is a tensor, or draws the
        order of each epoch from torch's generators as the epoch begins (a `DataLoader` does).

        Args:
            data: All data, `(datum, *event)`, or an iterable of batches that can be iterated again; a batch is a tensor
                or a sequence that begins with one.
            num_steps: Number of steps, with those before a resume.
            batch_size: Rows of a batch, if `data` is a tensor.
            callback: Called after each step with the number of steps so far and each player's last loss. True ends the
                run.
            checkpoint: Path of a file; see `training.train`. A file of another loss, of other data, networks or steps
                is refused.
            checkpoint_every: Largest number of steps between checkpoints.
            checkpoint_minutes: Largest time between checkpoints, in minutes.
            progress: Whether to show a bar with the losses.

        Returns:
            The number of steps, with those before a resume.

        Raises:
            ValueError: if the data end or are empty, or a checkpoint belongs to another run, is damaged or in use.
            NonFiniteLoss: naming player and step.
        """
        device = next((p.device for player in self.players for p in player.module.parameters()), None)
        batches = Batches(data, batch_size=batch_size, device=device or torch.device("cpu"))
        if checkpoint is not None and not batches.can_resume:
            raise ValueError(
                "Expected data that can be iterated again after a resume from a checkpoint; got an iterator. Pass the "
                "DataLoader or list itself, or no checkpoint."
            )
        modules = [player.module.train() for player in self.players]
        try:
            return train(
                self.players,
                lambda: (batches(),),
                num_steps=num_steps,
                callback=callback,
                state=batches,
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
                checkpoint_minutes=checkpoint_minutes,
                settings={} if checkpoint is None else batches.settings | self._settings(),
                progress=progress,
            )
        finally:
            for module in modules:
                module.eval()

    def _settings(self) -> dict[str, str]:
        """Return what a checkpoint must have in common with this objective; networks held still are not in the file."""
        moved = {player.name for player in self.players}
        still = {name: network for name, network in self.loss.networks().items() if name not in moved}
        weights = {f"{name}, which is held still,": describe(network.state_dict()) for name, network in still.items()}
        return {"loss": describe(self.loss), **weights}


def _unpacked(loss: Callable[..., Tensor]) -> Callable[[tuple[Any, ...]], Tensor]:
    return lambda args: loss(*args)
