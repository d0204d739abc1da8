"""Small networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from torch import Tensor, nn

from pyro_gan import checks

__all__ = ["MLP", "check_layers"]


@final
class MLP(nn.Module):
    """A stack of linear layers with an activation between them; the last layer has no activation.

    Args:
        sizes: Widths of the input, of every hidden layer and of the output.
        activation: Makes one activation module.

    Raises:
        ValueError: if there are fewer than two sizes, one is below 1, or the activation cannot be called.

    Example:
        >>> import torch
        >>> MLP([2, 64, 1])(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.SiLU) -> None:
        check_layers("sizes", sizes, activation)
        if len(sizes) < 2:
            raise ValueError(f"Expected at least an input and an output size; got {list(sizes)}.")
        layers: list[nn.Module] = []
        for width_in, width_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(width_in, width_out), activation()]
        super().__init__()
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map `(*batch, sizes[0])` to `(*batch, sizes[-1])`."""
        return self.layers(x)


def check_layers(name: str, sizes: Any, activation: Any) -> None:
    """Raise unless sizes are counts, and the activation can be called: a class or a function."""
    if not isinstance(sizes, Sequence) or not callable(activation):
        found = f"{checks.shown(sizes)} and {checks.shown(activation)}"
        raise ValueError(f"Expected {name} as a list, and activation as a class such as nn.ReLU; got {found}.")
    for size in sizes:
        checks.count(f"a number in {name}", size)
