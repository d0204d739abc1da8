"""Learned log ratios of a guide to a prior, log q - log p: of latents, of latents and data, with adaptive contrast."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_gan._networks import critic_scores
from pyro_gan.checks import batch, function, instance, real
from pyro_gan.latent.probe import check_prior
from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.scoring import Bernoulli

__all__ = ["AdaptiveContrast", "AggregatedRatio", "ConditionalRatio", "LatentRatio", "as_ratio"]

_DEFAULT = Bernoulli()


class LatentRatio(nn.Module, ABC):
    r"""A function :math:`T = \log q - \log p` of latents, and the loss that trains it.

    The guide's draws have label 1 and the prior's have label 0. With the labels swapped, guide and discriminator would
    agree to move away from the prior. T is a network's estimate, so nothing built on it is a bound.

    Args:
        network: `z: (row, *latent) -> (row,)` or, where `uses_data`, `(x, z) -> (row,)`; also `(row, 1)`.
        objective: The loss of its outputs; its optimum must determine the ratio.
    """

    #: Whether the ratio reads the data beside the latents.
    uses_data: bool
    #: A learned ratio bounds nothing.
    is_bound = False

    def __init__(self, network: Callable[..., Tensor], *, objective: Objective = _DEFAULT) -> None:
        super().__init__()
        check_objective(objective)
        self.network = function("network", network)
        self.objective = objective

    @abstractmethod
    def forward(
        self, z: Float[Tensor, "row *latent"], x: Float[Tensor, "row *event"] | None = None
    ) -> Float[Tensor, " row"]:
        """Return T.

        Args:
            z: Latents.
            x: Data, where `uses_data`.

        Returns:
            Nats, `(row,)`.
        """

    @abstractmethod
    def loss(
        self,
        from_guide: Float[Tensor, "row *latent"],
        from_prior: Float[Tensor, "row2 *latent"],
        x: Float[Tensor, "row *event"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return what T minimises, given draws of both that carry no gradient.

        Args:
            from_guide: Draws of q; where `uses_data`, one for each row of `x`.
            from_prior: Draws of p; where `uses_data`, one for each row of `x`.
            x: Data, where `uses_data`.
        """

    def scores(self, z: Tensor, x: Tensor | None = None) -> Float[Tensor, " row"]:
        """Return the network's raw outputs, `(row,)`; arguments as for `forward`.

        Raises:
            ValueError: if there are no data where `uses_data`, or the network gives another shape.
        """
        z = batch("latents", z)
        if not self.uses_data:
            return critic_scores(self.network, z)
        data = _data(x)
        if len(data) != len(z):
            raise ValueError(f"Expected a row of x for each of {len(z)} latents; got {len(data)} rows.")
        return critic_scores(partial(self.network, data), z)


