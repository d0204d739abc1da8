"""Discrete latents in rows of real numbers: exact for prior draws, refused by every move that is not one."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

__all__ = ["Discrete"]


@final
class Discrete(Transform):
    """Writes the values of a discrete latent as real numbers of the rows' dtype; the inverse reads them back.

    Args:
        row_dtype: Dtype of the rows.
        dtype: Dtype of the site's values.

    Example:
        >>> transform = Discrete(torch.float32, torch.int64)
        >>> transform(torch.tensor([3])), transform.inv(torch.tensor([3.0]))
        (tensor([3.]), tensor([3]))
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, row_dtype: torch.dtype, dtype: torch.dtype) -> None:
        super().__init__()
        self.row_dtype, self.dtype = row_dtype, dtype

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Discrete) and (self.row_dtype, self.dtype) == (other.row_dtype, other.dtype)

    def __hash__(self) -> int:
        return hash((self.row_dtype, self.dtype))

    def _call(self, x: Tensor) -> Tensor:
        return x.to(self.row_dtype)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.round().to(self.dtype)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return 0: sums over values have no Jacobian."""
        return torch.zeros_like(y, dtype=self.row_dtype)
