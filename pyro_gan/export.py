"""A finished run as a container of ArviZ."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import MCMC
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc import VectorizedMCMC
from pyro_gan.targets import ProgramTarget

__all__ = ["to_arviz"]

# ArviZ's names for the statistics that we name as Pyro does.
_STAT_NAMES = {"accept_prob": "acceptance_rate"}


def to_arviz(
    mcmc: VectorizedMCMC | MCMC,
    *,
    prior: Params | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    site: str | None = None,
    observed_data: Params | None = None,
    log_likelihood: bool = False,
    coords: dict[str, Any] | None = None,
    dims: dict[str, list[str]] | None = None,
) -> Any:
    """Convert a run to ArviZ's container: `InferenceData` on ArviZ 0.x, a `DataTree` on 1.x.

    Args:
        mcmc: A finished `VectorizedMCMC`, or a finished `pyro.infer.MCMC`. Pyro's runner keeps no statistics of draws
            except divergences, and shows those only of four draws or more.
        prior: Prior draws by site, `(draw, *event)`, constrained.
        decode: Maps the draws of a site, `(chain, draw, *latent)`, to data `(chain, draw, *event)`, of all chains or of
            the first few, such as `LatentPosterior.decode`. The data become `x` of the group `posterior_predictive`.
        site: The site that `decode` takes. It may be None if the run has only one.
        observed_data: Data that the model was conditioned on, by name.
        log_likelihood: Whether to add the log density of every observation by site, `(chain, draw, *batch)`, which
            `arviz.loo` and `arviz.compare` need. Factors are left out: they belong to no observation. Only for a
            `VectorizedMCMC` of a Pyro program with observed sites.
        coords: ArviZ's coordinates.
        dims: ArviZ's dimension names by variable, without `chain` and `draw`.

    Returns:
        Groups `posterior` and `sample_stats`, all `(chain, draw, ...)`; also `prior`, `posterior_predictive`,
        `observed_data` and `log_likelihood` if asked for. The statistics of a `VectorizedMCMC` are `lp`, `energy`,
        `acceptance_rate`, `diverging` and `moved`, and `log_ratio` and `step_size` if the run has them. Attributes of
        `posterior` say what made it: versions, sampler, settings (JSON) and a digest of the networks' weights.

    Raises:
        ValueError: if `mcmc` is no such run, or has no draws yet; if `site` does not say which of several sites to
            decode; if another argument is of the wrong kind.

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
            "no draws, such as StreamingMCMC, cannot be converted."
        )
    for name, given in {"prior": prior, "observed_data": observed_data, "coords": coords, "dims": dims}.items():
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"Expected {name} as a dict by name; got {checks.shown(given)}.")
    samples = mcmc.get_samples(group_by_chain=True)
    if samples is None:  # Pyro's runner has none before it runs.
        raise ValueError("There are no draws yet: call run() first.")
    groups = {"posterior": _arrays(samples), "sample_stats": _arrays(_sample_stats(mcmc))}
    if prior is not None:
        groups["prior"] = {name: value[None] for name, value in _arrays(prior).items()}
        for name, draws in groups["prior"].items():
            if draws.ndim < 2:
                raise ValueError(f"Expected prior[{name!r}] of shape (draw, *event); got one number. Pass draws.")
    if decode is not None:
        z = samples[_decoded_site(samples, site)]
        x = checks.function("decode", decode)(z)
        if not isinstance(x, Tensor) or x.dim() < 2 or not (0 < len(x) <= len(z) and x.shape[1] == z.shape[1]):
            raise ValueError(
                f"Expected decode to return data (chain, draw, *event), {z.shape[1]} draws of at most {len(z)} chains; "
                f"got {checks.shown(x)}. Pass LatentPosterior.decode, or lambda z: f(z.flatten(0, 1)).unflatten(0, "
                "z.shape[:2]) for a network f of rows."
            )
        groups["posterior_predictive"] = _arrays({"x": x})
    if log_likelihood:
        groups["log_likelihood"] = _arrays(_log_likelihood(mcmc, samples))
    if observed_data is not None:
        groups["observed_data"] = _arrays(observed_data)
    container = _container({name: group for name, group in groups.items() if group}, coords=coords, dims=dims)
    container["posterior"].attrs.update(_provenance(mcmc))
    return container


def _provenance(mcmc: VectorizedMCMC | MCMC) -> dict[str, str]:
    """Return what made a run, as strings: NetCDF and Zarr store them."""
    kernel = mcmc.kernel
    settings = {"num_samples": mcmc.num_samples, "num_chains": mcmc.num_chains, "warmup_steps": mcmc.warmup_steps}
    found = {
        "inference_library": "pyro_gan" if isinstance(mcmc, VectorizedMCMC) else "pyro",
        "pyro_gan_version": version("pyro-gan"),
        "pyro_version": str(pyro.__version__),
        "torch_version": str(torch.__version__),
        "sampler": type(kernel).__name__,
    }
    if isinstance(mcmc, VectorizedMCMC):
        settings |= {"thin": mcmc.thin, "keep": mcmc.keep} | kernel.settings()
    model = getattr(kernel, "model", None)
    if isinstance(model, nn.Module):
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        found["networks_sha256"] = digest.hexdigest()
    return found | {"settings": json.dumps(settings)}


def _container(groups: dict[str, dict[str, np.ndarray]], **labels: Any) -> Any:
    import arviz

    # Both versions of ArviZ warn that thousands of short chains look like a transposed array. Here they are usual.
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
    try:
        by_chain = mcmc.diagnostics().get("divergences")
    except AssertionError:  # Pyro's R-hat needs four draws.
        by_chain = None
    # Without divergences the kernel does not look for any.
    if by_chain is None:
        return {}
    diverging = torch.zeros(mcmc.num_chains, mcmc.num_samples, dtype=torch.bool)
    for chain, row in enumerate(diverging):
        row[by_chain[f"chain {chain}"]] = True
    return {"diverging": diverging}


def _log_likelihood(mcmc: VectorizedMCMC | MCMC, samples: Params) -> dict[str, Tensor]:
    target = mcmc.kernel.target if isinstance(mcmc, VectorizedMCMC) else None
    found = {}
    if isinstance(target, ProgramTarget) and set(samples) == set(target.shapes):
        rows = target.pack({name: target.transforms[name](value.flatten(0, 1)) for name, value in samples.items()})
        found = target.log_likelihood(rows)
    if not found:
        raise ValueError(
            "Expected, for log_likelihood=True, a VectorizedMCMC of a Pyro program with observed sites, and all its "
            f"latent sites saved; got a {type(mcmc).__name__} of {type(mcmc.kernel).__name__} without. A log ratio is "
            "a factor, no observation: leave log_likelihood out."
        )
    size = next(iter(samples.values())).shape[:2]
    return {name: value.unflatten(0, size) for name, value in found.items()}


def _arrays(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    try:
        tensors = {name: torch.as_tensor(value).detach().cpu() for name, value in values.items()}
        # NumPy has no bfloat16.
        return {
            name: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for name, value in tensors.items()
        }
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"Expected tensors or arrays for ArviZ, by name; {error}.") from error
