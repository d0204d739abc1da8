"""One linear model with each kind of plate, subsample, scale and mask, an explicit guide and its implicit twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_gan.distributions.implicit import Implicit

NUM_DATA, SUBSAMPLE, DIM = 64, 16, 1
NOISE = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0).expand([DIM]).to_event(1)


class Encoder(nn.Module):
    """z = a x + b + s noise."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(-0.2, dtype=torch.float64))
        self.log_s = nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.a * x + self.b + self.log_s.exp() * noise

    def explicit(self, x: Tensor) -> dist.TorchDistribution:
        return dist.Normal(self.a * x + self.b, self.log_s.exp()).to_event(1)

    def implicit(self, x: Tensor) -> dist.TorchDistribution:
        return Implicit(self, NOISE, event_shape=(DIM,), context=x)


class ExactRatio(nn.Module):
    """log q(z|x) - log p(z) at the encoder's present parameters."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.encoder.explicit(x).log_prob(z) - prior().log_prob(z)


class Program(NamedTuple):
    model: Callable[..., Any]
    explicit: Callable[..., Any]
    implicit: Callable[..., Any]


def prior() -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(DIM, dtype=torch.float64), 1.0).to_event(1)


def data() -> Tensor:
    return torch.linspace(-2, 2, NUM_DATA, dtype=torch.float64)[:, None]


def likelihood(mean: Tensor) -> dist.TorchDistribution:
    return dist.Normal(mean, 0.7).to_event(1)


KINDS = (
    "plain", "subsample", "nested", "scale", "handler mask", "distribution mask", "everything", "global", "discrete"
)  # fmt: skip


def program(kind: str, encoder: Encoder) -> Program:
    """A model and its two guides; parameters of the encoder are registered with Pyro."""
    rows = torch.arange(NUM_DATA)
    mask = rows % 3 != 0

    def wrapped(name: str, fn: Any, index: Tensor, x: Tensor) -> Tensor:
        if kind in ("distribution mask", "everything"):
            fn = fn.mask(mask[index])
        scale = 0.3 if kind in ("scale", "everything") else 1.0
        with poutine.scale(scale=scale):
            if kind == "handler mask":
                with poutine.mask(mask=mask[index]):
                    return pyro.sample(name, fn, infer={"context": x})
            return pyro.sample(name, fn, infer={"context": x})

    def size() -> int | None:
        return SUBSAMPLE if kind in ("subsample", "everything", "global", "discrete") else None

    def model(x: Tensor) -> None:
        shift = torch.zeros((), dtype=torch.float64)
        if kind == "global":
            shift = pyro.sample("shift", dist.Normal(shift, 1.0))
        if kind == "discrete":
            shift = pyro.sample("flip", dist.Bernoulli(shift + 0.5))
        if kind == "nested":
            with pyro.plate("outer", 8, dim=-2), pyro.plate("data", 8, dim=-1):
                z = wrapped("z", prior(), rows[:8], x.reshape(8, 8, 1))
                pyro.sample("x", likelihood(z), obs=x.reshape(8, 8, 1))
            return
        with pyro.plate("data", NUM_DATA, subsample_size=size()) as index:
            z = wrapped("z", prior(), index, x[index])
            pyro.sample("x", likelihood(z + shift[..., None, None]), obs=x[index])

    def guide(x: Tensor, conditional: Callable[[Tensor], Any]) -> None:
        pyro.module("encoder", encoder)
        if kind == "global":
            loc = pyro.param("loc", lambda: torch.tensor(0.3, dtype=torch.float64))
            pyro.sample("shift", dist.Normal(loc, 0.5))
        if kind == "discrete":
            logit = pyro.param("logit", lambda: torch.tensor(0.4, dtype=torch.float64))
            pyro.sample("flip", dist.Bernoulli(logits=logit))
        if kind == "nested":
            with pyro.plate("outer", 8, dim=-2), pyro.plate("data", 8, dim=-1):
                wrapped("z", conditional(x.reshape(8, 8, 1)), rows[:8], x.reshape(8, 8, 1))
            return
        with pyro.plate("data", NUM_DATA, subsample_size=size()) as index:
            wrapped("z", conditional(x[index]), index, x[index])

    return Program(model, lambda x: guide(x, encoder.explicit), lambda x: guide(x, encoder.implicit))
