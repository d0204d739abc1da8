"""Gradient-free local proposals: a random walk, and a variant that leaves a Gaussian invariant (pCN).

Leaves invariant: the target `exp(-U(z))`, both.
Proposals: `RandomWalk` `z' = z + sqrt(step_size) eps`; `PCN` `z' = m + rho (z - m) + sqrt(1 - rho^2) C^(1/2) eps` with
`rho = (4 - step_size) / (4 + step_size)`, which leaves `N(m, C)` invariant; `eps ~ N(0, I)`.
Papers: MCMC methods for functions: modifying old algorithms to make them faster, Cotter et al., 2013,
https://arxiv.org/abs/1202.0709; Weak convergence and optimal scaling of random walk Metropolis algorithms, Roberts et
al., 1997.
Cost of a step: one value of the potential for each chain, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from pyro_gan import checks
from pyro_gan._random import own_generators
from pyro_gan._typing import Params
from pyro_gan.mcmc.accept import Info, accept_by_weight, metropolis
from pyro_gan.mcmc.proposal import check_fits, check_proposal
from pyro_gan.mcmc.stepped import StepOptions, SteppedKernel
from pyro_gan.targets import State, WeightedTarget
from pyro_gan.targets.base import check_weighted

__all__ = ["PCN", "RandomWalk"]

#: At this step size a pCN proposal does not depend on the old position.
INDEPENDENT_STEP = 4.0

#: Largest error of the log density, in nats for each coordinate, at which a prior counts as the Gaussian that a few of
#: its values determine.
GAUSSIAN_TOLERANCE = 1e-3

#: Numbers in a block of points at which the density of a prior of many latents is evaluated.
BLOCK_NUMBERS = 1_000_000

#: Prior draws at which the Gaussian is checked.
NUM_CHECKED = 32


@final
class RandomWalk(SteppedKernel):
    """Random-walk Metropolis, all chains at once: a step of Gaussian noise, accepted by the ratio of densities.

    It needs only the potential of the target, but its step size has to be small, of the order of `1 / dim`. Where the
    weight varies little, `PCN` keeps its step size in any dimension; with a gradient, `MALA` and `BatchHMC` go further.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size, the variance of the noise, squared latent units as in `MALA`.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to; by default 0.234, the optimum for many dimensions.

    Raises:
        ValueError: if the step size is not positive and finite, or the target acceptance outside (0, 1).

    Example:
        >>> kernel = RandomWalk(potential_fn=lambda p: p["z"].square().sum(-1) / 2, num_chains=3, step_size=0.5)
        >>> kernel.bind(3)
        >>> kernel.initial_params = {"z": torch.zeros(3, 2)}
        >>> kernel.setup(warmup_steps=0)
        >>> kernel.sample(kernel.initial_params)["z"].shape
        torch.Size([3, 2])
    """

    optimal_accept_prob = 0.234

    def transition(self, state: State) -> tuple[State, Info]:
        """Propose a step of Gaussian noise, and accept or reject it."""
        z = state.z + self.step_size.sqrt() * torch.randn_like(state.z)
        proposal = self.evaluate(self.target.wrap(z))
        return metropolis(state, proposal, state.potential - proposal.potential)


@final
class PCN(SteppedKernel):
    """The preconditioned Crank-Nicolson sampler: a walk that would sample the Gaussian prior, accepted by the weight.

    Where the weight is constant, every step is accepted, whatever the step size and the number of latents. So the step
    size that it adapts to depends on how much the weight varies, and not on the dimension. At a step size of 4 the
    proposal is a fresh draw, as in `IndependenceMH`; the step size never exceeds 4.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: The Gaussian to walk in, over all unconstrained sites raveled and joined: event shape `(dim,)`, or
            that of the only site. By default the prior, if it is a Gaussian with independent coordinates. The chains
            sample the target with any Gaussian, in longer steps with one that resembles the target.
        step_size: Initial step size; for a prior of unit variance it is the step size of `MALA`, to first order.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to.

    Raises:
        ValueError: if the step size is not positive and finite, or the target acceptance outside (0, 1); for a
            proposal that is not Gaussian or of another dimension; without one, for a bare `potential_fn` or a prior
            that is not Gaussian with independent coordinates.

    Example:
        >>> from pyro_gan import LatentPosterior, VectorizedMCMC, toys
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> mcmc = VectorizedMCMC(PCN(gan), num_samples=10, num_chains=4, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples(group_by_chain=True)["z"].shape
        torch.Size([4, 10, 1])
    """

    needs_prior = True
    optimal_accept_prob = 0.4
    largest_step_size = INDEPENDENT_STEP

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        proposal: Distribution | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(model, potential_fn, **options)
        self.proposal = check_proposal("PCN", potential_fn, proposal)
        if proposal is not None and not _is_gaussian(proposal):
            raise ValueError(f"Expected proposal to be a Normal or MultivariateNormal; got {checks.shown(proposal)}.")
        self._gaussian: Distribution | None = None

    def prepare(self, num_chains: int) -> None:
        """Find the Gaussian to walk in."""
        if self.proposal is None:
            self._gaussian = _gaussian_prior(check_weighted(self.target))
        else:
            check_fits(self.proposal, self.target)
            self._gaussian = self.proposal

    def evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at positions, with the log weight of the target over the Gaussian."""
        return self.complete(super().evaluate(z))

    def complete(self, state: State) -> State:
        """Return a state with the log weight of the target over the Gaussian."""
        return state._replace(grad=None, log_weight=-state.potential - self._log_gaussian(state.z))

    def transition(self, state: State) -> tuple[State, Info]:
        """Walk in the Gaussian, and accept or reject by the weight over it."""
        assert self._gaussian is not None
        step_size = self.step_size
        rho = (4 - step_size) / (4 + step_size)
        centre = self._gaussian.mean.reshape(-1)
        noise = self._gaussian.sample((len(state.z),)).reshape(state.z.shape) - centre
        # sqrt(1 - rho^2) without the difference of two numbers near 1.
        z = centre + rho * (state.z - centre) + 4 * step_size.sqrt() / (4 + step_size) * noise
        return accept_by_weight(state, self.evaluate(z))

    def _log_gaussian(self, z: Tensor) -> Tensor:
        assert self._gaussian is not None
        return self._gaussian.log_prob(z.reshape(-1, *self._gaussian.event_shape))


def _is_gaussian(proposal: Distribution) -> bool:
    while isinstance(proposal, Independent):
        proposal = proposal.base_dist
    return isinstance(proposal, Normal | MultivariateNormal)


def _gaussian_prior(target: WeightedTarget) -> Distribution:
    """Return the prior as a Gaussian with independent coordinates, read off its log density.

    A Gaussian's log density is a parabola in each coordinate: three points determine its centre and its width.

    Raises:
        ValueError: if the prior's log density at a few of its draws differs from that of the Gaussian.
    """
    with own_generators():
        draws = target.sample_prior(NUM_CHECKED)
    centre, spread = draws.mean(0, keepdim=True), draws.std(0)
    top = target.log_prior(centre)
    ahead, behind = (
        torch.cat([target.log_prior(centre + sign * rows) for rows in _diagonal(spread)]) for sign in (1, -1)
    )
    curvature = 2 * top - ahead - behind
    mean = centre[0] + spread * (ahead - behind) / (2 * curvature)
    gaussian = Independent(Normal(mean, spread * curvature.rsqrt(), validate_args=False), 1)
    error = gaussian.log_prob(draws) - target.log_prior(draws)
    # A curvature that is not positive makes the error NaN, and a comparison with NaN is false.
    if not (error.abs() <= GAUSSIAN_TOLERANCE * target.dim).all():
        raise ValueError(
            "Expected a prior that is, unconstrained, a Gaussian with independent coordinates; got another one. "
            "Pass proposal=, a Normal or MultivariateNormal that resembles the prior, or use RandomWalk."
        )
    return gaussian


def _diagonal(values: Tensor) -> Iterator[Float[Tensor, "row dim"]]:
    """Yield the rows of a diagonal matrix in blocks: with many latents the whole matrix would not fit in memory."""
    for columns in torch.arange(len(values), device=values.device).split(max(1, BLOCK_NUMBERS // len(values))):
        rows = values.new_zeros(len(columns), len(values))
        yield rows.scatter(1, columns.unsqueeze(1), values[columns].unsqueeze(1))
