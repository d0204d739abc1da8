"""Scoring rules: the critic is a classifier of real against generated."""

from __future__ import annotations

import math
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan.objectives.base import Objective

__all__ = ["Bernoulli"]


@final
class Bernoulli(Objective):
    r"""The original GAN's critic (binary cross-entropy) and its non-saturating generator.

    With logit :math:`f`, :math:`D = \sigma(f)` and :math:`\pi` the weight of real data, the critic minimises

    .. math:: -\pi\, E_{data} \log D - (1 - \pi)\, E_G \log(1 - D),
        \qquad f^* = \log r + \log\frac{\pi}{1 - \pi},

    and the generator :math:`-E_G \log D`, whose gradient lives on where the critic is sure. Both are computed from
    logits by softplus, so outputs of any size stay finite.

    Args:
        class_prior: :math:`\pi`. A critic trained by someone else on an unweighted mix with a share s of real data
            has class prior s.

    Raises:
        ValueError: if the class prior is not strictly between 0 and 1.

    References:
        Generative Adversarial Networks, I. Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661;
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> import torch
        >>> Bernoulli().critic_loss(torch.zeros(3), torch.zeros(5))
        tensor(0.6931)
    """

    proper = True

    def __init__(self, class_prior: float = 0.5) -> None:
        if not 0 < class_prior < 1:
            raise ValueError(
                f"Expected a class prior strictly between 0 and 1; got {class_prior}. "
                "It is the weight of real data in the critic's loss, 0.5 in most GANs."
            )
        self.class_prior = class_prior

    def __repr__(self) -> str:
        return f"Bernoulli(class_prior={self.class_prior})"

    def critic_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return the binary cross-entropy, real weighted by the class prior."""
        return self.class_prior * softplus(-real).mean() + (1 - self.class_prior) * softplus(generated).mean()

    def generator_loss(
        self, real: Float[Tensor, " batch"], generated: Float[Tensor, " batch2"]
    ) -> Float[Tensor, ""]:
        """Return -E_G log D."""
        return softplus(-generated).mean()

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the logit less the prior's log odds."""
        return output - (math.log(self.class_prior) - math.log1p(-self.class_prior))
