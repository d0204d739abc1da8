"""One training loop for any number of players: progress, checkpoints, bit-exact resume, a stop at NaN.

In a step every player moves in turn. A move evaluates the player's own loss, differentiates it with respect to its own
parameters alone, and steps its own optimiser; it leaves no gradient on the parameters of other players.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from pyro_gan import files
from pyro_gan.checks import count, function, instance, real, shaped
from pyro_gan.files.place import check_path
from pyro_gan.interrupts import held_back
from pyro_gan.training.checkpoint import KIND, Stateful, content, restore

__all__ = ["NonFiniteLoss", "Player", "train"]


@final
class Player(NamedTuple):
    """A network with its own optimiser and its own loss.

    Attributes:
        name: Its name in errors, in the progress bar and in the checkpoint.
        module: The network; it must hold every parameter that the optimiser moves.
        optimizer: Any `torch.optim` optimiser that steps without a closure.
        loss: Maps a batch to a scalar; it may use the networks of all players.
        steps: Updates of this player in one step, each on a fresh batch.
        scheduler: Steps once in each step, after the player's updates, for any value of `steps`.
    """

    name: str
    module: nn.Module
    optimizer: Optimizer
    loss: Callable[[Any], Tensor]
    steps: int = 1
    scheduler: LRScheduler | None = None


@final
class NonFiniteLoss(RuntimeError):
    """A player's loss or gradient is NaN or infinite; it is raised before the update that would use it."""


def train(
    players: Sequence[Player],
    next_batch: Callable[[], Any],
    *,
    num_steps: int,
    callback: Callable[[int, dict[str, float]], bool | None] | None = None,
    state: Stateful | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    checkpoint_minutes: float = 10.0,
    settings: Mapping[str, str] | None = None,
    progress: bool = True,
) -> int:
    """Let the players move in turn, `num_steps` times.

    If the file `checkpoint` exists, the run continues from it and ends with the bits of an uninterrupted run, on the
    same machine with the same number of threads. For this, `next_batch`, the losses and the callback must draw from
    torch's generators and keep no memory outside the modules and `state`. The file's settings of optimisers and
    schedulers replace those given. Each update reads its loss from the device once, so that NaN is found before it
    reaches the parameters.

    The first Ctrl-C, or SIGTERM, waits for the end of the step, and a second one does not.

    Args:
        players: They move in this order.
        next_batch: Draws the argument of the losses; called once for each update.
        num_steps: The total number of steps, those before a resume included.
        callback: Called after each step with the number of steps done and each player's last loss. True ends the run
            for good: to resume an ended run makes no step.
        state: Anything else that a checkpoint must keep, for instance the memory of the callback.
        checkpoint: Path of a file, written at the end, every `checkpoint_every` steps or `checkpoint_minutes`, and at a
            Ctrl-C or SIGTERM. A crash never leaves half a file; see `pyro_gan.files`. One run at a time may use it.
        checkpoint_every: Largest number of steps between checkpoints.
        checkpoint_minutes: Largest time between checkpoints, in minutes and to the end of a step.
        settings: What a run that goes on must have in common with the run of the file, in words: the texts by the
            names that an error shall show. Networks, optimisers and the players' `steps` are compared in any case.
        progress: Show a bar with the losses.

    Returns:
        The number of steps done, those before a resume included.

    Raises:
        ValueError: if an argument, a player or the checkpoint found does not fit, or the file is damaged or in use.
            Nothing was loaded then.
        NonFiniteLoss: naming player and step.

    Warns:
        UserWarning: if a checkpoint cannot be written, for instance because the disk is full. Training goes on.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> def fit(x):
        ...     return (model(x) - 3.0 * x).square().mean()
        >>> player = Player("line", model, torch.optim.SGD(model.parameters(), lr=0.3), fit)
        >>> train([player], lambda: torch.randn(64, 1), num_steps=100, progress=False)
        100
        >>> round(model.weight.item(), 2)
        3.0
    """
    num_steps, checkpoint_every = count("num_steps", num_steps), count("checkpoint_every", checkpoint_every)
    checkpoint_minutes = real("checkpoint_minutes", checkpoint_minutes, above=0)
    function("next_batch", next_batch)
    if callback is not None:
        function("callback", callback)
    parameters = _check_players(players)
    parts = _parts(players, state)
    settings = {f"steps of player {player.name!r}": str(player.steps) for player in players} | dict(settings or {})
    path = None if checkpoint is None else check_path("checkpoint", checkpoint)
    done, ended = 0, False
    with nullcontext() if path is None else files.writer(path, kind=KIND) as write:
        if path is not None and path.exists():
            done, ended = restore(path, parts, settings, num_steps)
        written = time.monotonic()
        with (
            torch.enable_grad(),
            held_back() as interrupted,
            tqdm(total=num_steps, initial=done, disable=not progress) as bar,
        ):
            while done < num_steps and not ended:
                losses = {}
                for player in players:
                    losses[player.name] = _move(player, parameters[player.name], next_batch, done + 1)
                done += 1
                ended = callback is not None and bool(callback(done, losses))
                bar.set_postfix({name: f"{loss:.4g}" for name, loss in losses.items()}, refresh=False)
                bar.update()
                due = done % checkpoint_every == 0 or time.monotonic() - written >= 60 * checkpoint_minutes
                leave = interrupted()
                if write is not None and (due or leave or ended or done == num_steps):
                    try:
                        write(content(parts, settings, {"step": done, "ended": ended}))
                    except OSError as error:
                        warnings.warn(_not_written(checkpoint, done, error), stacklevel=2)
                    written = time.monotonic()
                if leave:
                    break
    return done


