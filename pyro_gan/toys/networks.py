"""Small networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """A stack of linear layers with an activation between them, and none after the last.

    Args:
        sizes: Width of the input, of every hidden layer and of the output.
        activation: Makes one activation module.

    Raises:
        ValueError: with fewer than two sizes.

    Example:
        >>> import torch
        >>> MLP([2, 64, 1])(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.SiLU) -> None:
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
