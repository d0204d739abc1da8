"""Entropic optimal transport between data and generated data: the entropic GAN's pair of losses."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic
from pyro_gan.objectives._tangent import exp_tangent
from pyro_gan.residuals.loss import check_regularization, residual_loss

__all__ = ["EntropicTransport"]

FORMS = ("semi_dual", "dual")
#: Entries of a matrix of losses held at a time where no gradient is asked for.
MAX_PAIRS = 4_000_000


@final
class EntropicTransport:
    r"""The cost of moving generated data to the data under a loss, regularised by mutual information.

    .. math:: OT_\lambda = \min_{\pi \in \Pi(P_Y, P_G)} \mathbb{E}_\pi[\ell] + \lambda\, KL(\pi \Vert P_Y \otimes P_G)

    The critic climbs its dual, the generator descends the cost of the coupling that the critic implies, whose weights
    are held fixed (the envelope theorem). With log C of the loss and the surrogate likelihood L of that coupling,
    :math:`\mathbb{E}_{P_Y} L = \log C - OT_\lambda / \lambda`: training is maximising the mean surrogate.

    Two forms. The *semi-dual* has one potential :math:`D_2` on generated data, the critic's one output; the other is

    .. math:: D_1(y) = -\lambda \log \mathbb{E}_{x \sim P_G} e^{-(D_2(x) + \ell(y, x)) / \lambda},

    by log-sum-exp over the batch, so nothing overflows. The log of a batch's mean is too low on average, hence the
    cost too high: take wide batches, and report `cost` on many draws. The *dual* has a critic with two outputs a row,
    :math:`D_1` and :math:`D_2`, and minimises
    :math:`\mathbb{E} D_2 - \mathbb{E} D_1 + \lambda\, \mathbb{E}\, e^{(D_1 - D_2 - \ell)/\lambda} - \lambda` over all
    pairs of a batch; its exponential goes on as its tangent from 20 on. It has no such bias, and trains less steadily.

    The paper's primal has less the entropy of the coupling in place of the mutual information. That differs by the
    entropy of the generated data, which depends on the generator and is minus infinity where it has fewer latents than
    coordinates; what the paper trains is the form here.

    No log ratio is left in the critic. `fit_gan` takes the objective, and `fit_transport` fits the critic of a
    generator that stands still, for `estimators.Coupling(objective.potential(critic))`.

    Args:
        loss: "squared_l2", "half_squared_l2", "l1" or "l2", of the residual.
        regularization: Lambda, positive.
        reduction: "sum" of the loss over the event, or its "mean"; see `EntropicGAN`.
        form: "semi_dual" or "dual".

    Raises:
        ValueError: if an argument is none of these.

    References:
        Entropic GANs meet VAEs: A Statistical Approach to Compute Sample Likelihoods in GANs, Y. Balaji, H. Hassani,
        R. Chellappa and S. Feizi, 2019, https://arxiv.org/abs/1810.04147;
        Stochastic Optimization for Large-scale Optimal Transport, A. Genevay et al., 2016,
        https://arxiv.org/abs/1605.08527

    Example:
        >>> objective = EntropicTransport(regularization=0.5)
        >>> y, x = torch.zeros(4, 2), torch.ones(6, 2)
        >>> objective.cost(lambda x: x.sum(-1), y, x)  # one place to another, 2 apart: any potential will do
        tensor(2.)
    """

    def __init__(
        self,
        *,
        loss: str = "squared_l2",
        regularization: float,
        reduction: str = "sum",
        form: str = "semi_dual",
    ) -> None:
        self.loss = residual_loss(loss, reduction)
        check_regularization(regularization)
        if form not in FORMS:
            raise ValueError(f"Expected a form out of {', '.join(FORMS)}; got {form!r}.")
        self.regularization = float(regularization)
        self.form = form

    def critic_loss(
        self,
        critic: Critic,
        real_x: Float[Tensor, "batch *event"],
        generated_x: Float[Tensor, "batch2 *event"],
    ) -> Float[Tensor, ""]:
        """Return what the critic minimises, less the dual value of the transport cost.

        Args:
            critic: Data to one potential a row, or to two in the dual form, `(batch, 2)`.
            real_x: Real data.
            generated_x: Generated data of the same event shape; their number may differ.
        """
        losses = self._losses(real_x, generated_x)
        if self.form == "semi_dual":
            return -self._semi_dual(critic_scores(critic, generated_x), losses)
        first, second = _two(critic, real_x)[:, 0], _two(critic, generated_x)[:, 1]
        v = (first[:, None] - second - losses) / self.regularization
        excess = self.regularization * (exp_tangent(v).mean() - 1)
        return excess - (first.mean() - second.mean())

    def generator_loss(
        self,
        critic: Critic,
        real_x: Float[Tensor, "batch *event"],
        generated_x: Float[Tensor, "batch2 *event"],
    ) -> Float[Tensor, ""]:
        """Return the mean loss under the coupling, whose weights carry no gradient; arguments as for `critic_loss`."""
        losses = self._losses(real_x, generated_x)
        with torch.no_grad():
            coupling = torch.softmax(
                -(self.potential(critic)(generated_x) + losses) / self.regularization, -1
            )
        return (coupling * losses).sum(-1).mean()

    @torch.no_grad()
    def cost(
        self,
        critic: Critic,
        real_x: Float[Tensor, "datum *event"],
        generated_x: Float[Tensor, "row *event"],
    ) -> Float[Tensor, ""]:
        """Return the semi-dual value of the critic on these data, an estimate of the transport cost.

        Any potential gives a lower bound of the cost in the limit of many rows; with few generated rows the value is
        too high on average. Thousands of each are no burden. Arguments as for `critic_loss`.
        """
        potential = self.potential(critic)(generated_x)
        blocks = real_x.split(max(1, MAX_PAIRS // len(generated_x)))
        total = torch.stack(
            [self._semi_dual(potential, self._losses(block, generated_x)) * len(block) for block in blocks]
        )
        return total.sum() / len(real_x)

    def potential(self, critic: Critic) -> nn.Module:
        """Return D2, data to one number a row: the critic itself, or its second output in the dual form."""
        return _Potential(critic, self.form)

    def _semi_dual(self, potential: Tensor, losses: Tensor) -> Tensor:
        exponents = -(potential + losses) / self.regularization
        first = -self.regularization * (torch.logsumexp(exponents, -1) - math.log(losses.shape[-1]))
        return first.mean() - potential.mean()

    def _losses(self, real_x: Tensor, generated_x: Tensor) -> Tensor:
        if real_x.dim() < 2 or not len(real_x) or not len(generated_x):
            raise ValueError(
                f"Expected data of shape (batch, *event), a row or more; got {tuple(real_x.shape)} real and "
                f"{tuple(generated_x.shape)} generated."
            )
        if real_x.shape[1:] != generated_x.shape[1:]:
            raise ValueError(
                f"Expected real and generated data of one event shape; got {tuple(real_x.shape[1:])} and "
                f"{tuple(generated_x.shape[1:])}."
            )
        return self.loss.pairwise(real_x.flatten(1), generated_x.flatten(1))

    def __repr__(self) -> str:
        return (
            f"EntropicTransport(loss={self.loss.name!r}, reduction={self.loss.reduction!r}, "
            f"regularization={self.regularization:g}, form={self.form!r})"
        )


class _Potential(nn.Module):
    """A critic's potential of the generated side; a module, so that whoever holds it can see and freeze the critic."""

    def __init__(self, critic: Critic, form: str) -> None:
        super().__init__()
        self.critic = critic
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        return critic_scores(self.critic, x) if self.form == "semi_dual" else _two(self.critic, x)[:, 1]


def _two(critic: Critic, x: Tensor) -> Float[Tensor, "batch 2"]:
    output = critic(x)
    if output.shape != (len(x), 2):
        raise ValueError(
            f"Expected a critic with two outputs a row in the dual form, ({len(x)}, 2); got {tuple(output.shape)}. End "
            "it with nn.Linear(width, 2), or take form='semi_dual', which needs one."
        )
    return output
