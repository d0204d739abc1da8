"""The jackknife's standard error: how far an estimate moves if a part of the data is left out."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks

__all__ = ["jackknife_error"]


def jackknife_error(replicates: Float[Tensor, "replicate *batch"]) -> Float[Tensor, "*batch"]:
    r"""Return the standard error of an estimate from k replicates of it, each without another k-th of the data.

    .. math:: s^2 = \frac{k - 1}{k} \sum_j \Big(v_j - \frac1k \sum_i v_i\Big)^2

    Args:
        replicates: The estimates without a part each, `(replicate, *batch)`, at least two.

    Returns:
        `(*batch,)`. It is NaN where a replicate is not finite.

    Raises:
        ValueError: if there are fewer than two replicates.

    References:
        The Jackknife, the Bootstrap and Other Resampling Plans, B. Efron, 1982,
        https://doi.org/10.1137/1.9781611970319

    Example:
        >>> import torch
        >>> jackknife_error(torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 4.0]]))
        tensor([0.0000, 2.3094])
    """
    cure = "The spread of one is unknown."
    number = checks.count("number of replicates", len(checks.tensor("replicates", replicates)), minimum=2, cure=cure)
    return replicates.std(0, correction=0) * math.sqrt(number - 1)
