"""Annealed importance sampling: a bound on the log likelihood of each data point, from below or from above."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from pyro_gan.annealing import Schedule, anneal, sigmoid, tune
from pyro_gan.annealing.mover import KernelFactory, check_factory
from pyro_gan.checks import count, function
from pyro_gan.likelihood._posteriors import PosteriorsTarget
from pyro_gan.likelihood.estimator import Bound, Estimator, LatentLikelihood, LikelihoodEstimate, from_log_weights
from pyro_gan.mcmc.langevin import MALA

__all__ = ["AnnealedImportance"]

#: Makes the powers of the likelihood, from 0 to 1, of a number of temperatures.
LadderFactory = Callable[[int], tuple[float, ...]]

#: Temperatures of the pilot run that finds step sizes; those of a longer ladder are interpolated.
PILOT_TEMPERATURES = 100
#: Particles of a data point in the pilot run.
PILOT_PARTICLES = 8


@final
class AnnealedImportance(Estimator):
    r"""Annealed importance sampling: the particles of each data point move from the prior to its posterior.

    .. math:: p_t(z) \propto p_0(z)\, f(y \mid z)^{\beta_t}, \qquad
        \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log f(y \mid z_{t-1}), \qquad
        \log \hat f(y) = \log \frac1K \sum_k w_k

    The mean weight is unbiased. So the value is a lower bound on average, and it rises to the exact value with T. It
    needs no proposal. All particles of all data points are one batch, in chunks. A pilot run of 8 particles a data
    point finds a step size for each data point and temperature and is thrown away: a run that adapted to its own
    particles would not be unbiased.

    It costs `num_temperatures * num_particles` moves a data point, one gradient each with MALA, and the pilot at most
    800 more. More temperatures with one short move each are usually worth more than fewer with a long one.

    Args:
        num_temperatures: T, the steps of the ladder. With one it is importance sampling from the prior.
        num_particles: K.
        ladder: Makes the powers of a number of temperatures; see `pyro_gan.annealing`. Under narrow noise the
            distribution changes most at small powers, and `partial(geometric, first=0.01)` spends more temperatures
            there: in 64 dimensions with noise of variance .05 it halved the error.
        kernel: Makes the kernel of a target, as for `pyro_gan.annealing.AIS`: `MALA`, `PCN`, or
            `lambda target: BatchHMC(target, num_steps=10)` for posteriors that are far narrower in some directions.

    Raises:
        ValueError: if a number is not positive; when called, if the ladder does not rise from 0 to 1.

    References:
        On the Quantitative Analysis of Decoder-Based Generative Models, Y. Wu, Y. Burda, R. Salakhutdinov and
        R. Grosse, 2017, https://arxiv.org/abs/1611.04273;
        Annealed importance sampling, R. M. Neal, 2001, https://arxiv.org/abs/physics/9803008

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.likelihood import EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> AnnealedImportance(num_temperatures=20, num_particles=16)(model, torch.zeros(5, 3)).is_bound
        'lower'
    """

    def __init__(
        self,
        *,
        num_temperatures: int = 1000,
        num_particles: int = 16,
        ladder: LadderFactory = sigmoid,
        kernel: KernelFactory = MALA,
    ) -> None:
        self.num_temperatures = count("num_temperatures", num_temperatures)
        self.num_particles = count("num_particles", num_particles)
        self._ladder = function("ladder", ladder)
        check_factory(kernel)
        self._kernel = kernel

    def estimate(self, model: LatentLikelihood, y: Tensor, *, shared: bool) -> LikelihoodEstimate:
        """Return the lower bound, by the schedule of its own pilot run."""
        return self.lower(model, y, self.schedule(model, y))

    def schedule(self, model: LatentLikelihood, y: Tensor) -> Schedule:
        """Return the powers and the step sizes that a pilot run finds for data `(datum, *event)`."""
        betas = self._ladder(self.num_temperatures)
        if self.num_temperatures == 1:
            return Schedule(betas, None, 1)
        target = PosteriorsTarget(model, y, PILOT_PARTICLES)
        length = min(self.num_temperatures, PILOT_TEMPERATURES)
        z, betas_of_pilot = target.sample_prior(target.num_rows), self._ladder(length)
        pilot = tune(target, z, betas_of_pilot, kernel=self._kernel, num_groups=len(y))
        steps = pilot.step_sizes
        if steps is not None and length < self.num_temperatures:
            # Both ladders have the same powers at the same share of their length.
            columns = torch.nn.functional.interpolate(
                steps.log().mT[None], size=len(betas), mode="linear", align_corners=True
            )
            steps = columns[0].mT.exp()
        return Schedule(betas, steps, 1).check()

    def lower(self, model: LatentLikelihood, y: Tensor, schedule: Schedule) -> LikelihoodEstimate:
        """Return the lower bound: anneal from draws of the prior to the posterior of each data point.

        Args:
            model: The model.
            y: Data, `(datum, *event)`.
            schedule: From `schedule`, for as many data points.
        """
        target = PosteriorsTarget(model, y, self.num_particles)
        return self._anneal(target, target.sample_prior(target.num_rows), schedule, "lower")

    def upper(self, model: LatentLikelihood, z: Tensor, y: Tensor, schedule: Schedule) -> LikelihoodEstimate:
        """Return the upper bound: anneal from an exact draw of each posterior down to the prior.

        Args:
            model: The model.
            z: One exact draw of the posterior of each data point, `(datum, *latent)`.
            y: Data, `(datum, *event)`.
            schedule: From `schedule`; it is reversed here.
        """
        target = PosteriorsTarget(model, y, self.num_particles)
        start = target.pack({model.site: model.transforms[model.site](z)})
        rows = start.repeat_interleave(self.num_particles, 0)
        inverse = self._anneal(target, rows, schedule.reversed(), "upper")
        # The mean weight estimates 1 / f. The log is taken after the mean, or the bound would not tighten with K.
        return inverse._replace(value=-inverse.value)

    def _anneal(self, target: PosteriorsTarget, z: Tensor, schedule: Schedule, is_bound: Bound) -> LikelihoodEstimate:
        num_data = target.num_rows // self.num_particles
        run = anneal(target, z, schedule, kernel=self._kernel, num_groups=num_data)
        return from_log_weights(target.nan_restored(z, run.log_weights).reshape(num_data, -1), is_bound)

    def __repr__(self) -> str:
        return f"AnnealedImportance(num_temperatures={self.num_temperatures}, num_particles={self.num_particles})"
