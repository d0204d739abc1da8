"""Metrics of two samples: what they take, what they return, and the facts by which the tests judge every metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, final

from jaxtyping import Float
from torch import Tensor

__all__ = ["Estimate", "Metric", "Outputs", "Real"]

Number = TypeVar("Number", float, Tensor)
Function = TypeVar("Function", bound=Callable[..., Any])

#: The samples to judge, or features of them, and held-out data, made into the same features.
Outputs = Float[Tensor, "draw_a *event"]
Real = Float[Tensor, "draw_b *event"]


@final
class Estimate(NamedTuple, Generic[Number]):
    """A number with its standard error, or a tensor of numbers with theirs.

    Example:
        >>> Estimate(0.7, 0.1).value
        0.7
    """

    #: The estimate.
    value: Number
    #: Its standard error; the function that returns it says which randomness it counts.
    standard_error: Number


@final
class Metric(NamedTuple):
    """Marks a function of `(outputs, real)` as a metric, so that the tests of all metrics find and test it.

    The function takes the two samples first and everything else by keyword. It returns a float, an `Estimate`, or a
    record with the fields named here. The mark is kept as the function's attribute `metric`.

    Example:
        >>> @Metric(null=0.5)
        ... def overlap(outputs, real): ...
        >>> overlap.metric.null
        0.5
    """

    #: Field of the result that grows with the difference of the two samples; a result that is a float is it itself.
    figure: str = "value"
    #: Field of that figure's standard error; None if a record has no such field.
    error: str | None = "standard_error"
    #: The figure that means no difference: equal samples give no larger one, and a figure that has an error has this
    #: mean for two samples of one distribution.
    null: float = 0.0
    #: Whether the order of the two samples does not matter.
    symmetric: bool = True

    def __call__(self, function: Function) -> Function:
        """Return the function itself, marked."""
        vars(function)["metric"] = self
        return function
