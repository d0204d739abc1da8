"""Finds what makes a function unfit to be sampled, by trying a few rows: one probe for every door of the package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_gan._networks import critic_scores
from pyro_gan._random import DrawCounter, own_generators
from pyro_gan._typing import Critic
from pyro_gan.checks import batch
from pyro_gan.checks.calls import TRIAL_FAULTS, called

__all__ = [
    "NUM_FIRST",
    "NUM_PROBED",
    "probe_critic",
    "probe_generator",
    "probe_repeats",
    "probe_rows",
    "unmoved",
    "unwritten",
    "weights_behind",
]

#: Rows of a probe, and those of its first pass. Rows 4 to 7 come back in other company, and all eight in groups whose
#: sizes (4, 3, 1, 2) no fixed size of a group divides.
NUM_PROBED, NUM_FIRST = 12, 8
GROUPS = (slice(4, 12), slice(0, 4), slice(4, 7), slice(7, 8), slice(1, 3))


def probe_critic(critic: Critic, *sets: Float[Tensor, "row *event"]) -> None:
    """Raise unless a critic scores each row by itself, the same in each call, and for any number of rows.

    Args:
        critic: Any callable on data.
        *sets: Rows to try, real and generated ones for instance: a few of each are scored in one batch. An error with
            eight of them is left to the caller.

    Raises:
        ValueError: if scores depend on other rows or on chance, a group of rows cannot be scored, or the critic writes
            into its input or moves statistics of its own, which are put back.
    """
    share = NUM_PROBED // len(sets)
    # Rows of the sets alternate, so that each meets both kinds of neighbours.
    few = [batch("rows", rows)[[i % len(rows) for i in range(share)]] for rows in sets]
    mixed = torch.stack(few, dim=1).flatten(0, 1)
    with own_generators(), torch.no_grad(), unmoved(critic):
        try:
            critic_scores(critic, mixed[:NUM_FIRST].clone())
        except (RuntimeError, IndexError, TypeError, ValueError):
            # The critic does not fit these data at all: the caller meets the error again, and explains it.
            return
        probe_rows(lambda rows: (critic_scores(critic, rows),), mixed, names=("score",))


def probe_generator(generator: Callable[..., Tensor], prior: Distribution) -> None:
    """Raise if a generator couples its rows, writes into its latents, or moves statistics of its own.

    A generator with noise of its own cannot be asked whether it couples rows; the rest is checked.

    Args:
        generator: Maps latents `(batch, *latent)` to data `(batch, *event)`.
        prior: Distribution of the latents; torch's generators are left as they were.

    Raises:
        ValueError: as above; statistics that moved are put back.
    """
    with own_generators(), torch.no_grad(), unmoved(generator):
        z = prior.sample(torch.Size([NUM_PROBED]))
        takes = f"draws of the prior, of shape {tuple(z[:NUM_FIRST].shape)}"
        with called("generator", generator, takes, faults=TRIAL_FAULTS), DrawCounter() as drawn:
            first, again = (unwritten(generator, z[:NUM_FIRST], "generator") for _ in range(2))
        # What returns no row for each latent, or on another device, is left to the caller's checks.
        if not isinstance(first, Tensor) or first.shape[:1] != (NUM_FIRST,) or first.device != z.device:
            return
        if not drawn.count and _agree(first, again):
            probe_rows(lambda rows: (generator(rows),), z, names=("generated data",))


def probe_rows(
    run: Callable[[Tensor], tuple[Tensor, ...]], rows: Float[Tensor, "row *event"], *, names: tuple[str, ...]
) -> tuple[Tensor, ...]:
    """Raise unless a function maps rows to values row by row, the same in each call, for any number of rows.

    It makes seven passes: eight rows twice, some of them in other company, and groups of 4, 3, 2 and 1.

    Args:
        run: Rows to one or more tensors, each with one value a row.
        rows: Twelve rows to try; fewer are repeated.
        names: What each of the tensors is, for the error; there may be more names than tensors.

    Returns:
        The values of the first eight rows. An error of their first pass is passed on as it is.

    Raises:
        ValueError: with the fault and the cure.
    """
    rows = rows[[i % len(rows) for i in range(NUM_PROBED)]]
    values = probe_repeats(run, rows[:NUM_FIRST], names[0])
    name = names[len(values) - 1]
    for group in GROUPS:
        number = group.stop - group.start
        try:
            others = unwritten(run, rows[group], names[0])
        except (RuntimeError, IndexError, ValueError, AssertionError, ZeroDivisionError) as error:
            if isinstance(error, _WrittenInput):
                raise
            raise ValueError(
                f"Expected the {name} of any number of rows; got an error for {number} of them, where "
                f"{NUM_FIRST} worked: {error} Chains come in groups of any size: let the networks keep the batch "
                "dimension (squeeze the last dimension only), and compute nothing over groups of rows."
            ) from error
        known = slice(group.start, min(group.stop, NUM_FIRST))
        for what, value, other in zip(names, values, others, strict=False):
            if not _agree(value[known], other[: known.stop - known.start], like=value):
                raise ValueError(
                    f"Expected the {what} of a row not to depend on the other rows of its batch; it does. The networks "
                    "compute statistics of the batch (a BatchNorm in training mode behind a function, minibatch "
                    "discrimination, a standard deviation over rows), so chains would not be independent: call "
                    ".eval() on the network, or replace that layer by one that works row by row."
                )
    return values


def probe_repeats(
    run: Callable[[Tensor], tuple[Tensor, ...]], rows: Float[Tensor, "row *event"], name: str
) -> tuple[Tensor, ...]:
    """Return the values of rows, or raise if a second call gives others, draws noise, or the input is written into."""
    with DrawCounter() as drawn:
        values, again = (unwritten(run, rows, name) for _ in range(2))
    if drawn.count or not all(map(_agree, values, again)):
        raise ValueError(
            "Expected networks without noise of their own; got one that draws noise. A latent then has no fixed "
            "value: make the noise part of the latent (a longer z), or fix it."
        )
    return values


@final
class _WrittenInput(ValueError):
    """A function has written into the tensor that it was given."""


def unwritten(function: Callable[[Tensor], Any], rows: Tensor, name: str) -> Any:
    """Return `function(rows)`, or raise if the function writes into its input.

    The input is a copy of the rows. A change in place is found even where it changes no value, as a `clamp_` does that
    bites in the tails only.
    """
    given = rows.clone()
    count = 0 if given.is_inference() else given._version
    result = function(given)
    is_written = not given.is_inference() and given._version != count
    # A change through NumPy leaves the count as it was.
    if is_written or not bool(((given == rows) | (given != given)).all()):
        raise _WrittenInput(
            f"Expected a function for the {name} that leaves its input as it is; got one that writes into it (z /= "
            "..., clamp_, sub_, a first layer with inplace=True). It would overwrite the chains. Write x = x / ..., "
            "or give it a copy: lambda x: network(x.clone())."
        )
    return result


@contextmanager
def unmoved(*functions: Any) -> Iterator[None]:
    """Raise at the end if the statistics of a network have moved meanwhile, after putting them back.

    A network behind a lambda, a partial or a method is found in what they hold. So this sees a BatchNorm in training
    mode where `check_eval` sees a plain function.
    """
    networks = {id(module): module for function in functions for module in _modules_behind(function)}
    buffers = [(buffer, buffer.clone()) for module in networks.values() for buffer in module.buffers()]
    try:
        yield
    finally:
        moved = [buffer for buffer, before in buffers if buffer.is_floating_point() and not _agree(buffer, before)]
        if moved:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            raise ValueError(
                "Expected networks in evaluation mode; got one, behind a function, whose statistics move with every "
                "call (a BatchNorm or a spectral norm in training mode). They have been put back. Call .eval() on it."
            )


def weights_behind(function: Any) -> Iterator[Tensor]:
    """Yield the weights of the networks that a callable is or holds: parameters, and buffers of floats."""
    for held in _held_by(function):
        if isinstance(held, nn.Module):
            yield from held.parameters()
            yield from (buffer for buffer in held.buffers() if buffer.is_floating_point())
        else:
            yield held


def _modules_behind(value: Any) -> Iterator[nn.Module]:
    return (held for held in _held_by(value) if isinstance(held, nn.Module))


def _held_by(value: Any, depth: int = 4) -> Iterator[nn.Module | nn.Parameter]:
    """Yield modules and parameters that a callable is, or holds in its closure, arguments, attributes and globals."""
    if isinstance(value, nn.Parameter):
        yield value
    if depth == 0 or isinstance(value, type) or not callable(value):
        return
    held: list[Any] = []
    if isinstance(value, nn.Module):
        yield value
        # A function that a module holds as an attribute is no submodule: a LogRatio of a lambda, for instance.
        held = [item for module in value.modules() for item in vars(module).values()]
    elif isinstance(value, functools.partial):
        held = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, MethodType):
        held = [value.__self__, value.__func__]
    elif isinstance(value, FunctionType):
        # A variable that is not set yet has an empty cell.
        held = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        held += [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        held += value.__defaults__ or ()
    elif hasattr(value, "__dict__"):
        held = list(vars(value).values())
    for item in held:
        yield from _held_by(item, depth - 1)


def _agree(a: Tensor, b: Tensor, like: Tensor | None = None) -> bool:
    """Whether two evaluations agree up to rounding."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    # Equal bits, the usual case, are cheaper to see than nearly equal ones.
    if torch.equal(a, b):
        return True
    # Other batch sizes add in another order; statistics of the batch change values far more than that. Small values
    # are compared on their own scale.
    scale = torch.nan_to_num((a if like is None else like).detach().abs(), 0.0, 0.0, 0.0)
    largest = float(scale.max()) if scale.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * min(1.0, max(largest, 1e-3)), equal_nan=True)
