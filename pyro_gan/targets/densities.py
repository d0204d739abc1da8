"""The log densities of a Pyro model at given latents: of the latent sites, and of observations and factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import torch
from pyro.distributions import Unit
from pyro.distributions.util import is_identically_one, scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_gan._networks import unchecked
from pyro_gan._typing import Params
from pyro_gan.targets.sites import Enough, is_deterministic, run_under

__all__ = ["SiteError", "log_densities", "log_likelihoods"]


@final
class SiteError(RuntimeError):
    """A log density could not be computed; says at which site."""

    def __init__(self, name: str, fn: Any, error: Exception) -> None:
        super().__init__(str(error))
        self.name = name
        self.distribution = type(fn).__name__


def log_densities(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    values: Params,
    *,
    prior: bool = True,
    weight: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the log density of the latent sites, and that of everything observed, both scalars.

    If `poutine.scale` scales a latent site, the prior has its density once, because the model draws from that; the rest
    belongs to the weight. This works under `torch.func.vmap` and autograd, and Pyro's own trace evaluation does not.

    Args:
        model: A Pyro model.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        values: Constrained values of all latent sites.
        prior: Whether to compute the first; otherwise it is 0.
        weight: Whether to compute the second; otherwise it is 0, and the model stops after its last latent site.
    """
    scorer = _Scorer(values, prior=prior, weight=weight)
    run_under(scorer, model, args, kwargs)
    return scorer.log_prior, scorer.log_weight


def log_likelihoods(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], values: Params
) -> dict[str, Tensor]:
    """Return the log density of every observation, by site, without factors; a mask sets it to 0, no scale applies.

    Args:
        model: A Pyro model.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        values: Constrained values of all latent sites.

    Returns:
        `{site: (*batch)}`, the batch shape of the site's distribution: one number for each observation in a plate.
    """
    reader = _Reader(values)
    run_under(reader, model, args, kwargs)
    return reader.log_probs


class _Fixed(Messenger, ABC):
    """Sets the latents to given values; a subclass reads the other sites."""

    def __init__(self, values: Params) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._values and not msg["is_observed"]:
            msg["value"] = self._values[msg["name"]]
            msg["done"] = True

    @abstractmethod
    def _pyro_post_sample(self, msg: Any) -> None: ...

    def _log_prob(self, msg: Any) -> Tensor:
        try:
            log_prob: Tensor = unchecked(msg["fn"]).log_prob(msg["value"])
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise SiteError(msg["name"], msg["fn"], error) from error
        return log_prob


@final
class _Reader(_Fixed):
    """Keeps the log density of every observation."""

    def __init__(self, values: Params) -> None:
        super().__init__(values)
        self.log_probs: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        is_factor = isinstance(msg["fn"], Unit)
        if msg["is_observed"] and not is_factor and not is_deterministic(msg):
            self.log_probs[msg["name"]] = scale_and_mask(self._log_prob(msg), 1.0, msg["mask"])


@final
class _Scorer(_Fixed):
    """Sums the log densities of the sites."""

    def __init__(self, values: Params, *, prior: bool, weight: bool) -> None:
        super().__init__(values)
        self._prior = prior
        self._weight = weight
        self._waiting = set(values)
        first = next(iter(values.values()))
        self.log_prior = torch.zeros((), dtype=first.dtype, device=first.device)
        self.log_weight = self.log_prior

    def _pyro_post_sample(self, msg: Any) -> None:
        if is_deterministic(msg):
            return
        is_latent = msg["name"] in self._values
        if is_latent:
            self._waiting.discard(msg["name"])
            if self._prior:
                self.log_prior = self.log_prior + self._total(msg)
            if self._weight and not is_identically_one(msg["scale"]):
                self.log_weight = self.log_weight + self._total(msg, msg["scale"] - 1.0)
        elif self._weight:
            self.log_weight = self.log_weight + self._total(msg, msg["scale"], msg["mask"])
        if not self._weight and not self._waiting:
            raise Enough

    def _total(self, msg: Any, scale: Any = 1.0, mask: Any = None) -> Tensor:
        total: Tensor = scale_and_mask(self._log_prob(msg), scale, mask).sum()
        return total
