"""The target of any Pyro model with continuous latents; the model does not see the batch of chains."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._networks import check_eval, chunk_rows
from pyro_gan._random import own_generators
from pyro_gan.probes import unmoved, unwritten
from pyro_gan.targets.base import WeightedTarget
from pyro_gan.targets.densities import log_densities, log_likelihoods
from pyro_gan.targets.prior import draw_one_by_one, draw_together
from pyro_gan.targets.rows import ValueAndGrad, values, values_and_grads
from pyro_gan.targets.sites import find_sites
from pyro_gan.targets.vectorise import same, vectorised

__all__ = ["ProgramTarget"]

# Rows in a pass on a CPU. A run of the model costs milliseconds even for a few rows, so a pass should have many, while
# their values fit in the cache: above about a megabyte the time for a row is flat, or grows if there are networks.
CPU_NUMBERS, MIN_ROWS, MAX_ROWS = 250_000, 500, 10_000

#: Chains start in (-START_RADIUS, START_RADIUS), as in Pyro and Stan.
START_RADIUS = 2.0

#: Draws with which draws made in one run are compared with separate ones.
NUM_CHECKED = 16


@final
class ProgramTarget(WeightedTarget):
    r"""The target of a Pyro model, run for all chains at once by `torch.func.vmap`.

    The potential is that of `pyro.infer.mcmc.util.initialize_model`: minus the log density of all sites, with the
    Jacobians of the latent sites' transforms. The prior is the density of the latent sites, the weight that of
    observations and factors, so kernels that propose from the prior work for any model.

    Args:
        model: A Pyro model with any number of latent sites, of any shape and with a fixed support. Discrete ones are
            sampled by what draws from the prior.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        ValueError: if the model has other sites (see `find_sites`), branches in Python on a latent, draws noise outside
            its sites, or has a distribution that `torch.func.vmap` cannot run.

    References:
        Composable Effects for Flexible and Accelerated Probabilistic Programming in NumPyro, Phan et al., 2019,
        https://arxiv.org/abs/1912.11554.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     scale = pyro.sample("scale", dist.HalfNormal(torch.tensor(1.0)))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(0.0, scale), obs=x)
        >>> target = ProgramTarget(model, (torch.ones(3),), {})
        >>> target.potential(torch.zeros(5, 1)).shape
        torch.Size([5])
    """

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_eval(checks.function("model", model), "model")
        self._model, self._args, self._kwargs = model, args, kwargs
        with torch.no_grad(), unmoved(model, *args):
            with own_generators():
                sites = find_sites(model, args, kwargs)
            draws = {name: torch.stack([draw[name] for draw in sites.draws]) for name in sites.draws[0]}
            prototype = {name: sites.transforms[name](value[0]) for name, value in draws.items()}
            super().__init__(prototype, sites.transforms)
            self._constrained_shapes = {name: value.shape[1:] for name, value in draws.items()}
            rows = min(MAX_ROWS, max(MIN_ROWS, CPU_NUMBERS // sites.num_numbers))
            self._chunk_size = rows if self.device.type == "cpu" else None
            self._plate_dim = -1 - sites.num_batch_dims
            self._densities = vectorised(functools.partial(log_densities, model, args, kwargs))
            self._check(draws)
            self._draws_together = self._can_draw_together()

    @property
    def functions(self) -> tuple[Any, ...]:
        """The model and its arguments."""
        return (self._model, *self._args, *self._kwargs.values())

    def potential(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the potential energy, minus the log density up to a constant."""
        return values(self._evaluate, z, num_rows=chunk_rows(self._chunk_size, z))

    def potential_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the potential energy and its gradient."""
        return values_and_grads(self._evaluate, z, num_rows=chunk_rows(self._chunk_size, z))

    def log_prior(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of the latent sites in unconstrained space."""
        return values(self._log_prior, z, num_rows=chunk_rows(self._chunk_size, z))

    def log_prior_and_grad(self, z: Float[Tensor, "chain dim"]) -> ValueAndGrad:
        """Return the log density of the latent sites in unconstrained space, and its gradient."""
        return values_and_grads(self._log_prior, z)

    def log_weight(self, z: Float[Tensor, "chain dim"]) -> Float[Tensor, " chain"]:
        """Return the log density of observations and factors."""
        return values(
            lambda rows: self._densities(self._constrain(rows)[0], prior=False)[1].to(z),
            z,
            num_rows=chunk_rows(self._chunk_size, z),
        )

    def log_likelihood(self, z: Float[Tensor, "row dim"]) -> dict[str, Tensor]:
        """Return the log density of every observation, `{site: (row, *batch)}`, without factors."""
        read = vectorised(functools.partial(log_likelihoods, self._model, self._args, self._kwargs))
        with torch.no_grad():
            parts = [read(self._constrain(rows)[0]) for rows in z.split(chunk_rows(self._chunk_size, z))]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def sample_prior(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw the latent sites, in unconstrained space."""
        if self._draws_together:
            values, _ = self._draw_together(num_draws)
        else:
            names = set(self._constrained_shapes)
            values = draw_one_by_one(self._model, self._args, self._kwargs, names, num_draws)
        return self.pack({name: self.transforms[name](value) for name, value in values.items()})

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw unconstrained values from U(-2, 2), as Pyro does: draws of a vague prior would be far out.

        Draws of the prior if a site is discrete.
        """
        if self.discrete_sites:
            return self.sample_prior(num_draws)
        z = torch.empty(num_draws, self.dim, dtype=self.dtype, device=self.device)
        return z.uniform_(-START_RADIUS, START_RADIUS)

    def _evaluate(self, z: Tensor) -> Tensor:
        values, jacobian = self._constrain(z)
        log_prior, log_weight = self._densities(values)
        # Data in float64 turn the densities of float32 latents into float64; rows keep their dtype.
        return -(log_prior + log_weight + jacobian).to(z)

    def _log_prior(self, z: Tensor) -> Tensor:
        values, jacobian = self._constrain(z)
        return (self._densities(values, weight=False)[0] + jacobian).to(z)

    def _constrain(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the values of the sites, `{site: (chain, *event)}`, and the log Jacobian, `(chain,)`."""
        values, jacobian = {}, z.new_zeros(len(z))
        for name, unconstrained in self.unpack(z).items():
            constrain = self.transforms[name].inv
            values[name] = constrain(unconstrained)
            log_det = constrain.log_abs_det_jacobian(unconstrained, values[name])
            jacobian = jacobian + log_det.reshape(len(z), -1).sum(-1)
        return values, jacobian

    def _draw_together(self, num_draws: int) -> tuple[dict[str, Tensor], Tensor]:
        return draw_together(
            self._model, self._args, self._kwargs, self._constrained_shapes, num_draws, dim=self._plate_dim
        )

    def _can_draw_together(self) -> bool:
        try:
            with own_generators():
                values, log_prob = self._draw_together(NUM_CHECKED)
        except Exception:  # a model that was not written for an outer plate may raise anything
            return False
        return same(self._densities(values, weight=False)[0], log_prob)

    def _check(self, draws: dict[str, Tensor]) -> None:
        """Raise unless the vectorised densities equal those of separate rows, and the model leaves its latents alone.

        The model sees one chain at a time, so it cannot couple chains, whatever their number.
        """
        unconstrained = self.pack({name: self.transforms[name](value) for name, value in draws.items()})
        unwritten(self._evaluate, unconstrained, "model")
        alone = [
            log_densities(self._model, self._args, self._kwargs, {name: value[i] for name, value in draws.items()})
            for i in range(2)
        ]
        for one_by_one, together in zip(zip(*alone, strict=True), self._densities(draws), strict=True):
            if not same(torch.stack(one_by_one), together):
                raise ValueError(
                    f"Expected the model's log densities at two draws to be the same in each run; got "
                    f"{torch.stack(one_by_one).tolist()}, then {together.tolist()}. The model depends on more than its "
                    "sites (noise, a counter, statistics of a batch): make the noise a latent site, or fix it."
                )
