"""The latent sites of a Pyro model, found by running it twice; sites that cannot be sampled are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from pyro_gan.circular import Wrap, is_circular
from pyro_gan.targets.alone import alone
from pyro_gan.targets.discrete import Discrete

__all__ = ["Enough", "LatentSites", "find_sites", "is_deterministic", "run_under"]

Model = Callable[..., Any]

#: Runs before a model whose matrices are singular at every prior draw raises the error.
MAX_RUNS = 20


@final
class LatentSites(NamedTuple):
    """The latent sites of a model.

    Attributes:
        draws: Two prior draws, constrained, `{site: (*event)}`; the event has the batch dimensions of plates.
        transforms: Constrained to unconstrained.
        num_batch_dims: Largest number of batch dimensions of any site; a plate further to the left meets no site.
        num_numbers: Numbers in all sites together, observed sites included.
    """

    draws: list[dict[str, Tensor]]
    transforms: dict[str, Transform]
    num_batch_dims: int
    num_numbers: int


def find_sites(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LatentSites:
    """Run a model and return its latent sites.

    Args:
        model: A Pyro model.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        ValueError: if there is no latent site; if one is masked (unless by `obs_mask`), of random support or of another
            dtype or device; if a plate subsamples at random; if the sites change from run to run.
    """
    try:
        with alone():
            traces = [_trace(model, args, kwargs) for _ in range(2)]
    except NotImplementedError as error:
        said = str(error).split("\n")[0]
        raise ValueError(
            f"Expected a model that can be run to find its sites; got the error: {said}. An improper prior cannot be "
            "sampled: use a wide proper one instead."
        ) from error
    found = [_latents(trace) for trace in traces]
    shapes = [{name: site["value"].shape for name, site in sites.items()} for sites in found]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Expected the same latent sites in each run of the model; got {_listed(shapes[0])}, then "
            f"{_listed(shapes[1])}. The chains of a batch share one set of sites: no site and no shape may be random."
        )
    if not found[0]:
        raise ValueError("Expected a model with a latent site, pyro.sample without obs=; got no latent site.")
    draws = [{name: site["value"].detach() for name, site in sorted(sites.items())} for sites in found]
    row_dtype = _row_dtype(found[0])
    transforms = [{name: _transform(name, site, row_dtype) for name, site in sorted(sites.items())} for sites in found]
    _check_supports(transforms, draws[1])
    _check_observed(traces[0])
    every = [site for _, site in _sample_sites(traces[0]) if not site_is_subsample(site)]
    return LatentSites(
        draws,
        transforms[0],
        num_batch_dims=max(len(site["fn"].batch_shape) for site in every),
        num_numbers=sum(torch.as_tensor(site["value"]).numel() for site in every),
    )


@final
class Enough(BaseException):
    """A messenger raises it to stop a model, because what follows is not needed."""


def run_under(
    messenger: Messenger, model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], plate: Any = None
) -> None:
    """Run a model under a messenger, and in a plate if one is given, until the messenger raises `Enough`.

    The checks of distributions are off: they cannot run under `torch.func.vmap`.
    """
    plate = contextlib.nullcontext() if plate is None else plate
    with alone(), plate, pyro.validation_enabled(False), contextlib.suppress(Enough), messenger:
        model(*args, **kwargs)


def is_deterministic(site: Any) -> bool:
    """Whether a site only names a value: a plate's indices or `pyro.deterministic`."""
    return site_is_subsample(site) or bool(site["infer"].get("_deterministic"))


def _trace(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> poutine.Trace:
    """Run a model; a prior draw at which a matrix of the model is singular is drawn again."""
    for _ in range(MAX_RUNS - 1):
        with contextlib.suppress(torch.linalg.LinAlgError):
            return poutine.trace(model).get_trace(*args, **kwargs)
    return poutine.trace(model).get_trace(*args, **kwargs)


def _sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, Any]]:
    return ((name, site) for name, site in trace.nodes.items() if site["type"] == "sample")


def _latents(trace: poutine.Trace) -> dict[str, Any]:
    latents: dict[str, Any] = {}
    for name, site in _sample_sites(trace):
        if site_is_subsample(site):
            _check_whole(name, site["fn"])
        elif not site["is_observed"]:
            _check_unknown(name, site["fn"])
            if not _is_missing(name, trace):
                _check_unmasked(name, site)
            latents[name] = site
    return latents


