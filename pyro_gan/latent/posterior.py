"""The latent posterior of a GAN, `p0(z) r(G(z))`, as a Pyro model and as a batched potential."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from pyro_gan._networks import by_chunk, check_eval, frozen_twin, unchecked
from pyro_gan._random import rng_fork
from pyro_gan._typing import BoundedRatio, Critic, Generator, Params, left_shape
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.latent.probe import ContextError, check_prior, probe

__all__ = ["LatentPosterior"]

# `check` warns beyond these. With fewer effective draws, or one draw this heavy in 1e5, the weights say more about
# the tail of the critic than about the data. .7 is where Pareto-smoothed importance sampling stops being reliable.
MIN_ESS_FRACTION, MAX_WEIGHT_SHARE, MAX_PARETO_K = 0.01, 0.001, 0.7


class LatentPosterior(nn.Module):
    r"""A trained generator, a log density ratio and a prior as one target for inference.

    The density over latents is

    .. math:: p(z) \propto p_0(z)\, r(G(z))^{1/T}, \qquad \log r(x) = \log D(x) - \log(1 - D(x)),

    so the potential energy is :math:`-\log p_0(z) + \log(1/D(G(z)) - 1)` at :math:`T = 1`. No Jacobian of
    :math:`G` appears: the ratio at :math:`G(z)` is a function of :math:`z`, and :math:`p_0` already carries the
    push-forward. If :math:`r` is the ratio of the data's density to the generator's, :math:`G(z)` under this
    density is distributed as the data, as far as the generator reaches them.

    Calling it is a Pyro model: a latent site, a factor, and the generated data returned. It works alone
    (`pyro.infer.NUTS(gan)`, `VectorizedMCMC(MALA(gan), ...)`) and inside a user's model, in plates and with
    vectorised particles. Both networks are held as frozen twins: they share the weights of the user's modules,
    stay in evaluation mode and take no gradient, so inference neither trains the originals nor switches their mode.
    `pyro.infer.Predictive(gan, num_samples=n)` without posterior samples draws from the prior, hence from the
    generator alone.

    Args:
        generator: `z: (batch, *latent) -> x: (batch, *event)`, row by row, without noise of its own.
        log_ratio: `x: (batch, *event) -> (batch,)`, the log of data density over generator density in nats:
            `LogRatio`, the result of `calibrate` or `fit_log_ratio`, or any callable.
        prior: The latents' distribution, with an empty batch shape and at least one event dimension.
        temperature: `T`; above 1 flattens the ratio, at infinity the generator alone would remain.
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
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(
                f"Expected a positive, finite temperature; got {temperature}. 1 leaves the ratio as it is, more "
                "flattens it."
            )
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"Expected chunk_size of at least 1, or None; got {chunk_size}.")
        check_prior(prior)
        check_eval(generator, "generator")
        check_eval(log_ratio, "log_ratio")
        self.generator = frozen_twin(generator)
        self.log_ratio = frozen_twin(log_ratio)
        self.prior = prior
        self.temperature = temperature
        self.site = site
        self.chunk_size = chunk_size
        support: Any = prior.support
        assert support is not None  # `check_prior` has seen to it
        # A mixture's support is that of its components, which torch will not transform under the mixture's name; older
        # versions of torch have no such name.
        if type(support).__name__ == "MixtureSameFamilyConstraint":
            support = support.base_constraint
        self._constrain = biject_to(support)
        self._is_real = _is_real(support)
        self.transforms = {site: self._constrain.inv}
        # torch.nn.Module starts in training mode; ours never is.
        super().train(False)
        # A conditional network cannot be tried before its context is known: every setup tries it.
        with contextlib.suppress(ContextError):
            self.validate()

    @property
    def log_weight_bound(self) -> float | None:
        """Nats that no log weight exceeds: the log ratio's `upper_bound`, tempered; None if it has none."""
        bound = self.log_ratio.upper_bound if isinstance(self.log_ratio, BoundedRatio) else None
        return None if bound is None else float(bound) / self.temperature

    def train(self, mode: bool = True) -> LatentPosterior:
        """Stay in evaluation mode: the networks are frozen in use."""
        return super().train(False)

    def forward(self, **context: Tensor) -> Tensor:
        """Run the Pyro model: sample the latent, weigh it by the ratio, return the generated data.

        Args:
            **context: What a conditional generator and critic take beside latents and data; one value for all
                rows, without a batch dimension.

        Returns:
            Generated data, `(*batch, *event)`, for the batch shape that plates and particles give the site.
        """
        batch, rows = self._flatten(pyro.sample(self.site, self.prior))
        x = by_chunk(lambda part: self._generate(part, context), rows, self.chunk_size)
        log_ratio = by_chunk(lambda part: self._score(part, context), x, self.chunk_size)
        # Two GANs in one model need two names; the lone one keeps the plain name.
        name = "log_ratio" if self.site == "z" else f"{self.site}_log_ratio"
        pyro.factor(name, log_ratio.reshape(batch) / self.temperature)
        return x.reshape(batch + x.shape[1:])

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
        unconstrained = self._value(params)
        # A trajectory that overflows is a kernel's to reject, not an error of the prior's.
        prior = unchecked(self.prior)
        if self._is_real:
            return prior.log_prob(unconstrained)
        z = self._constrain(unconstrained)
        jacobian = self._constrain.log_abs_det_jacobian(unconstrained, z)
        log_prob = prior.log_prob(z)
        return log_prob + jacobian.reshape(*log_prob.shape, -1).sum(-1)

    def log_weight(self, params: Params, **context: Tensor) -> Tensor:
        """Return `log r(G(z)) / T` of unconstrained latents, `(*batch,)`."""
        unconstrained = self._value(params)
        z = unconstrained if self._is_real else self._constrain(unconstrained)
        return self._log_ratio(z, context) / self.temperature

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior, `{site: (num_draws, *latent)}`."""
        z = self.prior.sample((num_draws,))
        return {self.site: z if self._is_real else self._constrain.inv(z)}

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "*shape"], **context: Tensor) -> Tensor:
        """Generate data from latents, in chunks and without gradient.

        Args:
            z: Constrained latents, `(*batch, *latent)`: what `get_samples()` returns.
            **context: As for `forward`.

        Returns:
            `(*batch, *event)`.
        """
        batch, rows = self._flatten(z)
        x = by_chunk(lambda part: self._generate(part, context), rows, self.chunk_size)
        return x.reshape(batch + x.shape[1:])

    def check(self, num_draws: int = 100_000, **context: Tensor) -> WeightTail:
        """Diagnose the target before anyone samples it: how far is it from the generator, and who carries it?

        Args:
            num_draws: Prior draws to score. The limits below are meant for 1e5 and more.
            **context: As for `forward`.

        Returns:
            Effective sample size, largest weight share and Pareto k of the weights `r(G(z))^(1/T)`.

        Warns:
            UserWarning: if the effective sample size is under 1 % of the draws, one draw carries over .1 % of the
                weight, or Pareto k is above .7.
        """
        if num_draws < 100:
            raise ValueError(f"Expected num_draws of at least 100 to judge a tail; got {num_draws}.")
        with rng_fork(), torch.no_grad():
            tail = weight_tail(self._log_ratio(self.prior.sample((num_draws,)), context) / self.temperature)
        complaints = [
            text
            for wrong, text in (
                (
                    tail.ess_fraction < MIN_ESS_FRACTION,
                    f"ESS fraction {tail.ess_fraction:.2g} < {MIN_ESS_FRACTION}",
                ),
                (
                    tail.largest_weight_share > MAX_WEIGHT_SHARE,
                    f"one draw carries {tail.largest_weight_share:.2g} of the weight > {MAX_WEIGHT_SHARE}",
                ),
                (tail.pareto_k > MAX_PARETO_K, f"Pareto k {tail.pareto_k:.2f} > {MAX_PARETO_K}"),
            )
            if wrong
        ]
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
            x = self._generate(rows, context)
            return x, self._score(x, context)

        probe(self.generator, self.prior, run)

    def _value(self, params: Params) -> Tensor:
        if set(params) != {self.site}:
            raise ValueError(f"Expected one site, {self.site!r}; got {sorted(params)}.")
        return params[self.site]

    def _flatten(self, z: Tensor) -> tuple[torch.Size, Tensor]:
        event = self.prior.event_shape
        if z.dim() < len(event) or z.shape[z.dim() - len(event) :] != event:
            raise ValueError(
                f"Expected latents of shape (*batch, {', '.join(map(str, event))}); got {tuple(z.shape)}."
            )
        return left_shape(z, len(event)), z.reshape(-1, *event)

    def _generate(self, rows: Tensor, context: dict[str, Tensor]) -> Tensor:
        x = self.generator(rows, **_expand(context, len(rows)))
        if len(x) != len(rows):
            raise ValueError(
                f"Expected the generator to give {len(rows)} rows for {len(rows)} latents; got {len(x)} "
                f"(shapes {tuple(rows.shape)} -> {tuple(x.shape)})."
            )
        return x

    def _score(self, x: Tensor, context: dict[str, Tensor]) -> Tensor:
        log_ratio = self.log_ratio(x, **_expand(context, len(x)))
        if log_ratio.shape != x.shape[:1]:
            raise ValueError(
                f"Expected the log ratio to give shape {tuple(x.shape[:1])} for {len(x)} rows; "
                f"got {tuple(log_ratio.shape)}. LogRatio(critic, objective) brings a critic's output into shape."
            )
        return log_ratio

    def _log_ratio(self, z: Tensor, context: dict[str, Tensor]) -> Tensor:
        """Return log ratios `(*batch,)`; all left dimensions become one batch for the networks."""
        batch, rows = self._flatten(z)
        return by_chunk(
            lambda part: self._score(self._generate(part, context), context), rows, self.chunk_size
        ).reshape(batch)


def _expand(context: dict[str, Tensor], num_rows: int) -> dict[str, Tensor]:
    return {
        name: value.expand(num_rows, *value.shape) if isinstance(value, Tensor) else value
        for name, value in context.items()
    }


def _is_real(support: constraints.Constraint) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real