@final
class AggregatedRatio(LatentRatio):
    r"""T(z): the aggregated posterior :math:`q(z) = E_x q(z|x)` against the prior, as in adversarial autoencoders.

    :math:`E_q T` estimates :math:`KL(q(z) \| p(z))`, which is smaller than the mean of :math:`KL(q(z|x) \| p(z))` by
    the mutual information of latent and data. Therefore a loss with it is not an evidence bound, even if T is exact.

    Args:
        network: `z: (row, *latent) -> (row,)` or `(row, 1)`.
        objective: The loss of its outputs; its optimum must determine the ratio.

    Raises:
        ValueError: if the objective's optimum determines no ratio, or the network gives another shape.

    References:
        Adversarial Autoencoders, A. Makhzani et al., 2015, https://arxiv.org/abs/1511.05644;
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987 (the loss of the latents' ratio has swapped labels in the first version)

    Example:
        >>> AggregatedRatio(nn.Linear(2, 1))(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    uses_data = False

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Return T(z); `x` is not read."""
        return self.objective.log_ratio(self.scores(z))

    def loss(self, from_guide: Tensor, from_prior: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the objective's loss with the guide's draws as its real data."""
        return self.objective.critic_loss(self.scores(from_guide), self.scores(from_prior))


@final
class ConditionalRatio(LatentRatio):
    r"""T(x, z): the posterior of each data point against the prior, as in Adversarial Variational Bayes.

    At its optimum :math:`T^*(x, z) = \log q(z|x) - \log p(z)`, and the mean of :math:`\log p(x|z) - T` is the evidence
    lower bound; with a network in place of :math:`T^*` it is an estimate of that bound.

    Args:
        network: `(x, z) -> (row,)` or `(row, 1)`; `Joined` makes one from a network of one input.
        objective: The loss of its outputs; its optimum must determine the ratio.

    Raises:
        ValueError: if the objective's optimum determines no ratio, or the network gives another shape.

    References:
        Adversarial Variational Bayes, L. Mescheder, S. Nowozin and A. Geiger, 2017,
        https://arxiv.org/abs/1701.04722

    Example:
        >>> from pyro_gan.vi import Joined
        >>> ConditionalRatio(Joined(nn.Linear(3 + 2, 1)))(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    uses_data = True

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Return T(x, z)."""
        return self.objective.log_ratio(self.scores(z, x))

    def loss(self, from_guide: Tensor, from_prior: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the objective's loss with the guide's draws as its real data, each beside its data point."""
        return self.objective.critic_loss(self.scores(from_guide, x), self.scores(from_prior, x))


@final
class AdaptiveContrast(LatentRatio):
    r"""T(x, z) without the Gaussian part of the posterior, so that the network has only the rest to learn.

    Where posterior and prior hardly overlap, a classifier separates the two perfectly and gives no gradient. With
    :math:`\mu, \sigma^2` the moments of :math:`q(z|x)` and :math:`r = N(\mu, \sigma^2)`, the network compares
    :math:`\tilde z = (z - \mu) / \sigma` with standard normal noise, and

    .. math:: T(x, z) = T_\theta(x, \tilde z) + \log r(z|x) - \log p(z).

    For a Gaussian q the network has nothing to learn. The same variance, with its floor, enters everywhere, so the
    decomposition is exact for any moments if the network is exact.

    Args:
        network: `(x, z_tilde) -> (row,)` or `(row, 1)`.
        moments: Maps rows of data to mean and variance of q(z|x), each `(row, *latent)`, without a gradient: the
            guide's `moments`. It must depend on the data alone: moments from new draws would be noise, which no network
            can learn.
        prior: p(z), `batch_shape ()`.
        floor: Smallest variance.
        objective: The loss of its outputs; its optimum must determine the ratio.

    Raises:
        ValueError: if the objective's optimum determines no ratio, the prior has a batch shape, or the floor is not
            positive; in a call, if latents, moments and prior differ in shape.

    References:
        Adversarial Variational Bayes, L. Mescheder, S. Nowozin and A. Geiger, 2017,
        https://arxiv.org/abs/1701.04722

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.vi import GaussianGuide, Joined
        >>> guide = GaussianGuide(nn.Linear(3, 4), dim=2)
        >>> prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> ratio = AdaptiveContrast(Joined(nn.Linear(3 + 2, 1)), moments=guide.moments, prior=prior)
        >>> ratio(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    uses_data = True

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        *,
        moments: Callable[[Tensor], tuple[Tensor, Tensor]],
        prior: TorchDistribution,
        floor: float = 1e-6,
        objective: Objective = _DEFAULT,
    ) -> None:
        super().__init__(network, objective=objective)
        check_prior(prior)
        # A bound method, so the guide's parameters remain the guide's and are not part of this module.
        self.moments = function("moments", moments)
        self.prior = prior
        self.floor = real("floor", floor, above=0)

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Return T(x, z), with the Gaussian part."""
        standard, log_scale = self._standardised(z, x)
        log_r = (-0.5 * standard.square() - log_scale - 0.5 * math.log(2 * math.pi)).flatten(1).sum(-1)
        rest = self.objective.log_ratio(self.scores(standard, x))
        return rest + log_r - self.prior.log_prob(z)

    def loss(self, from_guide: Tensor, from_prior: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the objective's loss of standardised draws against new draws of a standard normal."""
        standard, _ = self._standardised(from_guide, x)
        contrast = torch.randn_like(standard)
        return self.objective.critic_loss(self.scores(standard, x), self.scores(contrast, x))

    def _standardised(self, z: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            z = batch("latents", z)
            mean, variance = self.moments(_data(x))
            if not mean.shape == variance.shape == z.shape or z.shape[1:] != self.prior.event_shape:
                raise ValueError(
                    f"Expected latents, mean and variance of one shape (row, *latent), with the prior's latent "
                    f"{tuple(self.prior.event_shape)}; got {tuple(z.shape)}, {tuple(mean.shape)} and "
                    f"{tuple(variance.shape)}. Take the moments of the guide's own site, and its prior."
                )
            variance = variance.clamp(min=self.floor)
        return (z - mean) / variance.sqrt(), 0.5 * variance.log()


def as_ratio(network: Any) -> LatentRatio:
    """Return a ratio of a plain network: T(z) if it takes one input, T(x, z) if it takes two.

    Args:
        network: A `LatentRatio`, which is returned as it is, or a module or function.

    Raises:
        ValueError: if the number of inputs is not evident.
    """
    if isinstance(network, LatentRatio):
        return network
    function("ratio network", network)
    signature = inspect.signature(network.forward if isinstance(network, nn.Module) else network)
    inputs = [p for p in signature.parameters.values() if p.default is p.empty]
    num_inputs = sum(p.kind <= p.POSITIONAL_OR_KEYWORD for p in inputs)
    if num_inputs not in (1, 2):
        raise ValueError(
            f"Expected a ratio network of (z) or (x, z); got one of {num_inputs} inputs. Say which it is: "
            "AggregatedRatio(network) or ConditionalRatio(network)."
        )
    return AggregatedRatio(network) if num_inputs == 1 else ConditionalRatio(network)


def check_objective(objective: Any) -> None:
    """Raise unless the optimum of an objective determines a ratio; hinge and Wasserstein losses have none."""
    instance("objective", objective, Objective, cure="Pass an instance, such as Bernoulli().")
    objective.log_ratio(torch.empty(0))


def _data(x: Tensor | None) -> Tensor:
    return batch("x", x, cure="This ratio is T(x, z). Pass x, the data of each row of latents.")
