"""Entropic optimal transport between real and generated data: the entropic GAN's pair of losses."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic
from pyro_gan.checks import choice, function, shaped
from pyro_gan.objectives.base import Rows, Scalar, check_data
from pyro_gan.objectives.tangent import exp_tangent
from pyro_gan.residuals.loss import check_regularization, residual_loss

__all__ = ["EntropicTransport"]

FORMS = ("semi_dual", "dual")
#: The largest number of losses in memory at a time where no gradient is needed.
MAX_PAIRS = 4_000_000


@final
class EntropicTransport:
    r"""The cost of moving generated data to the data under a loss, regularised by mutual information.

    .. math:: OT_\lambda = \min_{\pi \in \Pi(P_Y, P_G)} \mathbb{E}_\pi[\ell] + \lambda\, KL(\pi \Vert P_Y \otimes P_G)

    The critic maximises the dual of this cost. The generator minimises the cost of the coupling that the critic
    implies, with the coupling's weights held fixed (the envelope theorem). With log C of the loss and the surrogate
    likelihood L of that coupling, :math:`\mathbb{E}_{P_Y} L = \log C - OT_\lambda / \lambda`: training maximises the
    mean surrogate.

    There are two forms. The *semi-dual* has one potential, :math:`D_2` on generated data, which is the critic's only
    output; the other potential is

    .. math:: D_1(y) = -\lambda \log \mathbb{E}_{x \sim P_G} e^{-(D_2(x) + \ell(y, x)) / \lambda},

    computed by log-sum-exp over the batch, so nothing overflows. The log of a batch's mean is too low on average, so
    the cost is too high: take wide batches, and report `cost` on many draws. The *dual* has a critic with two outputs
    for each row, :math:`D_1` and :math:`D_2`, and minimises
    :math:`\mathbb{E} D_2 - \mathbb{E} D_1 + \lambda\, \mathbb{E}\, e^{(D_1 - D_2 - \ell)/\lambda} - \lambda` over all
    pairs of a batch; its exponential continues as its tangent beyond 20. It has no such bias, but trains less steadily.

    The paper's primal has minus the entropy of the coupling in place of the mutual information. The two differ by the
    entropy of the generated data, which depends on the generator and is minus infinity if the generator has fewer
    latents than coordinates. The paper trains the form given here.

    The critic contains no log ratio. `fit_gan` trains a pair with this objective. `fit_transport` fits a critic to a
    generator that is not trained, for `likelihood.Coupling(objective.potential(critic))`.

    Args:
        loss: "squared_l2", "half_squared_l2", "l1" or "l2", of the residual.
        regularization: Lambda, positive.
        reduction: "sum" of the loss over the event, or "mean"; see `EntropicGAN`.
        form: "semi_dual" or "dual".

    Raises:
        ValueError: if an argument has another value.

    References:
        Entropic GANs meet VAEs: A Statistical Approach to Compute Sample Likelihoods in GANs, Y. Balaji, H. Hassani,
        R. Chellappa and S. Feizi, 2019, https://arxiv.org/abs/1810.04147;
        Stochastic Optimization for Large-scale Optimal Transport, A. Genevay et al., 2016,
        https://arxiv.org/abs/1605.08527

    Example:
        >>> objective = EntropicTransport(regularization=0.5)
        >>> y, x = torch.zeros(4, 2), torch.ones(6, 2)
        >>> objective.cost(lambda x: x.sum(-1), y, x)  # all mass moves a squared distance of 2
        tensor(2.)
    """

    def __init__(
        self, *, loss: str = "squared_l2", regularization: float, reduction: str = "sum", form: str = "semi_dual"
    ) -> None:
        self.loss = residual_loss(loss, reduction)
        self.regularization = check_regularization(regularization)
        self.form = choice("form", form, FORMS)

    def critic_loss(self, critic: Critic, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return what the critic minimises: minus the dual value of the transport cost.

        Args:
            critic: Data to one potential for each row, or to two in the dual form, `(batch, 2)`.
            real_x: Real data.
            generated_x: Generated data of the same event shape; their number may differ.
        """
        losses = self._losses(real_x, generated_x)
        if self.form == "semi_dual":
            return -self._semi_dual(self.potential(critic)(generated_x), losses)
        first, second = _two(critic, real_x)[:, 0], _two(critic, generated_x)[:, 1]
        v = (first[:, None] - second - losses) / self.regularization
        excess = self.regularization * (exp_tangent(v).mean() - 1)
        return excess - (first.mean() - second.mean())

    def generator_loss(self, critic: Critic, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the mean loss under the coupling; its weights have no gradient. Arguments as for `critic_loss`."""
        losses = self._losses(real_x, generated_x)
        with torch.no_grad():
            potential = self.potential(critic)(generated_x)
            coupling = torch.softmax(-(potential + losses) / self.regularization, -1)
        return (coupling * losses).sum(-1).mean()

    @torch.no_grad()
    def cost(self, critic: Critic, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the semi-dual value of the critic on these data, an estimate of the transport cost.

        In the limit of many rows any potential gives a lower bound of the cost; with few generated rows the value is
        too high on average. Thousands of rows are cheap. Arguments as for `critic_loss`.
        """
        check_data(real=real_x, generated=generated_x)
        potential = self.potential(critic)(generated_x)
        blocks = real_x.split(max(1, MAX_PAIRS // len(generated_x)))
        parts = [self._semi_dual(potential, self._losses(part, generated_x)) * len(part) for part in blocks]
        return torch.stack(parts).sum() / len(real_x)

    def potential(self, critic: Critic) -> nn.Module:
        """Return D2, data to one number for each row: the critic itself, or its second output in the dual form."""
        return _Potential(function("critic", critic), self.form)

    def _semi_dual(self, potential: Tensor, losses: Tensor) -> Tensor:
        exponents = -(potential + losses) / self.regularization
        first = -self.regularization * (torch.logsumexp(exponents, -1) - math.log(losses.shape[-1]))
        return first.mean() - potential.mean()

    def _losses(self, real_x: Tensor, generated_x: Tensor) -> Tensor:
        check_data(real=real_x, generated=generated_x)
        if real_x.dim() < 2:
            raise ValueError(f"Expected data of shape (batch, *event); got {tuple(real_x.shape)}.")
        return self.loss.pairwise(real_x.flatten(1), generated_x.flatten(1))

    def __repr__(self) -> str:
        return (
            f"EntropicTransport(loss={self.loss.name!r}, reduction={self.loss.reduction!r}, "
            f"regularization={self.regularization:g}, form={self.form!r})"
        )


@final
class _Potential(nn.Module):
    """A critic's potential of the generated side; as a module it shows the critic to code that freezes networks."""

    def __init__(self, critic: Critic, form: str) -> None:
        super().__init__()
        self.critic = critic
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        check_data(generated=x)
        return critic_scores(self.critic, x) if self.form == "semi_dual" else _two(self.critic, x)[:, 1]


def _two(critic: Critic, x: Tensor) -> Float[Tensor, "batch 2"]:
    cure = "End the critic with nn.Linear(width, 2), or set form='semi_dual', which needs one output."
    output = function("critic", critic)(x)
    return shaped("two outputs of the critic for each row in the dual form,", output, (len(x), 2), cure=cure)
