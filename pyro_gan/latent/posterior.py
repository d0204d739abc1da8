"""The latent posterior of a GAN, `p0(z) r(G(z))`, as a Pyro model and as a batched potential."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import final

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import by_chunk, by_row, check_eval, critic_scores, frozen_twin
from pyro_gan._random import own_generators
from pyro_gan._typing import BoundedRatio, Critic, Generator, Params, left_shape, replicates_of
from pyro_gan.checks import count, function
from pyro_gan.checks.calls import FAULTS, TRIAL_FAULTS, ContextError, called
from pyro_gan.latent.check import examine
from pyro_gan.latent.prior import LatentPrior, expanded
from pyro_gan.latent.probe import probe
from pyro_gan.latent.report import PosteriorReport
from pyro_gan.probes import NUM_PROBED, unwritten
from pyro_gan.ratio.calibrators import CalibratedLogRatio
from pyro_gan.ratio.heads import LogRatio, look_like_probabilities

__all__ = ["LatentPosterior"]

#: Prior draws scored at construction, to tell probabilities from log ratios: only if a dozen look like probabilities.
NUM_SUSPECTED = 500


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
        temperature: `T`. Above 1 it flattens the ratio; at `math.inf` the generator alone remains.
        site: Name of the latent site.
        chunk_size: Rows per pass through the networks; if None 500 on a CPU, 10 000 elsewhere.

    Raises:
        ValueError: if a network is in training mode where that matters, draws noise, couples the rows of a batch,
            or disagrees with the prior or the other network about a shape or a dtype; if a score is NaN for every
            prior draw tried; if the temperature is not positive.

    Warns:
        UserWarning: if the log ratios of prior draws can only be probabilities.

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
        alone = isinstance(temperature, float) and temperature == math.inf
        self.temperature = math.inf if alone else checks.real("temperature", temperature, above=0, cure=cure)
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
            self._warn_of_probabilities()

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

    def decode(self, z: Float[Tensor, "*shape"] | Params, **context: Tensor) -> Tensor:
        """Generate data from latents, in chunks and without gradient.

        Args:
            z: Constrained latents, `(*batch, *latent)`, or a dict that holds them under the site's name: what
                `get_samples()` returns.
            **context: As for `forward`.

        Returns:
            `(*batch, *event)`.
        """
        return self.latents.decode(z, **context)

    def check(
        self,
        real: Float[Tensor, "real *event"] | None = None,
        *,
        features: Callable[[Tensor], Tensor] | None = None,
        num_draws: int = 100_000,
        seed: int = 0,
        **context: Tensor,
    ) -> PosteriorReport:
        """Check the target before sampling: do a few draws carry it, is E_G[r] = 1, does it bring G closer to data?

        Give real rows. Without them only the weights can be judged, and weights of a comfortable effective size may
        still make the samples worse than the generator's own.

        Args:
            real: Real rows, `(real, *event)`, 100 or more, that made neither the ratio nor its calibration nor the
                GAN: rows that the critic has learnt by heart show no fault.
            features: Maps rows `(row, *event)` to columns `(row, feature)`: what the samples must get right.
                If None, `RandomFeatures` of the real rows. See `pyro_gan.ratio.moment_change`.
            num_draws: Prior draws to score; each is one pass through both networks. 1e5 show a tail.
            seed: Of the features and of the bootstrap. The prior draws come from torch's generator, which is left as
                it was.
            **context: As for `forward`.

        Returns:
            The report, `print` it for a table. Its `problems` say what is wrong, in sentences.

        Raises:
            ValueError: if real rows do not look like generated ones or are fewer than 100, a log ratio is NaN or plus
                infinity, features are not one finite row of numbers for each row, or a number is out of range.

        Warns:
            UserWarning: once, with all problems: too few effective draws, one draw with much of the weight, or a heavy
                Pareto tail, or large weights that are uncertain by more than a nat (for a ratio of several networks),
                see `WeightTail.complaints`; a wrong E_G[r], at temperature 1 alone, see
                `pyro_gan.ratio.judge_mean_ratio`; moments that become worse; log ratios that are probabilities.

        References:
            Metropolis-Hastings Generative Adversarial Networks, R. Turner et al., 2019,
            https://arxiv.org/abs/1811.11357; Pareto Smoothed Importance Sampling, A. Vehtari et al., 2024,
            https://arxiv.org/abs/1507.02646

        Example:
            >>> from pyro_gan import toys
            >>> toy = toys.gaussian_shift(auc=0.7)
            >>> report = LatentPosterior(toy.generator, toy.log_ratio, toy.prior).check(toy.sample_data(1000))
            >>> report.moments.verdict, report.mean_ratio.verdict, report.problems
            ('better', 'near 1', ())
        """
        num_draws = count("num_draws", num_draws, minimum=100, cure="A tail takes that many to judge.")
        seed = checks.random_seed(seed)
        with own_generators(), torch.no_grad():
            report = examine(
                self.latents,
                lambda x: self._score(x, context),
                [partial(self._score, context=context, by=each) for each in replicates_of(self.log_ratio)],
                real,
                features,
                num_draws=num_draws,
                temperature=self.temperature,
                is_normalised=isinstance(self.log_ratio, (LogRatio, CalibratedLogRatio)),
                seed=seed,
                context=context,
            )
        if report.problems:
            warnings.warn(" ".join(report.problems), stacklevel=2)
        return report

    def validate(self, **context: Tensor) -> None:
        """Raise if the networks cannot define a target: see the class's `Raises`. Runs at every kernel's setup."""
        check_eval(self.generator, "generator")
        check_eval(self.log_ratio, "log_ratio")

        def run(rows: Tensor) -> tuple[Tensor, Tensor]:
            x = self.latents.tried(rows, **context)
            return x, unwritten(lambda x: self._score(x, context, faults=TRIAL_FAULTS), x, "log ratio")

        probe(self.generator, self.prior, run, self.generator, self.log_ratio)

    def _score(
        self,
        x: Tensor,
        context: dict[str, Tensor],
        by: Critic | None = None,
        *,
        faults: tuple[type[Exception], ...] = FAULTS,
    ) -> Tensor:
        log_ratio = self.log_ratio if by is None else by
        takes = f"a batch of generated data of shape {tuple(x.shape)}"
        with called("log_ratio", log_ratio, takes, context=context, faults=faults):
            return by_row(partial(critic_scores, log_ratio), x, **expanded(context, len(x)))

    def _log_weight(self, z: Tensor, context: dict[str, Tensor]) -> Tensor:
        return self.latents.evaluate(z, lambda x: self._score(x, context), **context) / self.temperature

    def _warn_of_probabilities(self) -> None:
        """Warn if the log ratio returns probabilities; more than a few draws are scored only where the few look so."""
        with own_generators(), torch.no_grad():
            few = self._log_weight(self.prior.sample((NUM_PROBED,)), {}) * self.temperature
            if not bool(((few >= 0) & (few <= 1)).all()):
                return
            more = self._log_weight(self.prior.sample((NUM_SUSPECTED,)), {}) * self.temperature
        if look_like_probabilities(torch.cat([few, more])):
            warnings.warn(
                "All log ratios of prior draws lie in [0, 1], which an exact log ratio cannot: the critic seems to "
                "return probabilities. Build the log ratio by LogRatio.from_probability(discriminator).",
                stacklevel=3,
            )
