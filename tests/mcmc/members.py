"""All kernels that `pyro_gan.mcmc` exports, and how the tests construct them.

A kernel whose constructor needs no more than a model is tested without an entry here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch

from pyro_gan import LatentPosterior, mcmc, toys
from pyro_gan.mcmc import (
    ISIR,
    MALA,
    PCN,
    BatchHMC,
    BatchKernel,
    ChEES,
    IndependenceMH,
    LocalGlobal,
    MetropolisHastings,
    RandomWalk,
    SteppedKernel,
)
from tests.mcmc.proposals import Drifting
from tests.registry import concrete_members

__all__ = ["EXACT", "FOUND", "KERNELS", "STEPPED", "Make", "described", "settings", "walk_in"]

Make = Callable[..., BatchKernel]


def drift_and_jump(
    model: Any = None,
    potential_fn: Callable | None = None,
    *,
    num_chains: int | None = None,
    proposal: dist.TorchDistribution | None = None,
    **options: Any,
) -> LocalGlobal:
    jump = ISIR(model, potential_fn, num_particles=3, proposal=proposal)
    return LocalGlobal(MALA(model, potential_fn, **options), jump, num_chains=num_chains, num_local=1)


def walk_and_jump(
    model: Any = None,
    potential_fn: Callable | None = None,
    *,
    num_chains: int | None = None,
    proposal: dist.TorchDistribution | None = None,
    **options: Any,
) -> LocalGlobal:
    jump = IndependenceMH(model, potential_fn, proposal=proposal)
    walk = PCN(model, potential_fn, proposal=proposal, **options)
    return LocalGlobal(walk, jump, num_chains=num_chains, num_local=2, num_global=2)


#: Kernels that need more than a model, or that the tests run with other settings than the defaults.
BUILT: dict[str, dict[str, Make]] = {
    "BatchHMC": {"BatchHMC": functools.partial(BatchHMC, num_steps=5)},
    "ISIR": {"ISIR": functools.partial(ISIR, num_particles=4)},
    "LocalGlobal": {"LocalGlobal, MALA and ISIR": drift_and_jump, "LocalGlobal, PCN and IndependenceMH": walk_and_jump},
    "MetropolisHastings": {"MetropolisHastings": functools.partial(MetropolisHastings, proposal=Drifting())},
}

FOUND = concrete_members(mcmc, BatchKernel)
KERNELS: dict[str, Make] = {
    variant: make for name, kernel in FOUND.items() for variant, make in BUILT.get(name, {name: kernel}).items()
}


def described(make: Make) -> BatchKernel:
    """Return a kernel of a simple model, to read its attributes."""
    toy = toys.affine_gaussian(torch.eye(2), torch.zeros(2))
    return make(LatentPosterior(toy.generator, toy.log_ratio, toy.prior))


#: Kernels that leave their target invariant.
EXACT = {name: make for name, make in KERNELS.items() if described(make).is_exact}
#: Kernels that take a step size.
STEPPED = {name: make for name, make in KERNELS.items() if isinstance(described(make), SteppedKernel | LocalGlobal)}


def walk_in(model: LatentPosterior) -> torch.distributions.Distribution:
    """Return a correlated Gaussian that is neither the prior nor the target."""
    z = model.transforms["z"](model.prior.sample()) if model.transforms else model.prior.sample()
    factor = 1.2 * torch.eye(len(z), dtype=z.dtype) + 0.4 * torch.ones(len(z), len(z), dtype=z.dtype).tril(-1)
    return torch.distributions.MultivariateNormal(torch.full_like(z, 0.2), scale_tril=factor)


def sizes(make: Callable[[LatentPosterior, float], BatchKernel], *values: float) -> Iterator[tuple[str, Make]]:
    for value in values:
        yield f" {value}", lambda model, value=value: make(model, value)


#: The settings at which one step must leave the target invariant.
SETTINGS: dict[str, dict[str, Make]] = {
    "BatchHMC": dict(sizes(lambda model, size: BatchHMC(model, step_size=size), 0.03, 0.15, 0.4)),
    "ChEES": dict(sizes(lambda model, size: ChEES(model, step_size=size, trajectory_length=6 * size), 0.03, 0.15, 0.4)),
    "RandomWalk": dict(sizes(lambda model, size: RandomWalk(model, step_size=size), 0.1, 1.0, 5.0)),
    # Not all priors of the targets are Gaussian, and pCN can walk in any Gaussian.
    "PCN": dict(sizes(lambda model, size: PCN(model, step_size=size, proposal=walk_in(model)), 0.2, 1.5, 10.0)),
    "ISIR": {
        " 2": lambda model: ISIR(model, num_particles=2),
        " 10": ISIR,
        ", another proposal": lambda model: ISIR(model, num_particles=4, proposal=walk_in(model)),
    },
    "LocalGlobal": {
        **dict(
            sizes(
                lambda model, size: LocalGlobal(MALA(model, step_size=size), ISIR(model), num_local=2), 0.05, 0.4, 1.5
            )
        ),
        ", BatchHMC": lambda model: LocalGlobal(
            BatchHMC(model, step_size=0.15, num_steps=3), IndependenceMH(model), num_local=1, num_global=2
        ),
        ", PCN": lambda model: LocalGlobal(
            PCN(model, step_size=1.5, proposal=walk_in(model)), ISIR(model, num_particles=3, proposal=walk_in(model))
        ),
        ", RandomWalk": lambda model: LocalGlobal(RandomWalk(model, step_size=1.0), IndependenceMH(model)),
    },
}


def settings(kernels: dict[str, type]) -> dict[str, Make]:
    """Return exact kernels at the settings above; a stepped kernel without an entry at three step sizes."""
    cases: dict[str, Make] = {}
    for name, kernel in kernels.items():
        if not kernel.is_exact:
            continue
        if name in SETTINGS:
            chosen = SETTINGS[name]
        elif issubclass(kernel, SteppedKernel):
            chosen = dict(sizes(lambda model, size, kernel=kernel: kernel(model, step_size=size), 0.05, 0.4, 1.5))
        else:
            chosen = BUILT.get(name, {"": kernel})
        cases |= {name + setting.removeprefix(name): make for setting, make in chosen.items()}
    return cases
