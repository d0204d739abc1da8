"""The optimal transport coupling of an entropic GAN, known by the potential of its generated side."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import check_eval, critic_scores, frozen_twin
from pyro_gan._typing import Critic

__all__ = ["Coupling"]


@final
class Coupling(nn.Module):
    r"""The optimal transport coupling as a guide, known by the potential of the generated side.

    .. math:: Q(z \mid y) \propto p_0(z)\, e^{-(\ell(y, G(z)) + D_2(G(z))) / \lambda}

    It can be weighed, not drawn from: only by reweighing draws of the prior.

    Args:
        potential: D2, generated data `(batch, *event)` to one number a row; for instance the critic of
            `EntropicTransport`, through its `potential`. It is held as a frozen twin.

    Raises:
        ValueError: if it is no callable, or a network in training mode.

    Example:
        >>> import torch
        >>> coupling = Coupling(lambda x: x.square().sum(-1))
        >>> coupling(torch.ones(4, 3)).shape
        torch.Size([4])
    """

    def __init__(self, potential: Critic) -> None:
        super().__init__()
        if not callable(potential):
            raise ValueError(f"Expected the potential to be a callable on data; got {potential!r}.")
        check_eval(potential, "potential")
        self.potential = frozen_twin(potential)
        super().train(False)

    def train(self, mode: bool = True) -> Coupling:
        """Stay in evaluation mode: the potential is frozen in use."""
        return super().train(False)

    def forward(self, x: Float[Tensor, "row *event"]) -> Float[Tensor, " row"]:
        """Return D2 of generated data."""
        return critic_scores(self.potential, x)
