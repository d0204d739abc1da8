"""Draws of a Pyro model's latent sites: all in one run if the model works in an outer plate, else one in each run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_gan.targets.sites import Enough, is_deterministic, run_under

__all__ = ["draw_one_by_one", "draw_together"]

Model = Callable[..., Any]


@torch.no_grad()
def draw_one_by_one(
    model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], names: set[str], num_draws: int
) -> dict[str, Tensor]:
    """Run the model once for each draw, up to its last latent site.

    Returns:
        Constrained values, `{site: (num_draws, *event)}`.
    """
    collectors = [_Collector(names) for _ in range(num_draws)]
    for collector in collectors:
        run_under(collector, model, args, kwargs)
    return {name: torch.stack([each.values[name] for each in collectors]) for name in sorted(names)}


@torch.no_grad()
def draw_together(
    model: Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes: dict[str, torch.Size],
    num_draws: int,
    *,
    dim: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Run the model once, in a plate of `num_draws`, up to its last latent site.

    A model that was not written for such a plate may fail, or may mix up the draws without failing. So the log
    densities are returned too: they equal those of the separate draws if and only if each site saw its own row.

    Args:
        model: A Pyro model.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        shapes: Shapes of the latent sites, constrained.
        num_draws: Number of draws.
        dim: The plate's dimension, left of all dimensions of the model.

    Returns:
        Constrained values, `{site: (num_draws, *event)}`, and log densities `(num_draws,)`.
    """
    collected = _Collector(set(shapes))
    # The name must not be one of the model: two plates of one name would clash.
    run_under(collected, model, args, kwargs, pyro.plate("_pyro_gan_draws", num_draws, dim=dim))
    values = {name: collected.values[name].reshape(num_draws, *shape) for name, shape in shapes.items()}
    log_prob = torch.stack([value.reshape(num_draws, -1).sum(-1) for value in collected.log_probs])
    return values, log_prob.sum(0)


@final
class _Collector(Messenger):
    """Keeps latent values and their log densities, and stops the model after the last one."""

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
            raise Enough
