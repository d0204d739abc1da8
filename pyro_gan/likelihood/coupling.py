"""The optimal transport coupling of an entropic GAN, given by a potential on generated data."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import check_eval, critic_scores, frozen_twin
from pyro_gan._typing import Critic
from pyro_gan.checks import function, tensor

__all__ = ["Coupling"]


@final
class Coupling(nn.Module):
    r"""The optimal transport coupling as a guide, given by a potential on generated data.

    .. math:: Q(z \mid y) \propto p_0(z)\, e^{-(\ell(y, G(z)) + D_2(G(z))) / \lambda}

    It cannot be drawn from; estimators weigh draws of the prior instead.

    Args:
        potential: D2, generated data `(batch, *event)` to one number a row; for instance the critic of
            `EntropicTransport`, through its `potential`. It is held as a frozen twin.

    Raises:
        ValueError: if the potential is not a callable, or is a network in training mode.

    Example:
        >>> import torch
        >>> coupling = Coupling(lambda x: x.square().sum(-1))
        >>> coupling(torch.ones(4, 3)).shape
        torch.Size([4])
    """

    def __init__(self, potential: Critic) -> None:
        super().__init__()
        check_eval(function("potential", potential), "potential")
        self.potential = frozen_twin(potential)
        super().train(False)

    def train(self, mode: bool = True) -> Coupling:
        """Stay in evaluation mode: the potential is frozen in use."""
        return super().train(False)

    def forward(self, x: Float[Tensor, "row *event"]) -> Float[Tensor, " row"]:
        """Return D2 of generated data."""
        return critic_scores(self.potential, tensor("generated data", x))
