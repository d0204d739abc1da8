"""A trained generator with the prior of its latents: a Pyro model of generated data, without a log ratio."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, final

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from pyro_gan._networks import by_chunk, by_row, check_eval, frozen_twin, unchecked
from pyro_gan._random import own_generators
from pyro_gan._typing import Generator, Params, left_shape
from pyro_gan.checks import count, function, shaped, shown
from pyro_gan.checks.calls import FAULTS, TRIAL_FAULTS, ContextError, called
from pyro_gan.circular import Wrap, is_circular
from pyro_gan.latent.probe import check_parameters, check_prior, probe

__all__ = ["LatentPrior", "expanded"]


@final
class LatentPrior(nn.Module):
    r"""A trained generator and the prior of its latents, :math:`z \sim p_0,\; x = G(z)`.

    Calling it is a Pyro model: it samples the latent and returns the generated data. Use it where there is a generator
    and no log ratio yet, for instance as a prior over images in an inverse problem. `LatentPosterior` adds a log ratio,
    `pyro_gan.likelihood.EntropicModel` adds observation noise.

    The generator is held as a frozen twin: it shares the weights of the user's module, stays in evaluation mode and
    takes no gradient. Inference neither trains the original nor switches its mode.

    Args:
        generator: `z: (batch, *latent) -> x: (batch, *event)`, row by row, without noise of its own.
        prior: The latents' distribution, with an empty batch shape and at least one event dimension.
        site: Name of the latent site.
        chunk_size: Rows per pass through the generator; if None 500 on a CPU, 10 000 elsewhere.

    Raises:
        ValueError: if the generator is in training mode where that matters, draws noise, couples the rows of a batch,
            returns NaN for all prior draws tried, or disagrees with the prior about a shape, a dtype or a device.

    Example:
        >>> prior = dist.Normal(0, 1).expand([2]).to_event(1)
        >>> latents = LatentPrior(nn.Linear(2, 3), prior)
        >>> latents().shape, latents.decode(torch.zeros(5, 2)).shape
        (torch.Size([3]), torch.Size([5, 3]))
    """

    def __init__(
        self, generator: Generator, prior: dist.TorchDistribution, *, site: str = "z", chunk_size: int | None = None
    ) -> None:
        super().__init__()
        if not isinstance(site, str):
            raise ValueError(f"Expected site to be the name of the latent site; got {shown(site)}.")
        if chunk_size is not None:
            chunk_size = count("chunk_size", chunk_size, cure="None lets the device decide.")
        support = check_prior(prior)
        check_eval(function("generator", generator), "generator")
        self.generator = frozen_twin(generator)
        self.prior = prior
        self.site = site
        self.chunk_size = chunk_size
        with own_generators():
            circular = is_circular(prior)
        self._constrain = Wrap() if circular else biject_to(support)
        self._is_real = _is_real(support) and not circular
        self.transforms = {site: self._constrain.inv}
        # torch.nn.Module starts in training mode; ours never is.
        super().train(False)
        # A conditional generator cannot be tried before its context is known: every setup tries it.
        with contextlib.suppress(ContextError):
            self.validate()

    def train(self, mode: bool = True) -> LatentPrior:
        """Stay in evaluation mode: the generator is frozen in use."""
        return super().train(False)

    def forward(self, **context: Tensor) -> Tensor:
        """Run the Pyro model: sample the latent, return the generated data.

        Args:
            **context: Keywords that a conditional generator takes beside latents; one value for all rows, without a
                batch dimension.

        Returns:
            Generated data, `(*batch, *event)`; plates and particles give the batch shape.
        """
        return self.evaluate(pyro.sample(self.site, self.prior), **context)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "*shape"] | Params, **context: Tensor) -> Tensor:
        """Generate data from latents, in chunks and without gradient.

        Args:
            z: Constrained latents, `(*batch, *latent)`, or a dict that holds them under the site's name: what
                `get_samples()` returns.
            **context: As for `forward`.

        Returns:
            `(*batch, *event)`.
        """
        if isinstance(z, Mapping):
            if self.site not in z:
                raise ValueError(f"Expected latents under the name {self.site!r}; got {sorted(map(str, z))}.")
            z = z[self.site]
        return self.evaluate(z, **context)

    def evaluate(self, z: Tensor, of_data: Callable[[Tensor], Tensor] | None = None, /, **context: Tensor) -> Tensor:
        """Return generated data, or a function of them, in chunks; differentiable in the latents.

        Args:
            z: Constrained latents, `(*batch, *latent)`.
            of_data: Generated data `(row, *event)` to values `(row, *value)`, row by row; the data themselves if None.
            **context: As for `forward`.

        Returns:
            `(*batch, *value)`.

        Raises:
            ValueError: if the latents are not of the prior's shape.
        """
        latent = self.prior.event_shape
        shaped("latents", z, ("*batch", *latent))
        check_parameters("latents", self.generator, z, cure="Move them with .to(...).")
        of_data = function("of_data", (lambda x: x) if of_data is None else of_data)
        parts = by_chunk(lambda rows: of_data(self.generate(rows, **context)), z.reshape(-1, *latent), self.chunk_size)
        return parts.reshape(left_shape(z, len(latent)) + parts.shape[1:])

    def generate(self, rows: Tensor, **context: Tensor) -> Tensor:
        """Return the generated data of latents `(row, *latent)` in one pass, `(row, *event)`; differentiable."""
        shaped("latents", rows, ("row", *self.prior.event_shape))
        with self._called(rows, context):
            x = by_row(self.generator, rows, **expanded(context, len(rows)))
        if not isinstance(x, Tensor) or x.shape[:1] != rows.shape[:1]:
            raise ValueError(
                f"Expected the generator to return {len(rows)} rows, one each, in one tensor; got {shown(x)}. Wrap it "
                "in a function that returns the data alone, such as lambda z: generator(z)[0]."
            )
        return x

    def constrained(self, params: Params) -> Tensor:
        """Return the constrained latents `(*batch, *latent)` of unconstrained ones, `{site: (*batch, *free)}`.

        Raises:
            ValueError: if the site has another name, or its value another shape.
        """
        value = self._value(params)
        return value if self._is_real else self._constrain(value)

    def log_prior(self, params: Params) -> Tensor:
        """Return the prior's log density of unconstrained latents, `(*batch,)`.

        The Jacobian of a bounded prior's transform is part of it.
        """
        value = self._value(params)
        # If a trajectory overflows, the kernel rejects it; the prior's own checks would raise.
        prior = unchecked(self.prior)
        if self._is_real:
            return prior.log_prob(value)
        z = self._constrain(value)
        log_prob = prior.log_prob(z)
        jacobian = self._constrain.log_abs_det_jacobian(value, z)
        return log_prob + jacobian.reshape(*log_prob.shape, -1).sum(-1)

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        """Draw unconstrained latents from the prior, `{site: (num_draws, *free)}`."""
        z = self.prior.sample((count("num_draws", num_draws),))
        return {self.site: z if self._is_real else self._constrain.inv(z)}

    def validate(self, **context: Tensor) -> None:
        """Raise if the generator does not fit the prior or is not a fixed, row-by-row function."""
        check_eval(self.generator, "generator")
        probe(self.generator, self.prior, lambda rows: (self.tried(rows, **context),), self.generator)

    def tried(self, rows: Tensor, **context: Tensor) -> Tensor:
        """Return `generate(rows)`; an error of torch is here one of the generator, and the message says so."""
        with self._called(rows, context, TRIAL_FAULTS):
            return self.generate(rows, **context)

    def _called(
        self, rows: Tensor, context: dict[str, Any], faults: tuple[type[Exception], ...] = FAULTS
    ) -> contextlib.AbstractContextManager[None]:
        takes = f"a batch of latents of shape {tuple(rows.shape)}"
        return called("generator", self.generator, takes, context=context, faults=faults)

    def _value(self, params: Params) -> Tensor:
        if not isinstance(params, Mapping) or set(params) != {self.site}:
            got = sorted(params) if isinstance(params, Mapping) else shown(params)
            raise ValueError(f"Expected latents as a dict with one site, {self.site!r}; got {got}.")
        free = self._constrain.inverse_shape(self.prior.event_shape)
        return shaped(f"unconstrained latents {self.site!r}", params[self.site], ("*batch", *free))


def expanded(context: Mapping[str, Any], num_rows: int) -> dict[str, Any]:
    """Return a context with its tensors repeated for every row, `(num_rows, *shape)`."""
    return {
        name: value.expand(num_rows, *value.shape) if isinstance(value, Tensor) else value
        for name, value in context.items()
    }


def _is_real(support: constraints.Constraint) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real
