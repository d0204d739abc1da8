"""Values and gradients of a potential for a batch of chains, in which the error of one chain ends no other chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ValueAndGrad", "value_and_grad", "values", "values_and_grads"]

#: A value for each chain, and its gradient.
ValueAndGrad = tuple[Float[Tensor, " chain"], Float[Tensor, "chain dim"]]

Values = TypeVar("Values", bound=tuple[Tensor, ...])

#: Words in the errors of torch when memory is short.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def values(function: Callable[[Tensor], Tensor], z: Tensor, *, num_rows: int | None = None) -> Tensor:
    """Return the values `(chain,)` of a row-by-row function, without gradient; NaN for rows at which it fails.

    Args:
        function: Maps rows to one value each.
        z: The rows.
        num_rows: Rows in a pass; all if None.
    """
    with torch.no_grad():
        (value,) = _in_passes(lambda rows: (function(rows),), z, num_rows, (z.new_full((1,), torch.nan),))
    return value


def values_and_grads(function: Callable[[Tensor], Tensor], z: Tensor, *, num_rows: int | None = None) -> ValueAndGrad:
    """Return the values of a row-by-row function and their gradients, see `value_and_grad`; NaN where it fails.

    Args:
        function: Maps rows to one value each.
        z: The rows.
        num_rows: Rows in a pass; all if None. A pass goes forward and backward before the next one begins, so its
            activations are still in the cache when the gradient needs them.
    """
    blank = z.new_full((1,), torch.nan), z.new_full((1, z.shape[-1]), torch.nan)
    return _in_passes(lambda rows: value_and_grad(function, rows), z, num_rows, blank)


def value_and_grad(function: Callable[[Tensor], Tensor], z: Tensor) -> ValueAndGrad:
    """Return the values `(chain,)` of a row-by-row function, and their gradients `(chain, dim)`.

    The gradient is zero where a value does not depend on its row as far as autograd knows.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        value = function(leaf)
        if not value.requires_grad:
            return value, torch.zeros_like(z)
        # Rows are independent, so the gradient of the sum is the gradient of each row.
        (grad,) = torch.autograd.grad(value.sum(), leaf, materialize_grads=True)
    return value.detach(), grad


def _in_passes(function: Callable[[Tensor], Values], z: Tensor, num_rows: int | None, blank: Values) -> Values:
    parts = [_nan_where_it_fails(function, rows, blank) for rows in z.split(num_rows or max(len(z), 1))]
    if len(parts) == 1:
        return parts[0]
    return type(blank)(torch.cat(column) for column in zip(*parts, strict=True))


def _nan_where_it_fails(function: Callable[[Tensor], Values], z: Tensor, blank: Values) -> Values:
    """Return a row-by-row function of all rows; a row that raises an error by itself gets NaN.

    A kernel rejects a proposal with a NaN potential, so a chain whose covariance is singular stays where it is, and the
    other chains go on. Pyro does the same for one chain. The rows at fault are found by halving.

    Args:
        function: Maps rows `(row, dim)` to tensors with one value each.
        z: The rows.
        blank: NaN, as the function would return them for one row.

    Returns:
        The function's tensors.

    Raises:
        Exception: that of the function, if memory is short. If it is no error of linear algebra, also where no row or
            all rows raise it when they are alone: it is then no fault of some rows.
    """
    try:
        return function(z)
    except Exception as error:  # a user's function may raise anything
        if _is_out_of_memory(error):
            raise
        # A trajectory that has failed goes on with NaN: leaving it out saves the halving at each of its later steps.
        finite = torch.isfinite(z).all(-1).nonzero().flatten()
        parts = list(_working_parts(function, z, finite))
        if sum(len(index) for index, _ in parts) in (0, len(z)) and not _is_linear_algebra(error):
            raise
    values = type(blank)(column.repeat(len(z), *[1] * (column.dim() - 1)) for column in blank)
    for index, part in parts:
        for column, found in zip(values, part, strict=True):
            column[index] = found
    return values


def _working_parts(
    function: Callable[[Tensor], Values], z: Tensor, index: Tensor
) -> Iterator[tuple[Int[Tensor, " part"], Values]]:
    """Yield indices of rows at which the function raises no error, and its values there."""
    try:
        yield index, function(z[index])
    except Exception as error:  # as above
        if _is_out_of_memory(error):
            raise
        if len(index) > 1:
            for half in index.split((len(index) + 1) // 2):
                yield from _working_parts(function, z, half)


def _is_out_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(cause, MemoryError) or any(words in str(cause) for words in OUT_OF_MEMORY)
        for cause in _causes(error)
    )


def _is_linear_algebra(error: BaseException) -> bool:
    return any(isinstance(cause, torch.linalg.LinAlgError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
