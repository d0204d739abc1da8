"""Draws of a Pyro model's latent sites: many in one run if the model takes an outer plate, else run by run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_gan.targets.sites import is_deterministic

__all__ = ["draw_one_by_one", "draw_together"]

Model = Callable[..., Any]


def draw_one_by_one(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], names: set[str], num_draws: int
) -> dict[str, Tensor]:
    """Run the model once a draw, as far as its last latent site.

    Returns:
        Constrained values, `{site: (num_draws, *event)}`.
    """
    draws = [_run(_Collector(names), model, args, kwargs).values for _ in range(num_draws)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in sorted(names)}


def draw_together(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes: dict[str, torch.Size],
    num_draws: int,
    *,
    dim: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Run the model once, in a plate of `num_draws`, as far as its last latent site.

    A model that was not written for such a plate may fail, or mix the draws up without failing. So the log densities
    come back too: they are those of the draws, taken one by one, if and only if every site saw its own row.

    Args:
        model: A Pyro model.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        shapes: Of the latent sites, constrained.
        num_draws: Number of draws.
        dim: The plate's dimension, left of all of the model's.

    Returns:
        Constrained values, `{site: (num_draws, *event)}`, and log densities `(num_draws,)`.
    """
    # A name that no model will use: two plates of one name would clash.
    with pyro.plate("_pyro_gan_draws", num_draws, dim=dim):
        collected = _run(_Collector(set(shapes)), model, args, kwargs)
    values = {name: collected.values[name].reshape(num_draws, *shape) for name, shape in shapes.items()}
    log_prob = torch.stack([value.reshape(num_draws, -1).sum(-1) for value in collected.log_probs])
    return values, log_prob.sum(0)


class _AllDrawnError(BaseException):
    """The last latent site has its value."""


class _Collector(Messenger):
    """Keeps latent values and their log densities, and ends the run after the last."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self._names = names
        self.values: dict[str, Tensor] = {}
        self.log_probs: list[Tensor] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] not in self._names or msg["is_observed"] or is_deterministic(msg):
            return
        self.values[msg["name"]] = msg["value"]
        self.log_probs.append(msg["fn"].log_prob(msg["value"]))
        if len(self.values) == len(self._names):
            raise _AllDrawnError


def _run(collector: _Collector, model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Collector:
    with pyro.validation_enabled(False), torch.no_grad():
        try:
            with collector:
                model(*args, **kwargs)
        except _AllDrawnError:
            pass
    return collector
