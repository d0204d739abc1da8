"""Hands a finished run to ArviZ."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc import VectorizedMCMC

__all__ = ["to_arviz"]

# Our names, which are Pyro's, to ArviZ's.
_STAT_NAMES = {"accept_prob": "acceptance_rate"}


def to_arviz(
    mcmc: Any,
    *,
    prior: Params | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    observed_data: Params | None = None,
    coords: dict[str, Any] | None = None,
    dims: dict[str, list[str]] | None = None,
) -> Any:
    """Convert a run to ArviZ's container: `InferenceData` on ArviZ 0.x, a `DataTree` on 1.x.

    Args:
        mcmc: A finished `VectorizedMCMC`, or `pyro.infer.MCMC` (which keeps no statistics of draws but divergences).
        prior: Prior draws by site, `(draw, *event)`, constrained.
        decode: Maps the draws of the first site, `(chain, draw, *latent)`, to data, which become `x` of the group
            `posterior_predictive`: `LatentPosterior.decode`.
        observed_data: Data the model was conditioned on, by name.
        coords: ArviZ's coordinates.
        dims: ArviZ's dimension names by variable.

    Returns:
        Groups `posterior` and `sample_stats` (`lp`, `energy`, `acceptance_rate`, `diverging`, `moved`, `log_ratio`,
        `step_size`), all `(chain, draw, ...)`; `prior`, `posterior_predictive` and `observed_data` if given.

    Raises:
        ValueError: if the run has not been made.

    References:
        ArviZ a unified library for exploratory analysis of Bayesian models in Python, Kumar et al., 2019,
        https://doi.org/10.21105/joss.01143.
    """
    samples = (
        mcmc.get_samples(group_by_chain=True) if isinstance(mcmc, VectorizedMCMC) else _pyro_samples(mcmc)
    )
    groups: dict[str, dict[str, Any]] = {
        "posterior": _arrays(samples),
        "sample_stats": _arrays(_sample_stats(mcmc, samples)),
    }
    if prior is not None:
        groups["prior"] = {name: value[None] for name, value in _arrays(prior).items()}
    if decode is not None:
        groups["posterior_predictive"] = _arrays({"x": decode(next(iter(samples.values())))})
    if observed_data is not None:
        groups["observed_data"] = _arrays(observed_data)
    return _container(groups, coords=coords, dims=dims)


def _container(groups: dict[str, dict[str, Any]], **labels: Any) -> Any:
    import arviz

    if int(arviz.__version__.split(".")[0]) > 0:
        return arviz.from_dict(groups, **labels)
    with warnings.catch_warnings():
        # Thousands of short chains are what we are for; ArviZ takes them for transposed arrays.
        warnings.filterwarnings("ignore", message="More chains")
        return arviz.from_dict(**{**groups, **labels})


def _pyro_samples(mcmc: Any) -> dict[str, Tensor]:
    if mcmc._samples is None:
        raise ValueError("There are no draws yet: call run() first.")
    return mcmc.get_samples(group_by_chain=True)


def _sample_stats(mcmc: Any, samples: Params) -> dict[str, Tensor]:
    if isinstance(mcmc, VectorizedMCMC):
        return {_STAT_NAMES.get(name, name): value for name, value in mcmc.sample_stats.items()}
    first = next(iter(samples.values()))
    diverging = torch.zeros(first.shape[:2], dtype=torch.bool)
    # Pyro names chains "chain 0" to "chain 11", which as text sort 0, 1, 10, 11, 2.
    for name, draws in mcmc.diagnostics().get("divergences", {}).items():
        diverging[int(name.split()[-1]), draws] = True
    return {"diverging": diverging}


def _arrays(values: Params) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in values.items()}
