"""The latent posterior of a GAN, `p0(z) r(G(z))`, as a Pyro model and as a batched potential."""

from __future__ import annotations

import contextlib
import warnings
from typing import final

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import by_chunk, check_eval, critic_scores, frozen_twin
from pyro_gan._probe import unwritten
from pyro_gan._random import rng_fork
from pyro_gan._typing import BoundedRatio, Critic, Generator, Params, left_shape
from pyro_gan.checks import count, function, real
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.latent.prior import LatentPrior, expanded
from pyro_gan.latent.probe import ContextError, probe

__all__ = ["LatentPosterior"]

# `diagnose` warns beyond these limits. With a smaller ESS, or a larger weight among 1e5 draws, the weights depend more
# on the critic's tail than on the data. Above .7 Pareto-smoothed importance sampling is no longer reliable.
MIN_ESS_FRACTION, MAX_WEIGHT_SHARE, MAX_PARETO_K = 0.01, 0.001, 0.7


@final
class LatentPosterior(nn.Module):
    r"""A trained generator, a log density ratio and a prior as one target for inference.

    The density over latents is

    .. math:: p(z) \propto p_0(z)\, r(G(z))^{1/T}, \qquad \log r(x) = \log D(x) - \log(1 - D(x)),

    so the potential energy is :math:`-\log p_0(z) + \log(1/D(G(z)) - 1)` at :math:`T = 1`. No Jacobian of
    :math:`G` appears: the ratio at :math:`G(z)` is a function of :math:`z`, and :math:`p_0` already carries the
    push-forward. If :math:`r` is the ratio of the data's density to the generator's, :math:`G(z)` under this
    density is distributed as the data, where the generator reaches them.

    Calling it is a Pyro model: it samples the latent, adds the log ratio as a factor, and returns the generated data.
    It works alone (`pyro.infer.NUTS(gan)`, `VectorizedMCMC(MALA(gan), ...)`) and inside a user's model, in plates and
    with vectorised particles. Both networks are held as frozen twins: they share the weights of the user's modules,
    stay in evaluation mode and take no gradient. So inference neither trains the originals nor switches their mode.
    `pyro.infer.Predictive(gan, num_samples=n)` without posterior samples draws from the prior, that is from the
    generator alone. `LatentPrior` is the same without a log ratio.

    Args:
        generator: `z: (batch, *latent) -> x: (batch, *event)`, row by row, without noise of its own.
        log_ratio: `x: (batch, *event) -> (batch,)`, the log of data density over generator density in nats:
            `LogRatio`, the result of `calibrate` or `fit_log_ratio`, or any callable.
        prior: The latents' distribution, with an empty batch shape and at least one event dimension.
        temperature: `T`. Above 1 it flattens the ratio; at infinity the generator alone would remain.
        site: Name of the latent site.
        chunk_size: Rows per pass through the networks; if None 500 on a CPU, 10 000 elsewhere.

    Raises:
        ValueError: if a network is in training mode where that matters, draws noise, couples the rows of a batch,
            or disagrees with the prior or the other network about a shape or a dtype; if a score is NaN for every
            prior draw tried; if the temperature is not positive and finite.

    References:
        Discriminator Rejection Sampling, Azadi et al., 2019, https://arxiv.org/abs/1810.06758;
        Your GAN is Secretly an Energy-based Model, Che et al., 2020, https://arxiv.org/abs/2003.06060.

    Example:
        >>> import pyro.distributions as dist
        >>> prior = dist.Normal(0, 1).expand([2]).to_event(1)
        >>> gan = LatentPosterior(torch.nn.Identity(), lambda x: -x.square().sum(-1), prior)
        >>> gan.potential_fn({"z": torch.zeros(5, 2)}).shape
        torch.Size([5])
    """

    latents: LatentPrior

    def __init__(
        self,
        generator: Generator,
        log_ratio: Critic,
        prior: dist.TorchDistribution,
        *,
        temperature: float = 1.0,
        site: str = "z",
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        cure = "1 leaves the ratio as it is, more flattens it."
        self.temperature = real("temperature", temperature, above=0, cure=cure)
        check_eval(function("log_ratio", log_ratio), "log_ratio")
        latents = LatentPrior(generator, prior, site=site, chunk_size=chunk_size)
        self.generator = latents.generator
        self.log_ratio = frozen_twin(log_ratio)
        # Not a submodule: the state holds the generator once, under its own name.
        object.__setattr__(self, "latents", latents)
        self.prior, self.site = prior, site
        self.chunk_size, self.transforms = latents.chunk_size, latents.transforms
        # torch.nn.Module starts in training mode; ours never is.
        super().train(False)
        # A conditional network cannot be tried before its context is known: every setup tries it.
        with contextlib.suppress(ContextError):
            self.validate()

    @property
    def log_weight_bound(self) -> float | None:
        """Upper bound of the log weights, nats: the log ratio's `upper_bound` over the temperature; None if unknown."""
        bound = self.log_ratio.upper_bound if isinstance(self.log_ratio, BoundedRatio) else None
        return None if bound is None else float(bound) / self.temperature

    def train(self, mode: bool = True) -> LatentPosterior:
        """Stay in evaluation mode: the networks are frozen in use."""
        return super().train(False)

    def forward(self, **context: Tensor) -> Tensor:
        """Run the Pyro model: sample the latent, weigh it by the ratio, return the generated data.

        Args:
            **context: Keywords that a conditional generator and critic take beside latents and data; one value for all
                rows, without a batch dimension.

        Returns:
            Generated data, `(*batch, *event)`; plates and particles give the batch shape.
        """
        z = pyro.sample(self.site, self.prior)
        x = self.latents.evaluate(z, **context)
        batch = left_shape(z, len(self.prior.event_shape))
        rows = x.reshape(-1, *x.shape[len(batch) :])
        log_ratio = by_chunk(lambda part: self._score(part, context), rows, self.chunk_size)
        # Two GANs in one model need two names; a single one keeps the plain name.
        name = "log_ratio" if self.site == "z" else f"{self.site}_log_ratio"
        pyro.factor(name, log_ratio.reshape(batch) / self.temperature)
        return x

    def potential_fn(self, params: Params, **context: Tensor) -> Tensor:
        """Return the potential energy of unconstrained latents, `-log p0 - log r(G(z)) / T` in nats.

        Args:
            params: `{site: (*batch, *latent)}`, unconstrained (the same as constrained for a prior on the reals).
            **context: As for `forward`.

        Returns:
            `(*batch,)`. The Jacobian of a bounded prior's transform is part of it.
        """
        return -(self.log_prior(params) + self.log_weight(params, **context))

    def log_prior(self, params: Params) -> Tensor:
        """Return the prior's log density in unconstrained space, `(*batch,)`."""
        return self.latents.log_prior(params)

    def log_weight(self, params: Params, **context: Tensor) -> Tensor:
        """Return `log r(G(z)) / T` of unconstrained latents, `(*batch,)`."""
        return self._log_weight(self.latents.constrained(params), context)

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior, `{site: (num_draws, *latent)}`."""
        return self.latents.sample_prior(num_draws)

    def decode(self, z: Float[Tensor, "*shape"], **context: Tensor) -> Tensor:
        """Generate data from latents, in chunks and without gradient.

        Args:
            z: Constrained latents, `(*batch, *latent)`: what `get_samples()` returns.
            **context: As for `forward`.

        Returns:
            `(*batch, *event)`.
        """
        return self.latents.decode(z, **context)

    def diagnose(self, num_draws: int = 100_000, **context: Tensor) -> WeightTail:
        """Diagnose the target before sampling: how far is it from the generator, and do a few draws carry it?

        Args:
            num_draws: Prior draws to score. The limits below are meant for 1e5 and more.
            **context: As for `forward`.

        Returns:
            Effective sample size, largest weight share and Pareto k of the weights `r(G(z))^(1/T)`.

        Warns:
            UserWarning: if the effective sample size is under 1 % of the draws, one draw carries over .1 % of the
                weight, or Pareto k is above .7; also if a figure is NaN.
        """
        num_draws = count("num_draws", num_draws, minimum=100, cure="A tail takes that many to judge.")
        with rng_fork(), torch.no_grad():
            tail = weight_tail(self._log_weight(self.prior.sample((num_draws,)), context))
        ess, share, k = tail.ess_fraction, tail.largest_weight_share, tail.pareto_k
        # Each says what must hold, so that NaN fails.
        limits = {
            f"ESS fraction {ess:.2g} < {MIN_ESS_FRACTION}": ess >= MIN_ESS_FRACTION,
            f"one draw carries {share:.2g} of the weight > {MAX_WEIGHT_SHARE}": share <= MAX_WEIGHT_SHARE,
            f"Pareto k {k:.2f} > {MAX_PARETO_K}": k <= MAX_PARETO_K,
        }
        complaints = [text for text, holds in limits.items() if not holds]
        if complaints:
            warnings.warn(
                f"The log ratio has a heavy tail on this generator ({'; '.join(complaints)}; {num_draws} draws): "
                "the target sits on few latents, and a longer chain gives worse samples, not better. Cap the ratio "
                "(calibrate(..., max_log_ratio='auto')), raise the temperature, or fit a ratio with more overlap "
                "(fit_log_ratio(..., min_ess_fraction=...)).",
                stacklevel=2,
            )
        return tail

    def validate(self, **context: Tensor) -> None:
        """Raise if the networks cannot define a target: see the class's `Raises`. Runs at every kernel's setup."""
        check_eval(self.generator, "generator")
        check_eval(self.log_ratio, "log_ratio")

        def run(rows: Tensor) -> tuple[Tensor, Tensor]:
            x = self.latents.generate(rows, **context)
            return x, unwritten(lambda x: self._score(x, context), x, "log ratio")

        probe(self.generator, self.prior, run, self.generator, self.log_ratio)

    def _score(self, x: Tensor, context: dict[str, Tensor]) -> Tensor:
        return critic_scores(self.log_ratio, x, **expanded(context, len(x)))

    def _log_weight(self, z: Tensor, context: dict[str, Tensor]) -> Tensor:
        return self.latents.evaluate(z, lambda x: self._score(x, context), **context) / self.temperature