def _not_written(checkpoint: Any, step: int, error: OSError) -> str:
    return (
        f"The checkpoint {os.fspath(checkpoint)} could not be written at step {step} ({error.strerror or error}). "
        "Training goes on, and an earlier checkpoint is unchanged. Make room on the disk, or make the folder writable."
    )


def _move(player: Player, parameters: list[nn.Parameter], next_batch: Callable[[], Any], step: int) -> float:
    """Update one player `player.steps` times and return its last loss."""
    for _ in range(player.steps):
        cure = "Take its mean over the batch."
        loss = shaped(f"a scalar loss from player {player.name!r},", player.loss(next_batch()), (), cure=cure)
        gradients: Sequence[Tensor | None] = [None] * len(parameters)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found = [gradient for gradient in gradients if gradient is not None]
        if not found:
            raise ValueError(
                f"The loss of player {player.name!r} does not depend on its parameters. "
                "Compute it from the player's module, without detach() or no_grad()."
            )
        value = _check_finite(player.name, step, loss, found)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        player.optimizer.step()
        player.optimizer.zero_grad(set_to_none=True)
    if player.scheduler is not None:
        player.scheduler.step()
    return value


def _check_finite(name: str, step: int, loss: Tensor, gradients: Sequence[Tensor]) -> float:
    """Return the loss as a float; raise if it or the gradient's norm is not finite."""
    norms = [torch.linalg.vector_norm(gradient).to(loss.device) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    wide = torch.promote_types(loss.dtype, torch.float32)  # half precision would overflow at a normal norm
    value, size = torch.stack([loss.detach().to(wide), norm.to(wide)]).tolist()  # one read for both
    if not (math.isfinite(value) and math.isfinite(size)):
        raise NonFiniteLoss(
            f"Player {name!r} has loss {value:g} with gradient norm {size:g} at step {step}; its parameters "
            "are those before this update. Lower its learning rate, or look for NaN in the data."
        )
    return float(value)


def _check_players(players: Sequence[Player]) -> dict[str, list[nn.Parameter]]:
    """Return each player's own trainable parameters, or raise."""
    own: dict[str, list[nn.Parameter]] = {}
    owner: dict[int, str] = {}
    for player in players if isinstance(players, Sequence) else ():
        name = instance("name of a player", instance("players", player, Player).name, str)
        if name in own:
            raise ValueError(f"Expected players of different names; got {name!r} twice.")
        instance(f"module of player {name!r}", player.module, nn.Module)
        instance(f"optimizer of player {name!r}", player.optimizer, Optimizer)
        function(f"loss of player {name!r}", player.loss)
        count(f"steps of player {name!r}", player.steps)
        scheduled = player.optimizer if player.scheduler is None else getattr(player.scheduler, "optimizer", None)
        if scheduled is not player.optimizer:
            raise ValueError(f"The scheduler of player {name!r} drives another optimiser than the player's.")
        moved = [p for group in player.optimizer.param_groups for p in group["params"] if p.requires_grad]
        if not moved:
            raise ValueError(
                f"Player {name!r} has no parameter to train. "
                "Give its optimiser parameters with requires_grad=True, or leave the player out."
            )
        if not set(map(id, moved)) <= set(map(id, player.module.parameters())):
            raise ValueError(
                f"The optimiser of player {name!r} moves parameters that its module does not hold, so a "
                "checkpoint would lose them. Put them all in one module, e.g. a torch.nn.ModuleList."
            )
        for p in moved:
            if owner.setdefault(id(p), name) != name:
                raise ValueError(
                    f"A parameter of shape {tuple(p.shape)} belongs to players {owner[id(p)]!r} and {name!r}. "
                    "Give it to the optimiser of one of them."
                )
        own[name] = moved
    if not own:
        raise ValueError("Expected a list of at least one player; got none.")
    return own


def _parts(players: Sequence[Player], state: Stateful | None) -> dict[str, Stateful]:
    """Return everything that a checkpoint keeps; `state` comes last, because it may compare what the networks do."""
    parts: dict[str, Stateful] = {}
    for player in players:
        parts[f"{player.name}.module"] = player.module
        parts[f"{player.name}.optimizer"] = player.optimizer
        if player.scheduler is not None:
            parts[f"{player.name}.scheduler"] = player.scheduler
    if state is not None:
        parts["state"] = instance("state", state, Stateful, cure="It needs state_dict and load_state_dict.")
    return parts