def _check_observed(trace: poutine.Trace) -> None:
    # During sampling all checks of distributions are off, so data outside their support must be found here.
    with alone(), pyro.validation_enabled(True):
        for name, site in _sample_sites(trace):
            if is_deterministic(site) or not site["is_observed"] or site["mask"] is not None:
                continue
            try:
                site["fn"].log_prob(site["value"])
            except ValueError as error:
                raise ValueError(
                    f"What is observed at the site {name!r} does not fit its distribution: {error}"
                ) from error


def _check_whole(name: str, plate: Any) -> None:
    if plate.subsample_size is not None and plate.subsample_size < plate.size:
        raise ValueError(
            f"The plate {name!r} draws {plate.subsample_size} of {plate.size} rows at random in each call, so the "
            "potential would be random. Leave subsample_size out, or pass the indices of the rows as subsample=."
        )


def _check_unknown(name: str, fn: Any) -> None:
    while isinstance(fn, torch.distributions.Independent | MaskedDistribution):
        fn = fn.base_dist
    if isinstance(fn, Delta):
        raise ValueError(
            f"The latent site {name!r} is a Delta: it has only one value, and chains could not move. Name a computed "
            "value by pyro.deterministic."
        )


def _is_missing(name: str, trace: poutine.Trace) -> bool:
    """Whether a site holds what `pyro.sample(..., obs=, obs_mask=)` has not observed.

    Pyro masks its density where there is an observation. The model never reads those numbers, so they may keep the
    distribution that they are drawn from: nothing else changes, and no chain drifts.
    """
    observed = f"{name.removesuffix('_unobserved')}_observed"
    return name.endswith("_unobserved") and trace.nodes.get(observed, {}).get("is_observed", False)


def _check_unmasked(name: str, site: Any) -> None:
    mask, fn = site["mask"], site["fn"]
    while isinstance(fn, torch.distributions.Independent) or hasattr(fn, "base_dist"):
        if isinstance(fn, MaskedDistribution):
            mask = vars(fn)["_mask"]  # Pyro has no public name for it
        fn = fn.base_dist
    if mask is None or mask is True or (isinstance(mask, Tensor) and bool(mask.all())):
        return
    raise ValueError(
        f"The latent site {name!r} is masked: its density is flat under the mask, and chains would drift away. Make "
        "the missing values a separate latent site without a mask."
    )


def _is_discrete(fn: Any) -> bool:
    return bool(fn.has_enumerate_support or getattr(fn.support, "is_discrete", False))


def _transform(name: str, site: Any, row_dtype: torch.dtype) -> Transform:
    fn = site["fn"]
    if _is_discrete(fn):
        return Discrete(row_dtype, site["value"].dtype)
    try:
        support = fn.support
        # A mixture has the support of its components, wrapped in a class that torch cannot transform.
        if type(support).__name__ == "MixtureSameFamilyConstraint":
            support = support.base_constraint
        transform: Transform = (Wrap() if is_circular(fn) else biject_to(support)).inv
    except NotImplementedError as error:
        raise ValueError(
            f"The latent site {name!r} ({type(fn).__name__}) has a support that torch cannot map to the reals: {error} "
            "Sample an unconstrained site, and map it in the model."
        ) from error
    return transform


def _check_supports(transforms: list[dict[str, Transform]], draw: dict[str, Tensor]) -> None:
    first, second = transforms
    for name, value in draw.items():
        there_and_back = first[name].inv(second[name](value))
        if not torch.allclose(there_and_back, value, rtol=1e-3, atol=1e-5):
            raise ValueError(
                f"The support of the latent site {name!r} moves with the other latents, so one fixed transform does "
                "not fit it. Sample it on a fixed interval and stretch it in the model: "
                "width * pyro.sample(name, dist.Uniform(0., 1.))."
            )


def _row_dtype(sites: dict[str, Any]) -> torch.dtype:
    """Return the dtype of the continuous sites, torch's default if there are none."""
    values = {name: site["value"] for name, site in sorted(sites.items()) if not _is_discrete(site["fn"])}
    kinds = {name: (value.dtype, str(value.device)) for name, value in values.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(
            f"Expected all latent sites of one dtype and on one device; got {_listed(kinds)}. Build the priors' "
            "parameters in one dtype."
        )
    return next(iter(values.values())).dtype if values else torch.get_default_dtype()


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {tuple(value) if isinstance(value, torch.Size) else value}" for name, value in values.items()
    )
