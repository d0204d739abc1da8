"""Pyro's SVI for objectives of several players: each network has an optimiser, a step count and a loss of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_gan.training import Player, train
from pyro_gan.training.batches import Batches
from pyro_gan.vi.players import AdversarialLoss

__all__ = ["AdversarialSVI"]


class AdversarialSVI:
    """Train the networks of an adversarial objective in turn.

    Pyro's `SVI` moves all parameters it meets down one loss, a discriminator's too, the wrong way. Here every player
    differentiates its own loss with respect to its own parameters: none is moved by another's gradient and none is left
    on anyone. In a step the players move in the order of the objective's roles, each as often as `steps` says.

    Args:
        loss: `HybridLoss(...)`, or `RatioELBO(...)(model, guide)` for a Pyro model and guide that are modules.
        optimizers: By player, an optimiser of its parameters, or None to hold it still, as the generator of a trained
            GAN may be while an encoder is fitted to it (`eval()` it first: batch statistics move without an optimiser).
        steps: By player, updates in one step; 1 where nothing is said.
        schedulers: By player, a scheduler that steps once a step.

    Raises:
        ValueError: if a player has no entry in `optimizers`, or a name is no player's; at the first step, if a player
            has no parameters or one belongs to two.

    References:
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987

    Example:
        >>> import pyro.distributions as dist
        >>> from torch import nn
        >>> from pyro_gan.vi import HYBRIDS, AggregatedRatio, HybridLoss, ImplicitGuide, Joined, Observer
        >>> prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> encoder = ImplicitGuide(Joined(nn.Linear(3 + 2, 2)), prior, event_shape=(2,))
        >>> generator, discriminator, code = nn.Linear(2, 3), nn.Linear(3, 1), AggregatedRatio(nn.Linear(2, 1))
        >>> loss = HybridLoss(
        ...     HYBRIDS["alpha-GAN"], generator=generator, prior=prior, encoder=encoder, code_ratio=code,
        ...     discriminator=discriminator, observer=Observer("laplace", 1.0, reduction="sum"),
        ... )
        >>> networks = {"encoder": encoder, "generator": generator, "discriminator": discriminator, "code": code}
        >>> svi = AdversarialSVI(
        ...     loss, {name: torch.optim.Adam(net.parameters(), lr=1e-3) for name, net in networks.items()},
        ...     steps={"encoder": 2, "generator": 2},
        ... )
        >>> sorted(svi.step(torch.randn(8, 3)))
        ['code', 'discriminator', 'encoder', 'generator']
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
        roles = loss.roles()
        steps, schedulers = steps or {}, schedulers or {}
        missing = sorted(roles.keys() - optimizers.keys())
        if missing:
            raise ValueError(
                f"Expected an optimiser for each of {sorted(roles)}; got none for {missing}. Pass None for a player "
                "that is to be held still."
            )
        for what, names in (("optimizers", optimizers), ("steps", steps), ("schedulers", schedulers)):
            strangers = sorted(set(names) - roles.keys())
            if strangers:
                raise ValueError(f"Expected {what} for the players {sorted(roles)}; got {strangers}.")
        self.loss = loss
        self.players = tuple(
            Player(
                name,
                role.module,
                optimizer,
                _unpacked(role.loss),
                steps=steps.get(name, 1),
                scheduler=schedulers.get(name),
            )
            for name, role in roles.items()
            if (optimizer := optimizers[name]) is not None
        )

    def step(self, *args: Any) -> dict[str, float]:
        """Let every player move once (or as often as its step count) on the same arguments.

        Networks stay in the modes they are in.

        Args:
            *args: What the losses take: a batch, or a Pyro model's arguments.

        Returns:
            Each player's loss before its last update.

        Raises:
            NonFiniteLoss: naming the player, before its update.
        """
        last: dict[str, float] = {}

        def remember(step: int, losses: dict[str, float]) -> None:
            last.update(losses)

        train(self.players, lambda: args, num_steps=1, callback=remember, progress=False)
        return last

    def evaluate_loss(self, *args: Any) -> dict[str, float]:
        """Return each player's loss, held-still players included; nothing moves.

        Args:
            *args: What the losses take.
        """
        roles = self.loss.roles()
        # In training mode a layer with batch statistics updates them at every call.
        before = [(buffer, buffer.clone()) for role in roles.values() for buffer in role.module.buffers()]
        with torch.no_grad():
            try:
                return {name: float(role.loss(*args)) for name, role in roles.items()}
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
        progress: bool = True,
    ) -> int:
        """Train, each update on a fresh batch.

        Networks that move are put in training mode and left in evaluation mode. A run that is killed goes on from its
        checkpoint, and ends with the bits of one that was not, if `data` is a tensor or draws each epoch's order from
        torch's generators as the epoch begins (a `DataLoader` does).

        Args:
            data: All data, `(datum, *event)`, or an iterable of batches that can be iterated again; a batch is a tensor
                or a sequence that begins with one.
            num_steps: Steps in all, those before a resume included.
            batch_size: Rows of a batch, where `data` is a tensor.
            callback: Called after each step with the number of steps done and each player's last loss. True ends the
                run.
            checkpoint: Path of a file; see `training.train`.
            checkpoint_every: Steps between checkpoints.
            progress: Show a bar with the losses.

        Returns:
            The number of steps done, those before a resume included.

        Raises:
            ValueError: if the data end or are empty, or a checkpoint does not fit.
            NonFiniteLoss: naming player and step.
        """
        device = next((p.device for player in self.players for p in player.module.parameters()), None)
        batches = Batches(data, batch_size=batch_size, device=device or torch.device("cpu"))
        if checkpoint is not None and not batches.can_resume:
            raise ValueError(
                "Expected data that can be iterated again, to resume from a checkpoint; got an iterator. Pass the "
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
                progress=progress,
            )
        finally:
            for module in modules:
                module.eval()


def _unpacked(loss: Callable[..., Tensor]) -> Callable[[tuple[Any, ...]], Tensor]:
    return lambda args: loss(*args)
