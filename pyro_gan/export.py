"""Hands a finished run to ArviZ."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc import VectorizedMCMC

__all__ = ["to_arviz"]

# Our names, which are Pyro's, to ArviZ's.
_STAT_NAMES = {"accept_prob": "acceptance_rate"}


def to_arviz(
    mcmc: VectorizedMCMC | MCMC,
    *,
    prior: Params | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    site: str | None = None,
    observed_data: Params | None = None,
    coords: dict[str, Any] | None = None,
    dims: dict[str, list[str]] | None = None,
) -> Any:
    """Convert a run to ArviZ's container: `InferenceData` on ArviZ 0.x, a `DataTree` on 1.x.

    Args:
        mcmc: A finished `VectorizedMCMC`, or `pyro.infer.MCMC` (whose kernels keep no statistics of draws but at most
            divergences).
        prior: Prior draws by site, `(draw, *event)`, constrained.
        decode: Maps the draws of a site, `(chain, draw, *latent)`, to data, which become `x` of the group
            `posterior_predictive`: `LatentPosterior.decode`.
        site: The site that `decode` takes; None where the run has only one.
        observed_data: Data the model was conditioned on, by name.
        coords: ArviZ's coordinates.
        dims: ArviZ's dimension names by variable, without `chain` and `draw`.

    Returns:
        Groups `posterior` and `sample_stats` (of a `VectorizedMCMC` `lp`, `energy`, `acceptance_rate`, `diverging`,
        `moved`, and where there are such `log_ratio` and `step_size`), all `(chain, draw, ...)`; `prior`,
        `posterior_predictive` and `observed_data` if given.

    Raises:
        ValueError: if `mcmc` is no such run, or has not been made; if there is no telling what to decode.

    References:
        ArviZ a unified library for exploratory analysis of Bayesian models in Python, Kumar et al., 2019,
        https://doi.org/10.21105/joss.01143.

    Example:
        >>> from pyro_gan import LatentPosterior, toys
        >>> from pyro_gan.mcmc import MALA
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> mcmc = VectorizedMCMC(MALA(gan), num_samples=20, num_chains=8, disable_progbar=True)
        >>> mcmc.run()
        >>> dict(to_arviz(mcmc, decode=gan.decode).posterior_predictive.sizes)
        {'chain': 8, 'draw': 20, 'x_dim_0': 1}
    """
    if not isinstance(mcmc, VectorizedMCMC | MCMC):
        raise ValueError(
            f"Expected a pyro_gan.VectorizedMCMC or a pyro.infer.MCMC; got {type(mcmc).__name__}. Runners that keep "
            "no draws, such as StreamingMCMC, have nothing to hand over."
        )
    # Pyro's runner answers a question too early with an AttributeError of None.
    if mcmc._samples is None:
        raise ValueError("There are no draws yet: call run() first.")
    samples = mcmc.get_samples(group_by_chain=True)
    groups = {"posterior": _arrays(samples), "sample_stats": _arrays(_sample_stats(mcmc))}
    if prior is not None:
        groups["prior"] = {name: value[None] for name, value in _arrays(prior).items()}
    if decode is not None:
        groups["posterior_predictive"] = _arrays({"x": decode(samples[_decoded_site(samples, site)])})
    if observed_data is not None:
        groups["observed_data"] = _arrays(observed_data)
    return _container({name: group for name, group in groups.items() if group}, coords=coords, dims=dims)


def _container(groups: dict[str, dict[str, np.ndarray]], **labels: Any) -> Any:
    import arviz

    # Thousands of short chains are what we are for; both ArviZ take them for transposed arrays and say so.
    if int(arviz.__version__.split(".")[0]) > 0:
        return arviz.from_dict(groups, check_conventions=False, **labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More chains")
        return arviz.from_dict(**{**groups, **labels})


def _decoded_site(samples: Params, site: str | None) -> str:
    if site is None and len(samples) == 1:
        return next(iter(samples))
    if site is None or site not in samples:
        raise ValueError(f"Expected site= to name what decode takes, one of {sorted(samples)}; got {site!r}.")
    return site


def _sample_stats(mcmc: VectorizedMCMC | MCMC) -> dict[str, Tensor]:
    if isinstance(mcmc, VectorizedMCMC):
        return {_STAT_NAMES.get(name, name): value for name, value in mcmc.sample_stats.items()}
    # By chain, and not from `diagnostics()`: that wants four draws for its R-hat, and its chains sort as text.
    by_chain: Any = mcmc._diagnostics
    # Of a kernel that does not look for divergences nobody knows whether there were any.
    if any("divergences" not in diagnostics for diagnostics in by_chain):
        return {}
    diverging = torch.zeros(len(by_chain), mcmc.num_samples, dtype=torch.bool)
    for row, diagnostics in zip(diverging, by_chain, strict=True):
        row[diagnostics["divergences"]] = True
    return {"diverging": diverging}


def _arrays(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: torch.as_tensor(value).detach().cpu().numpy() for name, value in values.items()}
