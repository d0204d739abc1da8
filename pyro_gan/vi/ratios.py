"""Learned log ratios of a guide to a prior, log q - log p: of latents alone, of latents and data, with contrast."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic
from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.scoring import Bernoulli

__all__ = ["AdaptiveContrast", "AggregatedRatio", "CodeRatio", "ConditionalRatio", "as_ratio"]

_DEFAULT = Bernoulli()


class CodeRatio(nn.Module, ABC):
    r"""A function :math:`T = \log q - \log p` of latents, and the loss that teaches it.

    Label 1 is the guide's draw and 0 the prior's: the other way round, guide and discriminator would agree to go away
    from the prior. It is a network's estimate, so nothing built on it is a bound.
    """

    #: Whether it reads the data beside the latents.
    uses_data: bool
    #: A learned ratio bounds nothing.
    is_bound = False

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
            from_guide: Draws of q; with data, one for each row of `x`.
            from_prior: Draws of p; with data, one for each row of `x`.
            x: Data, where `uses_data`.
        """


@final
class AggregatedRatio(CodeRatio):
    r"""T(z): the aggregated posterior :math:`q(z) = E_x q(z|x)` against the prior, as in adversarial autoencoders.

    :math:`E_q T` estimates :math:`KL(q(z) \| p(z))`, which is less than the mean of :math:`KL(q(z|x) \| p(z))` by the
    mutual information of latent and data. What is minimised with it is therefore no evidence bound, not even with an
    exact T.

    Args:
        network: `z: (row, *latent) -> (row,)` or `(row, 1)`.
        objective: How it is trained; its optimum must determine the ratio.

    Raises:
        ValueError: if the objective's optimum determines no ratio, or the network gives another shape.

    References:
        Adversarial Autoencoders, A. Makhzani et al., 2015, https://arxiv.org/abs/1511.05644;
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987 (the first version's code loss has the labels swapped)

    Example:
        >>> AggregatedRatio(nn.Linear(2, 1))(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    uses_data = False

    def __init__(self, network: Critic, *, objective: Objective = _DEFAULT) -> None:
        super().__init__()
        _check_objective(objective)
        self.network = network
        self.objective = objective

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Return T(z); `x` is not read."""
        return self.objective.log_ratio(critic_scores(self.network, z))

    def loss(self, from_guide: Tensor, from_prior: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the objective's loss with the guide's draws as its real data."""
        return self.objective.critic_loss(
            critic_scores(self.network, from_guide), critic_scores(self.network, from_prior)
        )


@final
class ConditionalRatio(CodeRatio):
    r"""T(x, z): the posterior of each datum against the prior, as in Adversarial Variational Bayes.

    At its optimum :math:`T^*(x, z) = \log q(z|x) - \log p(z)`, and the mean of :math:`\log p(x|z) - T` is the evidence
    lower bound; with a network in its place it is an estimate of that.

    Args:
        network: `(x, z) -> (row,)` or `(row, 1)`; `Joined` makes one from a network of one input.
        objective: How it is trained; its optimum must determine the ratio.

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

    def __init__(
        self, network: Callable[[Tensor, Tensor], Tensor], *, objective: Objective = _DEFAULT
    ) -> None:
        super().__init__()
        _check_objective(objective)
        self.network = network
        self.objective = objective

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Return T(x, z)."""
        return self.objective.log_ratio(_scores(self.network, z, x))

    def loss(self, from_guide: Tensor, from_prior: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the objective's loss with the guide's draws as its real data, each beside its datum."""
        return self.objective.critic_loss(
            _scores(self.network, from_guide, x), _scores(self.network, from_prior, x)
        )


@final
class AdaptiveContrast(CodeRatio):
    r"""T(x, z) with the Gaussian part of the posterior taken out, so that a network need only learn the rest.

    Where posterior and prior hardly overlap a classifier of the two is sure of everything and learns nothing. With
    :math:`\mu, \sigma^2` the moments of :math:`q(z|x)` and :math:`r = N(\mu, \sigma^2)`, the network compares
    :math:`\tilde z = (z - \mu) / \sigma` with standard normal noise, and

    .. math:: T(x, z) = T_\theta(x, \tilde z) + \log r(z|x) - \log p(z).

    For a Gaussian q the network has nothing to learn. One variance is used in all places, its floor included, so that
    the decomposition is exact whatever the moments are, if the network is.

    Args:
        network: `(x, z_tilde) -> (row,)` or `(row, 1)`.
        moments: Rows of data to mean and variance of q(z|x), `(row, *latent)` each, without a gradient; the guide's
            `moments`. A function of the data alone: moments drawn anew would be noise that no network can learn.
        prior: p(z), `batch_shape ()`.
        floor: Least variance.
        objective: How the network is trained; its optimum must determine the ratio.

    Raises:
        ValueError: if the objective's optimum determines no ratio, the prior has a batch shape, or the floor is not
            positive; when called, if latents, moments and prior differ in shape.

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
        super().__init__()
        _check_objective(objective)
        if prior.batch_shape:
            raise ValueError(
                f"Expected a prior with batch_shape (); got {tuple(prior.batch_shape)}. Use .to_event()."
            )
        if not floor > 0:
            raise ValueError(f"Expected a positive floor; got {floor}.")
        self.network = network
        # A bound method: the guide's parameters stay the guide's, and are no part of this module.
        self.moments = moments
        self.prior = prior
        self.floor = floor
        self.objective = objective

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Return T(x, z), the Gaussian part included."""
        standard, log_scale = self._standardised(z, x)
        log_r = (-0.5 * standard.square() - log_scale - 0.5 * math.log(2 * math.pi)).flatten(1).sum(-1)
        rest = self.objective.log_ratio(_scores(self.network, standard, x))
        return rest + log_r - self.prior.log_prob(z)

    def loss(self, from_guide: Tensor, from_prior: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the objective's loss of standardised draws against fresh standard normal ones."""
        standard, _ = self._standardised(from_guide, x)
        contrast = torch.randn_like(standard)
        return self.objective.critic_loss(
            _scores(self.network, standard, x), _scores(self.network, contrast, x)
        )

    def _standardised(self, z: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mean, variance = self.moments(_required(x))
            if not mean.shape == variance.shape == z.shape or z.shape[1:] != self.prior.event_shape:
                raise ValueError(
                    f"Expected latents, mean and variance of one shape (row, *latent), with the prior's latent "
                    f"{tuple(self.prior.event_shape)}; got {tuple(z.shape)}, {tuple(mean.shape)} and "
                    f"{tuple(variance.shape)}. Take the moments of the guide's own site, and its prior."
                )
            variance = variance.clamp(min=self.floor)
        return (z - mean) / variance.sqrt(), 0.5 * variance.log()


def as_ratio(network: Any) -> CodeRatio:
    """Return a ratio of a plain network: T(z) if it takes one input, T(x, z) if it takes two.

    Args:
        network: A `CodeRatio`, which is returned as it is, or a module or function.

    Raises:
        ValueError: if the number of inputs is not evident.
    """
    if isinstance(network, CodeRatio):
        return network
    if not callable(network):
        raise ValueError(f"Expected a ratio network; got {network!r}.")
    signature = inspect.signature(network.forward if isinstance(network, nn.Module) else network)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in positional and parameter.default is inspect.Parameter.empty
    ]
    if len(required) == 1:
        return AggregatedRatio(network)
    if len(required) == 2:
        return ConditionalRatio(network)
    raise ValueError(
        f"Expected a ratio network of (z) or (x, z); got one of {len(required)} inputs. Say which it is: "
        "AggregatedRatio(network) or ConditionalRatio(network)."
    )


def _check_objective(objective: Objective) -> None:
    # Hinge and Wasserstein losses leave no ratio: they raise here, before any training.
    objective.log_ratio(torch.empty(0))


def _required(x: Tensor | None) -> Tensor:
    if x is None:
        raise ValueError("Expected the data beside the latents: this ratio is T(x, z). Pass x.")
    return x


def _scores(network: Callable[[Tensor, Tensor], Tensor], z: Tensor, x: Tensor | None) -> Tensor:
    data = _required(x)

    def critic(rows: Tensor, /, **context: Tensor) -> Tensor:
        return network(data, rows)

    return critic_scores(critic, z)
