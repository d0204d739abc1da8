"""Annealed importance sampling for every datum's likelihood, and the sandwich of a lower and an upper bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.annealing import Schedule, anneal, sigmoid, tune
from pyro_gan.annealing.mover import KernelFactory
from pyro_gan.likelihood._rows import RowsTarget
from pyro_gan.likelihood.estimator import Estimator, LatentLikelihood, LikelihoodEstimate, from_log_weights
from pyro_gan.mcmc.langevin import MALA

__all__ = ["AnnealedImportance", "Sandwich", "SandwichEstimate"]

#: Makes the powers of the likelihood, from 0 to 1, of a number of temperatures.
LadderFactory = Callable[[int], tuple[float, ...]]

#: Rungs of the pilot that finds step sizes; those of a longer ladder lie between them.
PILOT_RUNGS = 100
#: Particles a datum in the pilot.
PILOT_PARTICLES = 8


@final
class AnnealedImportance(Estimator):
    r"""Annealed importance sampling: particles of every datum climb from the prior to its posterior.

    .. math:: p_t(z) \propto p_0(z)\, f(y \mid z)^{\beta_t}, \qquad
        \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log f(y \mid z_{t-1}), \qquad
        \log \hat f(y) = \log \frac1K \sum_k w_k

    The mean weight is unbiased, so that the value is a lower bound on average, and it rises to the exact one with T. It
    needs no proposal. All particles of all data are one batch, in chunks. A pilot of 8 particles a datum finds a step
    size for every datum and rung and is thrown away: a run that adapted to its own particles would not be unbiased.

    It costs `num_temperatures * num_particles` moves a datum, one gradient each with MALA, and the pilot at most 800
    more. More temperatures with one short move each are usually worth more than fewer with a long one.

    Args:
        num_temperatures: Rungs T of the ladder. One is importance sampling from the prior.
        num_particles: K.
        ladder: Makes the powers of a number of temperatures; see `pyro_gan.annealing`. Under narrow noise most of the
            way is at small powers, and `partial(geometric, first=0.01)` spends more rungs there: in 64 dimensions,
            noise of variance .05, it halved the error.
        kernel: Makes the kernel of a target, as for `pyro_gan.annealing.AIS`: `MALA`, `PCN`, or
            `lambda target: BatchHMC(target, num_steps=10)`, for posteriors that are far narrower in some directions.

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
        if num_temperatures < 1 or num_particles < 1:
            raise ValueError(f"Expected at least 1; got {num_temperatures=}, {num_particles=}.")
        self.num_temperatures = num_temperatures
        self._num_particles = num_particles
        self._ladder = ladder
        self._kernel = kernel

    @property
    def num_particles(self) -> int:
        """K."""
        return self._num_particles

    def _estimate(self, model: LatentLikelihood, y: Tensor) -> LikelihoodEstimate:
        return self._climb(model, y, self._tune(model, y))

    def _tune(self, model: LatentLikelihood, y: Tensor) -> Schedule:
        betas = self._ladder(self.num_temperatures)
        if self.num_temperatures == 1:
            return Schedule(betas, None, 1)
        target = RowsTarget(model, y, PILOT_PARTICLES)
        rungs = min(self.num_temperatures, PILOT_RUNGS)
        pilot = tune(
            target,
            target.sample_prior(target.num_rows),
            self._ladder(rungs),
            kernel=self._kernel,
            num_groups=len(y),
        )
        steps = pilot.step_sizes
        if steps is not None and rungs < self.num_temperatures:
            # Both ladders run through the same powers at the same share of their length.
            columns = torch.nn.functional.interpolate(
                steps.log().mT[None], size=len(betas), mode="linear", align_corners=True
            )
            steps = columns[0].mT.exp()
        schedule = Schedule(betas, steps, 1)
        schedule.check()
        return schedule

    def _climb(self, model: LatentLikelihood, y: Tensor, schedule: Schedule) -> LikelihoodEstimate:
        target = RowsTarget(model, y, self.num_particles)
        z = target.sample_prior(target.num_rows)
        run = anneal(target, z, schedule, kernel=self._kernel, num_groups=len(y))
        return from_log_weights(target.refuse_nan(z, run.log_weights).reshape(len(y), -1), "lower")

    def _descend(
        self, model: LatentLikelihood, z: Tensor, y: Tensor, schedule: Schedule
    ) -> LikelihoodEstimate:
        """Return the upper bound: from an exact draw of every datum's posterior down to the prior."""
        target = RowsTarget(model, y, self.num_particles)
        start = target.pack({model.site: model.transforms[model.site](z)})
        rows = start.repeat_interleave(self.num_particles, 0)
        run = anneal(target, rows, schedule.reversed(), kernel=self._kernel, num_groups=len(y))
        inverse = from_log_weights(target.refuse_nan(rows, run.log_weights).reshape(len(y), -1), "upper")
        # The mean of the weights estimates 1 / f: its log is taken after the mean, or the bound would not tighten in K.
        return inverse._replace(value=-inverse.value)

    def __repr__(self) -> str:
        return f"AnnealedImportance(num_temperatures={self.num_temperatures}, num_particles={self.num_particles})"


