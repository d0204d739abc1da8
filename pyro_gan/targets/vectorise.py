"""Turns a function of one chain into one of all chains by `torch.func.vmap`, and explains what to do if that fails."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_gan._networks import under_vmap
from pyro_gan._typing import Params
from pyro_gan.targets.densities import SiteError

__all__ = ["same", "vectorised"]


#: Folders of the code that a user has not written.
_LIBRARIES = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, pyro.__file__, Path(__file__).parent))

_NUTS = "or run pyro.infer.NUTS(model) under pyro.infer.MCMC, a process for each chain"

# Words in the error of torch, and what they mean for a model. The first entry that fits is taken.
_CURES = (
    (
        ("random operation",),
        "it draws noise outside its latent sites (a generator or a Dropout that draws noise, torch.randn), so the "
        "density of latents is random. Make the noise a latent site, fix it, or call .eval() on the network",
    ),
    (("Batch norm",), "a BatchNorm in training mode computes statistics over its rows. Call .eval() on the network"),
    (
        ("data-dependent control flow", ".item()", "data pointer", "NumPy", "numpy", "dynamic shape"),
        "it branches in Python on a latent, or takes one out of torch (if z > 0, float(z), z.item(), z.numpy(), "
        f"x[x > 0]). Write it with torch.where and torch functions, {_NUTS}",
    ),
    (
        ("autograd.Function",),
        "it runs a torch.autograd.Function that has no vmap. Give the function generate_vmap_rule = True and a "
        f"setup_context, or write it with torch functions, {_NUTS}",
    ),
    (
        ("Batching rule not implemented", "batching rule"),
        "a layer inside has no batching rule (LSTM, GRU, fused attention). Call a "
        "generator through pyro_gan.latent.LatentPrior(generator, prior).generate(rows), a critic through "
        f"pyro_gan.ratio.LogRatio(critic, objective)(rows): these make the chains the network's rows. Or {_NUTS[3:]}",
    ),
    (
        ("in-place", "inplace", "in place"),
        "it writes a latent into a tensor that has no chain dimension. Build the tensor by torch.stack, torch.cat or "
        "torch.where",
    ),
)


def vectorised(densities: Callable[..., Any]) -> Callable[..., Any]:
    """Return log densities of a batch of chains, from those of one chain.

    Args:
        densities: Maps `{site: (*event)}` and keywords to tensors, in a tuple or by name.

    Returns:
        A function that maps `{site: (chain, *event)}` and the same keywords to tensors `(chain, ...)`. It raises a
        `ValueError` with the cure if the model cannot be run for many chains.
    """
    # A closure could not be pickled, and kernels must pickle after a run.
    return functools.partial(_batched, densities)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two evaluations agree up to rounding."""
    return torch.allclose(a, b.to(a), rtol=1e-3, atol=1e-3, equal_nan=True)


def _batched(densities: Callable[..., Any], values: Params, **parts: bool) -> Any:
    try:
        # Gradients come from autograd around vmap, which is faster than grad inside it.
        run = torch.func.vmap(lambda row: densities(row, **parts), randomness="error")
        with under_vmap(True):
            of_chains = run(dict(values))
    except SiteError as error:
        raise ValueError(_explain(error, f"at the site {error.name!r} ({error.distribution})")) from error
    except RuntimeError as error:
        raise ValueError(_explain(error, "")) from error
    return of_chains


def _explain(error: Exception, where: str) -> str:
    said = str(error).split("\n")[0].strip()
    fitting = [cure for signs, cure in _CURES if any(sign in str(error) for sign in signs)]
    cure = fitting[0] if fitting else f"see what torch says below, {_NUTS}"
    if isinstance(error, SiteError):
        # The user cannot change the code of a distribution, but can choose another one.
        cure = (
            "this distribution's log_prob does not run for a batch of chains. Write its log density as pyro.factor, "
            f"{_NUTS}"
        )
    return (
        f"The model cannot be run for many chains at once{' ' + where if where else ''}{_line(error)}: {cure}. "
        f"(torch.func.vmap said: {said})"
    )


def _line(error: Exception) -> str:
    """Return the file and line of the last frame that belongs to neither torch, Pyro nor this package."""
    # The error of a site carries the frames up to the site; its cause only those below.
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    return f", in {users[-1].filename}, line {users[-1].lineno}" if users else ""
