"""The loss of each player of a hybrid: encoder, generator, discriminator and the ratio of latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import cast, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_gan._networks import critic_scores
from pyro_gan.checks import batch, instance, real, shown
from pyro_gan.latent.probe import check_prior
from pyro_gan.objectives.base import Objective, TwoSampleLoss
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.vi.explicit import ExplicitLikelihood
from pyro_gan.vi.guides import Encoder, check_encoder
from pyro_gan.vi.hybrids import Hybrid
from pyro_gan.vi.ratios import LatentRatio, check_objective
from pyro_gan.vi.synthetic import synthetic_term

__all__ = ["HybridLoss", "moment_divergence"]

_DEFAULT = Bernoulli()
# Each is an attribute of `HybridLoss` and has a method `<player>_loss`.
_PLAYERS = ("encoder", "generator", "discriminator", "latent_ratio")


@final
@dataclass(eq=False, repr=False)
class HybridLoss:
    r"""The losses of a `Hybrid` for given networks; `AdversarialSVI` trains them.

    Each is a mean over the batch, in nats for a data point if it has a unit. With :math:`z_q` from the encoder at the
    data, :math:`z_p` from the prior, :math:`f` the discriminator's log ratio, :math:`T` the ratio of latents and
    :math:`p(x|z)` the explicit likelihood, the players of alpha-GAN minimise

    .. math::
        \text{encoder:}\;\; & E[-\log p(x|z_q) + T(z_q)], \\
        \text{generator:}\;\; & E[-\log p(x|z_q) - f(G(z_q))] - E[f(G(z_p))], \\
        \text{discriminator:}\;\; & \text{the objective's loss of } x \text{ against } G(z_q), G(z_p) \text{ in equal
        parts}, \\
        \text{latent ratio:}\;\; & \text{the ratio's loss of } z_q \text{ against } z_p,

    and the players of other hybrids minimise the terms that the settings leave. (Both kinds of fakes together have the
    weight of real data: with that weight for each, f would be smaller by log 2.) In AGE, with :math:`\Delta` the
    `moment_divergence`, the encoder minimises :math:`E[-\log p(x|z_q)] + \Delta(z_q) - \Delta(e(G(z_p)))` and the
    generator minimises :math:`\Delta(e(G(z_p))) + \nu E \|z_p - e(G(z_p))\|^2`.

    Args:
        hybrid: The settings.
        generator: `z: (row, *latent) -> x: (row, *event)`.
        prior: Distribution of latents, `batch_shape ()`.
        encoder: If there is a latent term: a guide with `conditional(x)`; an explicit one for latent="analytic".
        explicit_likelihood: If the likelihood is "explicit" or "both": the likelihood of data around a reconstruction.
        discriminator: If the likelihood is "synthetic" or "both": `x -> (row,)` or `(row, 1)`.
        latent_ratio: If the latent term is a ratio: `AggregatedRatio` for "ratio(z)", `ConditionalRatio` or
            `AdaptiveContrast` for "ratio(x, z)".
        objective: The discriminator's loss; its optimum must determine the ratio.
        reconstruction_weight: Factor of the explicit likelihood in the generator's loss, VAE-GAN's gamma.
        latent_weight: AGE's :math:`\nu`.
        mmd: For latent="mmd": a loss of two sets of latents, the prior's first.
        mmd_weight: Factor of `mmd`, which is not in nats.

    Raises:
        ValueError: if the settings have no meaning together, or a network is missing or superfluous.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.vi import HYBRIDS, ExplicitLikelihood, GaussianGuide
        >>> loss = HybridLoss(
        ...     HYBRIDS["VAE"], generator=nn.Linear(2, 3), prior=dist.Normal(0.0, 1.0).expand([2]).to_event(1),
        ...     encoder=GaussianGuide(nn.Linear(3, 4), dim=2),
        ...     explicit_likelihood=ExplicitLikelihood("normal", 1.0, reduction="sum"),
        ... )
        >>> sorted(loss.networks()), loss.is_bound
        (['encoder', 'generator'], True)
    """

    hybrid: Hybrid
    _: KW_ONLY
    generator: nn.Module
    prior: TorchDistribution
    encoder: nn.Module | None = None
    explicit_likelihood: ExplicitLikelihood | None = None
    discriminator: nn.Module | None = None
    latent_ratio: LatentRatio | None = None
    objective: Objective = _DEFAULT
    reconstruction_weight: float = 1.0
    latent_weight: float = 1.0
    mmd: TwoSampleLoss | None = None
    mmd_weight: float = 1.0

    def __post_init__(self) -> None:
        hybrid, explicit, ratio = self.hybrid, self.explicit_likelihood, self.latent_ratio
        instance("hybrid", hybrid, Hybrid, cure="Pass one such as HYBRIDS['alpha-GAN'].").check()
        check_objective(self.objective)
        for name, needed, kind in (
            ("generator", True, nn.Module),
            ("encoder", hybrid.latent is not None, nn.Module),
            ("explicit_likelihood", hybrid.likelihood != "synthetic", ExplicitLikelihood),
            ("discriminator", hybrid.likelihood != "explicit", nn.Module),
            ("latent_ratio", hybrid.latent in ("ratio(z)", "ratio(x, z)"), LatentRatio),
            ("mmd", hybrid.latent == "mmd", TwoSampleLoss),
        ):
            given = getattr(self, name)
            if not isinstance(given, kind if needed else type(None)):
                wanted = f"a {kind.__name__} as {name}" if needed else f"no {name}"
                raise ValueError(f"Expected {wanted} with {hybrid}; got {shown(given)}.")
        check_prior(self.prior)
        if self.encoder is not None:
            check_encoder(self.encoder)
        if explicit is not None and explicit.is_density != (hybrid.space == "data"):
            raise ValueError(
                f"Expected an explicit likelihood {'without' if hybrid.space == 'data' else 'with'} features in the "
                f"space {hybrid.space!r}; got the other kind."
            )
        if ratio is not None and ratio.uses_data != (hybrid.latent == "ratio(x, z)"):
            raise ValueError(f"Expected a {hybrid.latent}; got {type(ratio).__name__}.")
        prior = self.prior
        if hybrid.latent == "moment" and not (prior.mean.eq(0).all() and prior.variance.eq(1).all()):
            raise ValueError(
                "Expected a prior with mean 0 and variance 1 for latent='moment', which compares with those; got mean "
                f"{prior.mean.tolist()} and variance {prior.variance.tolist()}. Put the scale into the generator."
            )
        for name in ("reconstruction_weight", "latent_weight", "mmd_weight"):
            real(name, getattr(self, name))

    @property
    def is_bound(self) -> bool:
        """Whether the encoder's loss bounds the mean of -log p(x) from above."""
        return self.hybrid.is_bound

    def networks(self) -> dict[str, nn.Module]:
        """Return the players' networks in the order of their moves: encoder, generator, discriminator, latent ratio."""
        return {name: network for name in _PLAYERS if (network := getattr(self, name)) is not None}

    def losses(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return each player's loss, a function of a batch of data."""
        return {name: getattr(self, f"{name}_loss") for name in self.networks()}

    def encoder_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the encoder minimises: reconstruction and latent term.

        Args:
            x: Data.
        """
        conditional = self._conditional(x)
        z = conditional.rsample()
        return self._reconstruction(self.generator(z), x) + self._latent_term(conditional, z, x)

    def generator_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the generator minimises: reconstruction, and the discriminator's judgement.

        Args:
            x: Data.
        """
        if self.hybrid.latent == "moment":
            z = self._prior_draws(x)
            encoded = self._conditional(self.generator(z)).rsample()
            distance = (z - encoded).square().flatten(1).sum(-1).mean()
            return moment_divergence(encoded) + self.latent_weight * distance
        loss = batch("x", x).new_zeros(())
        if self.explicit_likelihood is not None:
            reconstructed = self.generator(self._encoded(x))
            loss = loss + self.reconstruction_weight * self._reconstruction(reconstructed, x)
            if self.discriminator is not None:
                loss = loss - self._judged(reconstructed)
        if self.discriminator is not None:
            loss = loss - self._judged(self.generator(self._prior_draws(x)))
        return loss

    def discriminator_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the discriminator minimises: data against generated and, if any, reconstructed data.

        Args:
            x: Data.
        """
        with torch.no_grad():
            fakes = [self.generator(self._prior_draws(x))]
            if self.encoder is not None:
                fakes.append(self.generator(self._encoded(x)))
        # One pass for each kind, since a layer with batch statistics must not mix them.
        generated = torch.cat([self._scores(fake) for fake in fakes])
        return self.objective.critic_loss(self._scores(x), generated)

    def latent_ratio_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the ratio of latents minimises: the encoder's latents against the prior's.

        Args:
            x: Data.
        """
        assert self.latent_ratio is not None
        return self.latent_ratio.loss(self._encoded(x), self._prior_draws(x), x)

    def _conditional(self, x: Tensor) -> TorchDistribution:
        conditional = cast(Encoder, self.encoder).conditional(batch("x", x))
        if conditional.event_shape != self.prior.event_shape:
            raise ValueError(
                f"Expected an encoder with the prior's latents, of shape {tuple(self.prior.event_shape)}; got "
                f"{tuple(conditional.event_shape)}."
            )
        return conditional

    def _encoded(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self._conditional(x).rsample()

    def _prior_draws(self, x: Tensor) -> Tensor:
        """Return a latent from the prior for each row of a batch."""
        with torch.no_grad():
            return self.prior.sample((len(batch("x", x)),))

    def _reconstruction(self, generated: Tensor, x: Tensor) -> Tensor:
        assert self.explicit_likelihood is not None
        if generated.shape != x.shape:
            shapes = f"{tuple(x.shape)}; got {tuple(generated.shape)}"
            raise ValueError(f"Expected generated data of the data's shape {shapes}. Correct the generator.")
        return -self.explicit_likelihood.log_prob(generated, x).mean()

    def _scores(self, x: Tensor) -> Tensor:
        assert self.discriminator is not None
        return critic_scores(self.discriminator, x)

    def _judged(self, generated: Tensor) -> Tensor:
        return synthetic_term(self.objective.log_ratio(self._scores(generated)), self.hybrid.form).mean()

    def _latent_term(self, conditional: TorchDistribution, z: Tensor, x: Tensor) -> Tensor:
        if self.latent_ratio is not None:
            return self.latent_ratio(z, x).mean()
        if self.mmd is not None:
            return self.mmd_weight * self.mmd(self._prior_draws(x), z)
        if self.hybrid.latent == "moment":
            with torch.no_grad():
                generated = self.generator(self._prior_draws(x))
            return moment_divergence(z) - moment_divergence(self._conditional(generated).rsample())
        try:
            return kl_divergence(conditional, self.prior.expand(conditional.batch_shape)).mean()
        except NotImplementedError as error:
            raise ValueError(
                f"Expected an encoder with a known KL divergence from the prior for latent='analytic', such as "
                f"GaussianGuide with a Normal prior; got {conditional} and {self.prior}. For an implicit encoder say "
                "latent='ratio(x, z)', 'ratio(z)' or 'mmd'."
            ) from error


def moment_divergence(z: Float[Tensor, "batch *latent"]) -> Float[Tensor, ""]:
    r"""Return the KL divergence from the standard normal of the Gaussian with a batch's means and variances.

    .. math:: \Delta(z) = \sum_j \tfrac12 \big(m_j^2 + v_j - \log v_j - 1\big)

    Published code for AGE squares the variance, drops the half before the logarithm, and takes the mean over j.

    Args:
        z: Latents, `(batch, *latent)`; the variance of a batch divides by its size.

    Returns:
        Nats, `()`.

    References:
        It Takes (Only) Two: Adversarial Generator-Encoder Networks, D. Ulyanov, A. Vedaldi and V. Lempitsky, 2018,
        https://arxiv.org/abs/1704.02304

    Example:
        >>> moment_divergence(torch.tensor([[1.0], [-1.0]]))
        tensor(0.)
    """
    rows = batch("z", z).reshape(len(z), -1)
    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    return 0.5 * (mean.square() + variance - variance.log() - 1).sum()