class SandwichEstimate(NamedTuple):
    """Bounds on the log likelihoods of simulated data.

    Attributes:
        y: The data, drawn from the model.
        lower: A lower bound on average, by annealing up from the prior.
        upper: An upper bound on average, by annealing down from the latents that the data were made of. Its particles
            start at one latent, and its standard error is of what they do from there on.
    """

    y: Float[Tensor, "datum ..."]
    lower: LikelihoodEstimate
    upper: LikelihoodEstimate

    @property
    def gap(self) -> Float[Tensor, " datum"]:
        """Upper less lower, nats; the errors of both bounds are on average at most this."""
        return self.upper.value - self.lower.value


@final
class Sandwich:
    r"""Bidirectional Monte Carlo: how far off `AnnealedImportance` is, told without knowing the likelihood.

    A latent and the datum simulated from it are an exact draw of that datum's posterior, and annealing from there to
    the prior estimates :math:`1 / f(y)` without bias; minus the log of the mean weight is an upper bound on average.
    The gap between the two bounds is the error of both at most, and closes as T grows. It is about data simulated from
    the model. What it says of real data is a hope, and a fair one where those look alike to the model.

    Args:
        num_temperatures: As for `AnnealedImportance`.
        num_particles: Of either direction.
        ladder: As for `AnnealedImportance`.
        kernel: Reversible, as all of ours are.

    Raises:
        ValueError: if a number is not positive.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo, R. Grosse, Z. Ghahramani and R. Adams,
        2015, https://arxiv.org/abs/1511.02543

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.likelihood import EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> Sandwich(num_temperatures=20, num_particles=16)(model, num_data=5).gap.shape
        torch.Size([5])
    """

    def __init__(
        self,
        *,
        num_temperatures: int = 1000,
        num_particles: int = 16,
        ladder: LadderFactory = sigmoid,
        kernel: KernelFactory = MALA,
    ) -> None:
        self.estimator = AnnealedImportance(
            num_temperatures=num_temperatures, num_particles=num_particles, ladder=ladder, kernel=kernel
        )

    @torch.no_grad()
    def __call__(self, model: LatentLikelihood, num_data: int = 10) -> SandwichEstimate:
        """Simulate data from the model and bound their log likelihoods from both sides.

        Args:
            model: `EntropicGAN(...).model()`.
            num_data: Data to simulate.

        Returns:
            The data and both bounds.

        Raises:
            ValueError: if there are no data, or a likelihood is NaN.
        """
        if num_data < 1:
            raise ValueError(f"Expected num_data of at least 1; got {num_data}.")
        z, y = model.simulate(num_data)
        schedule = self.estimator._tune(model, y)
        lower = self.estimator._climb(model, y, schedule)
        return SandwichEstimate(y, lower, self.estimator._descend(model, z, y, schedule))

    def __repr__(self) -> str:
        estimator = self.estimator
        return f"Sandwich(num_temperatures={estimator.num_temperatures}, num_particles={estimator.num_particles})"
