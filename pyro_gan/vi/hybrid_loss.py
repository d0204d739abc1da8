"""What each player of a hybrid minimises: encoder, generator, discriminator, code discriminator."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_gan._networks import critic_scores
from pyro_gan.objectives.base import Objective, TwoSampleLoss
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.vi.guides import Encoder
from pyro_gan.vi.hybrids import Hybrid
from pyro_gan.vi.observer import Observer
from pyro_gan.vi.players import Role
from pyro_gan.vi.ratios import CodeRatio
from pyro_gan.vi.synthetic import synthetic_term

__all__ = ["HybridLoss", "moment_divergence"]

_DEFAULT = Bernoulli()


@final
class HybridLoss:
    r"""The losses of a `Hybrid` for networks at hand; `AdversarialSVI` trains them.

    All are means over the batch, in nats a datum where they have a unit. With :math:`z_q` from the encoder at the data,
    :math:`z_p` from the prior, :math:`f` the discriminator's log ratio, :math:`T` the code's and :math:`p(x|z)` the
    observer, the players of alpha-GAN minimise

    .. math::
        \text{encoder:}\;\; & E[-\log p(x|z_q) + T(z_q)], \\
        \text{generator:}\;\; & E[-\log p(x|z_q) - f(G(z_q))] - E[f(G(z_p))], \\
        \text{discriminator:}\;\; & \text{the objective's loss of } x \text{ against } G(z_q), G(z_p) \text{ in equal
        parts}, \\
        \text{code:}\;\; & \text{the ratio's loss of } z_q \text{ against } z_p,

    and the others what is left of this by their settings. (Fakes of two kinds have, together, the weight of real data:
    with the weight of each, f would be less by log 2.) In AGE, with :math:`\Delta` the `moment_divergence`, the encoder
    minimises :math:`E[-\log p(x|z_q)] + \Delta(z_q) - \Delta(e(G(z_p)))` and the generator
    :math:`\Delta(e(G(z_p))) + \nu E \|z_p - e(G(z_p))\|^2`.

    Args:
        hybrid: The settings.
        generator: `z: (row, *latent) -> x: (row, *event)`.
        prior: Law of latents, `batch_shape ()`.
        encoder: With a code: a guide with `conditional(x)`; an explicit one where the code is "analytic".
        observer: With an observer: the likelihood of data round a reconstruction.
        discriminator: With a synthetic likelihood: `x -> (row,)` or `(row, 1)`.
        code_ratio: Where the code is a ratio: `AggregatedRatio` for "ratio(z)", `ConditionalRatio` or
            `AdaptiveContrast` for "ratio(x, z)".
        objective: What the discriminator minimises; its optimum must determine the ratio.
        reconstruction_weight: Factor of the observer in the generator's loss, VAE-GAN's gamma.
        latent_weight: AGE's :math:`\nu`.
        mmd: Where the code is "mmd": a loss of two sets of latents, the prior's first.
        mmd_weight: Its factor; it is not in nats.

    Attributes:
        is_bound: Whether the encoder's loss bounds the mean of -log p(x) from above.

    Raises:
        ValueError: if the settings have no meaning together, or a network they need is missing or one they do not
            need is there.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.vi import HYBRIDS, GaussianGuide, Observer
        >>> loss = HybridLoss(
        ...     HYBRIDS["VAE"], generator=nn.Linear(2, 3), prior=dist.Normal(0.0, 1.0).expand([2]).to_event(1),
        ...     encoder=GaussianGuide(nn.Linear(3, 4), dim=2), observer=Observer("normal", 1.0, reduction="sum"),
        ... )
        >>> sorted(loss.roles()), loss.is_bound
        (['encoder', 'generator'], True)
    """

    def __init__(
        self,
        hybrid: Hybrid,
        *,
        generator: nn.Module,
        prior: TorchDistribution,
        encoder: nn.Module | None = None,
        observer: Observer | None = None,
        discriminator: nn.Module | None = None,
        code_ratio: CodeRatio | None = None,
        objective: Objective = _DEFAULT,
        reconstruction_weight: float = 1.0,
        latent_weight: float = 1.0,
        mmd: TwoSampleLoss | None = None,
        mmd_weight: float = 1.0,
    ) -> None:
        hybrid.check()
        objective.log_ratio(torch.empty(0))  # hinge and Wasserstein leave no ratio, and raise here
        for name, given, needed in (
            ("encoder", encoder, hybrid.code is not None),
            ("observer", observer, hybrid.likelihood != "synthetic"),
            ("discriminator", discriminator, hybrid.likelihood != "observer"),
            ("code_ratio", code_ratio, hybrid.code in ("ratio(z)", "ratio(x, z)")),
            ("mmd", mmd, hybrid.code == "mmd"),
        ):
            if (given is not None) != needed:
                raise ValueError(f"Expected {'a' if needed else 'no'} {name} with {hybrid}; got {given!r}.")
        if prior.batch_shape:
            raise ValueError(
                f"Expected a prior with batch_shape (); got {tuple(prior.batch_shape)}. Use .to_event()."
            )
        if encoder is not None and not isinstance(encoder, Encoder):
            raise ValueError(
                f"Expected an encoder with conditional(x), such as GaussianGuide; got {encoder!r}."
            )
        if observer is not None and observer.is_density != (hybrid.space == "data"):
            raise ValueError(
                f"Expected an observer {'without' if hybrid.space == 'data' else 'with'} features in the space "
                f"{hybrid.space!r}."
            )
        if code_ratio is not None and code_ratio.uses_data != (hybrid.code == "ratio(x, z)"):
            raise ValueError(f"Expected a {hybrid.code}; got {type(code_ratio).__name__}.")
        if hybrid.code == "moment":
            _check_standard(prior)
        self.hybrid = hybrid
        self.is_bound = hybrid.is_bound
        self.generator, self.prior, self.encoder, self.observer = generator, prior, encoder, observer
        self.discriminator, self.code_ratio, self.objective = discriminator, code_ratio, objective
        self.reconstruction_weight, self.latent_weight = reconstruction_weight, latent_weight
        self.mmd, self.mmd_weight = mmd, mmd_weight

    def roles(self) -> dict[str, Role]:
        """Return the players in the order of their moves: encoder, generator, discriminator, code."""
        roles = {}
        if self.encoder is not None:
            roles["encoder"] = Role(self.encoder, self.encoder_loss)
        roles["generator"] = Role(self.generator, self.generator_loss)
        if self.discriminator is not None:
            roles["discriminator"] = Role(self.discriminator, self.discriminator_loss)
        if self.code_ratio is not None:
            roles["code"] = Role(self.code_ratio, self.code_loss)
        return roles

    def encoder_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the encoder minimises: reconstruction and code.

        Args:
            x: Data.
        """
        conditional = self._conditional(x)
        z = conditional.rsample()
        return self._reconstruction(self.generator(z), x) + self._code(conditional, z, x)

    def generator_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the generator minimises: reconstruction, and the discriminator's judgement.

        Args:
            x: Data.
        """
        if self.hybrid.code == "moment":
            z = self._prior_draws(len(x))
            code = self._conditional(self.generator(z)).rsample()
            distance = (z - code).square().flatten(1).sum(-1).mean()
            return moment_divergence(code) + self.latent_weight * distance
        loss = x.new_zeros(())
        if self.observer is not None:
            reconstructed = self.generator(self._codes(x))
            loss = loss + self.reconstruction_weight * self._reconstruction(reconstructed, x)
            if self.discriminator is not None:
                loss = loss - self._judged(reconstructed)
        if self.discriminator is not None:
            loss = loss - self._judged(self.generator(self._prior_draws(len(x))))
        return loss

    def discriminator_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the discriminator minimises: data against generated and, if any, reconstructed data.

        Args:
            x: Data.
        """
        assert self.discriminator is not None
        with torch.no_grad():
            fakes = [self.generator(self._prior_draws(len(x)))]
            if self.encoder is not None:
                fakes.append(self.generator(self._codes(x)))
        # One pass a kind: a layer with batch statistics must not mix them.
        scores = [critic_scores(self.discriminator, fake) for fake in fakes]
        return self.objective.critic_loss(critic_scores(self.discriminator, x), torch.cat(scores))

    def code_loss(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, ""]:
        """Return what the code ratio minimises: the encoder's latents against the prior's.

        Args:
            x: Data.
        """
        assert self.code_ratio is not None
        return self.code_ratio.loss(self._codes(x), self._prior_draws(len(x)), x)

    def _conditional(self, x: Tensor) -> TorchDistribution:
        assert isinstance(self.encoder, Encoder)
        conditional = self.encoder.conditional(x)
        if conditional.event_shape != self.prior.event_shape:
            raise ValueError(
                f"Expected an encoder with the prior's latents, of shape {tuple(self.prior.event_shape)}; got "
                f"{tuple(conditional.event_shape)}."
            )
        return conditional

    def _codes(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self._conditional(x).rsample()

    def _prior_draws(self, rows: int) -> Tensor:
        with torch.no_grad():
            return self.prior.sample((rows,))

    def _reconstruction(self, generated: Tensor, x: Tensor) -> Tensor:
        assert self.observer is not None
        if generated.shape != x.shape:
            raise ValueError(
                f"Expected generated data of the data's shape, {tuple(x.shape)}; got {tuple(generated.shape)}."
            )
        return -self.observer.log_prob(generated, x).mean()

    def _judged(self, generated: Tensor) -> Tensor:
        assert self.discriminator is not None
        log_ratio = self.objective.log_ratio(critic_scores(self.discriminator, generated))
        return synthetic_term(log_ratio, self.hybrid.form).mean()

    def _code(self, conditional: TorchDistribution, z: Tensor, x: Tensor) -> Tensor:
        if self.code_ratio is not None:
            return self.code_ratio(z, x).mean()
        if self.mmd is not None:
            return self.mmd_weight * self.mmd(self._prior_draws(len(x)), z)
        if self.hybrid.code == "moment":
            with torch.no_grad():
                generated = self.generator(self._prior_draws(len(x)))
            return moment_divergence(z) - moment_divergence(self._conditional(generated).rsample())
        try:
            return kl_divergence(conditional, self.prior.expand(conditional.batch_shape)).mean()
        except NotImplementedError as error:
            raise ValueError(
                f"Expected an encoder whose KL divergence from the prior is known, such as GaussianGuide with a Normal "
                f"prior, for the code 'analytic'; got {conditional} and {self.prior}. An implicit encoder needs "
                "'ratio(x, z)', 'ratio(z)' or 'mmd'."
            ) from error


def moment_divergence(z: Float[Tensor, "batch *latent"]) -> Float[Tensor, ""]:
    r"""Return the KL divergence from the standard normal of the Gaussian with a batch's means and variances.

    .. math:: \Delta(z) = \sum_j \tfrac12 \big(m_j^2 + v_j - \log v_j - 1\big)

    Published code for AGE has the squared variance for :math:`v_j`, no half before the logarithm, and the mean over j.

    Args:
        z: Latents; variances are those of the batch itself, divided by its size.

    Returns:
        Nats, `()`.

    References:
        It Takes (Only) Two: Adversarial Generator-Encoder Networks, D. Ulyanov, A. Vedaldi and V. Lempitsky, 2018,
        https://arxiv.org/abs/1704.02304

    Example:
        >>> moment_divergence(torch.tensor([[1.0], [-1.0]]))
        tensor(0.)
    """
    rows = z.flatten(1)
    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    return 0.5 * (mean.square() + variance - variance.log() - 1).sum()


def _check_standard(prior: TorchDistribution) -> None:
    mean, variance = prior.mean, prior.variance
    if not (torch.equal(mean, torch.zeros_like(mean)) and torch.equal(variance, torch.ones_like(variance))):
        raise ValueError(
            "Expected a prior with mean 0 and variance 1 for the code 'moment', which compares with those. Put another "
            "scale into the generator, or use 'mmd'."
        )
