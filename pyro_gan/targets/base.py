"""What kernels sample: a potential over rows and, for most models, its split into prior and weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.circular import Wrap
from pyro_gan.targets.discrete import Discrete
from pyro_gan.targets.rows import ValueAndGrad
from pyro_gan.targets.state import State

__all__ = ["Target", "WeightedTarget", "check_sites", "check_weighted", "constrained"]


class Target(ABC):
    """A potential energy over flat unconstrained vectors, one for each chain.

    Kernels see nothing else. All methods take `z` of shape `(chain, dim)`, the values of the sites raveled and joined
    in the order of their names, and return one value for each chain; it depends on the chain's own row only.

    Attributes:
        shapes: Unconstrained event shape of every site.
        transforms: Constrained to unconstrained, by site (Pyro's direction).
        dim: Length of a row.
        dtype: Dtype of the rows.
        device: Device of the rows.

    Args:
        prototype: Unconstrained values of one chain, `{site: (*event)}`.
        transforms: See the attribute.
    """

    def __init__(self, prototype: Params, transforms: dict[str, Transform]) -> None:
        self.shapes = {name: checks.tensor(name, value).shape for name, value in sorted(prototype.items())}
        self.transforms = transforms
        self.dim = sum(math.prod(shape) for shape in self.shapes.values())
        first = next(iter(prototype.values()))
        self.dtype, self.device = first.dtype, first.device

    @property
    def discrete_sites(self) -> list[str]:
        """Names of the sites with discrete values: only draws of the prior give these."""
        return [name for name, transform in self.transforms.items() if isinstance(transform, Discrete)]

    @property
    def functions(self) -> tuple[Any, ...]:
        """What the target is computed with: models, networks, functions that hold networks, their arguments."""
        return ()

    @abstractmethod
    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""

    @abstractmethod
    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential energy and its gradient."""

    def evaluate(self, z: Float[Tensor, "chain dim"], *, gradient: bool) -> State:
        """Return the state at positions, with or without the gradient."""
        return State(z, *self.potential_and_grad(z)) if gradient else State(z, self.potential(z))

    def pack(self, params: Params) -> Float[Tensor, "chain dim"]:
        """Join the values of the sites, `{site: (chain, *event)}`, into rows."""
        rows = [params[name].reshape(len(params[name]), -1) for name in self.shapes]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)

    def unpack(self, z: Float[Tensor, "*batch dim"]) -> dict[str, Tensor]:
        """Split rows into the values of the sites, `{site: (*batch, *event)}`, without copying."""
        columns = z.split([math.prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: column.reshape(z.shape[:-1] + shape)
            for (name, shape), column in zip(self.shapes.items(), columns, strict=True)
        }

    def wrap(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, "chain dim"]:
        """Return rows with every angle taken back to one turn, where its density is; rows without angles as they are.

        A kernel whose proposals do not depend on where the zero of an angle is calls it before it evaluates them.
        """
        angles = self._angles()
        if not angles:
            return z
        values = self.unpack(z)
        return self.pack({name: Wrap()(value) if name in angles else value for name, value in values.items()})

    @property
    def is_compact(self) -> bool:
        """Whether all sites are angles, so that no step is too long to be accepted."""
        return self._angles() == set(self.shapes)

    def _angles(self) -> set[str]:
        return {name for name, transform in self.transforms.items() if isinstance(transform.inv, Wrap)}

    def constrained(self, z: Float[Tensor, "*batch dim"]) -> dict[str, Tensor]:
        """Return rows as constrained values of the sites, `{site: (*batch, *event)}`."""
        return constrained(self.unpack(z), self.transforms)


class WeightedTarget(Target):
    """A target whose prior and weight are known separately: `potential = -log_prior - log_weight`."""

    @abstractmethod
    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the prior in unconstrained space."""

    @abstractmethod
    def log_prior_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the log density of the prior in unconstrained space, and its gradient."""

    @abstractmethod
    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log weight that turns the prior into the target."""

    @abstractmethod
    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw from the prior, in unconstrained space."""

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw starting points for chains: prior draws, unless the target has a better choice."""
        return self.sample_prior(num_draws)

    def evaluate_weighted(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at positions, with the log weight over the prior and without a gradient."""
        log_weight = self.log_weight(z)
        return State(z, -self.log_prior(z) - log_weight, None, log_weight)

    def weigh(self, state: State) -> State:
        """Add the log weight over the prior to a state whose potential is known; the gradient is dropped."""
        return state._replace(grad=None, log_weight=-state.potential - self.log_prior(state.z))


def check_sites(name: str, params: Params, target: Target) -> None:
    """Raise unless `params` holds a tensor for each site of a target, and no others; `name` is what it is called."""
    checks.instance(name, params, Mapping, cure="Pass {site: values}.")
    if set(params) != set(target.shapes):
        raise ValueError(f"Expected {name} for the sites {sorted(target.shapes)}; got {sorted(map(str, params))}.")
    for site, value in params.items():
        checks.tensor(f"{name}[{site!r}]", value)


def check_weighted(target: Target) -> WeightedTarget:
    """Return a target, or raise unless its prior and weight are known separately."""
    cure = "A bare potential_fn does not say which part of it is the prior: pass a model such as LatentPosterior."
    weighted: WeightedTarget = checks.instance("target", target, WeightedTarget, cure=cure)
    return weighted


def constrained(values: Params, transforms: Mapping[str, Transform]) -> dict[str, Tensor]:
    """Return unconstrained values by site as constrained ones; a site without a transform stays as it is."""
    return {name: transforms[name].inv(value) if name in transforms else value for name, value in values.items()}
