"""The estimators that the package exports, as the laws construct them.

A member is constructed by `cls()`, so a new one is found and tested without a change here. Members that need arguments,
or take long with their defaults, stand here by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_gan import likelihood
from pyro_gan.likelihood import AnnealedImportance, Coupling, Estimator, ImportanceWeighted, Laplace, Surrogate
from tests.likelihood.linear_models import THREE
from tests.registry import concrete_members

__all__ = ["ESTIMATORS", "posterior"]


def posterior(y: Any) -> Any:
    """The exact posterior of the model `THREE`, as a guide."""
    return THREE.posterior()(y)


SETTINGS: dict[str, dict[str, Callable[[], Estimator]]] = {
    "AnnealedImportance": {"": lambda: AnnealedImportance(num_temperatures=20, num_particles=20)},
    "ImportanceWeighted": {
        "": ImportanceWeighted,
        "guide": lambda: ImportanceWeighted(posterior, num_particles=20),
        "Laplace": lambda: ImportanceWeighted(Laplace(num_steps=100), num_particles=20),
    },
    "Surrogate": {
        "": lambda: Surrogate(Coupling(lambda x: 0.1 * x.square().sum(-1))),
        "guide": lambda: Surrogate(posterior, num_particles=20),
    },
}

ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    f"{name} {setting}".strip(): make
    for name, cls in concrete_members(likelihood, Estimator).items()
    for setting, make in SETTINGS.get(name, {"": cls}).items()
}
