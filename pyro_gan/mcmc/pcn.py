"""Gradient-free local proposals: a random walk, and its form that keeps a Gaussian in place (pCN).

Leaves invariant: the target `exp(-U(z))`, both.
Proposals: `RandomWalk` `z' = z + sqrt(step_size) eps`; `PCN` `z' = m + rho (z - m) + sqrt(1 - rho^2) C^(1/2) eps` with
`rho = (4 - step_size) / (4 + step_size)`, which leaves `N(m, C)` invariant; `eps ~ N(0, I)`.
Papers: MCMC methods for functions: modifying old algorithms to make them faster, Cotter et al., 2013,
https://arxiv.org/abs/1202.0709; Weak convergence and optimal scaling of random walk Metropolis algorithms, Roberts et
al., 1997.
Cost of a step: one value of the potential a chain, no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from pyro_gan._random import rng_fork
from pyro_gan._typing import Params
from pyro_gan.mcmc._proposal import check_fits, check_proposal
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import Info, State, metropolis
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.targets import Target

__all__ = ["PCN", "RandomWalk"]

#: From this step size on pCN forgets where it was.
INDEPENDENT_STEP = 4.0

#: Largest error of the log density, in nats a coordinate, with which a prior still passes for the Gaussian that a few
#: of its values determine.
GAUSSIAN_TOLERANCE = 1e-3

#: Numbers in a block of points at which a prior of many latents is read.
BLOCK_NUMBERS = 1_000_000

#: Prior draws at which that is checked.
NUM_CHECKED = 32


class RandomWalk(BatchKernel):
    """Random-walk Metropolis, all chains at once: a step of Gaussian noise, accepted by the ratio of densities.

    It asks nothing of the target but its potential, and pays with small steps: of the order of `1 / dim`. `PCN` keeps
    its step where the weight is mild, however many latents; with a gradient, `MALA` and `BatchHMC` go further.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        step_size: Initial step size, the variance of the noise, squared latent units as in `MALA`.
        adapt_step_size: Whether to adapt it during warmup; afterwards it is fixed.
        target_accept_prob: Mean acceptance to adapt to; .234 is the optimum for many dimensions.

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

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        step_size: float = 0.1,
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.234,
    ) -> None:
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return State(z, self.target.potential(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        assert self.step_size is not None
        proposal = self._evaluate(state.z + self.step_size.sqrt() * torch.randn_like(state.z))
        return metropolis(state, proposal, state.potential - proposal.potential)


class PCN(BatchKernel):
    """The preconditioned Crank-Nicolson sampler: a walk that would sample the Gaussian prior, accepted by the weight.

    Where the weight is constant every step is accepted, whatever its size and the number of latents; so the step that
    it can make depends on how much the ratio says, and not on the dimension. From a step size of 4 on the proposal is
    a fresh draw, as in `IndependenceMH`; larger ones are taken for 4.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model; see `BatchKernel`. Needs `proposal`.
        num_chains: Number of chains, or None; see `BatchKernel`.
        proposal: The Gaussian to walk in, over all unconstrained sites raveled and joined, event shape `(dim,)` or the
            one site's; by default the prior, if that is one with independent coordinates. Any Gaussian samples the
            target; one that resembles it does so in longer steps.
        step_size: Initial step size, for a prior of unit variance that of `MALA` to first order.
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

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        proposal: Distribution | None = None,
        step_size: float = 0.1,
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.4,
    ) -> None:
        adaptive = StepSize(step_size, target_accept_prob, adapt_step_size, largest=INDEPENDENT_STEP)
        super().__init__(model, potential_fn, num_chains=num_chains, step_size=adaptive)
        if potential_fn is not None and proposal is None:
            raise ValueError(
                "PCN walks in a Gaussian prior, and a bare potential_fn does not say what that is. Pass proposal=, a "
                "Normal or MultivariateNormal, or a model."
            )
        if proposal is not None:
            check_proposal(proposal)
            if not _is_gaussian(proposal):
                raise ValueError(f"Expected proposal to be a Normal or MultivariateNormal; got {proposal}.")
        self.proposal = proposal
        self._gaussian: Distribution | None = None

    def _prepare(self, num_chains: int) -> None:
        if self.proposal is None:
            self._gaussian = _gaussian_prior(self.target)
        else:
            check_fits(self.proposal, self.target)
            self._gaussian = self.proposal

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        potential = self.target.potential(z)
        return State(z, potential, None, -potential - self._log_gaussian(z))

    def _transition(self, state: State) -> tuple[State, Info]:
        assert self.step_size is not None and self._gaussian is not None and state.log_weight is not None
        step_size = self.step_size
        rho = (4 - step_size) / (4 + step_size)
        centre = self._gaussian.mean.reshape(-1)
        noise = self._gaussian.sample((len(state.z),)).reshape(state.z.shape) - centre
        # sqrt(1 - rho^2) without the difference of two numbers near 1.
        z = centre + rho * (state.z - centre) + 4 * step_size.sqrt() / (4 + step_size) * noise
        proposal = self._evaluate(z)
        assert proposal.log_weight is not None
        return metropolis(state, proposal, proposal.log_weight - state.log_weight)

    def _log_gaussian(self, z: Tensor) -> Tensor:
        assert self._gaussian is not None
        return self._gaussian.log_prob(z.reshape(-1, *self._gaussian.event_shape))


def _is_gaussian(proposal: Distribution) -> bool:
    while isinstance(proposal, Independent):
        proposal = proposal.base_dist
    return isinstance(proposal, Normal | MultivariateNormal)


def _gaussian_prior(target: Target) -> Distribution:
    """Return the prior as a Gaussian with independent coordinates, read off its log density.

    A Gaussian's log density is a parabola in each coordinate: three points give its top and its width.

    Raises:
        ValueError: if the prior's log density at a few of its draws is another.
    """
    with rng_fork():
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
    # A curvature that is no Gaussian's makes the error NaN, which is not small either.
    if not (error.abs() <= GAUSSIAN_TOLERANCE * target.dim).all():
        raise ValueError(
            "PCN walks in a Gaussian prior with independent coordinates, and this model's is another (unconstrained). "
            "Pass proposal=, a Normal or MultivariateNormal that resembles the prior, or use RandomWalk."
        )
    return gaussian


def _diagonal(values: Tensor) -> Iterator[Float[Tensor, "row dim"]]:
    """Yield the rows of a diagonal matrix, some at a time: whole, those of many latents would not fit."""
    for columns in torch.arange(len(values), device=values.device).split(
        max(1, BLOCK_NUMBERS // len(values))
    ):
        rows = values.new_zeros(len(columns), len(values))
        yield rows.scatter(1, columns.unsqueeze(1), values[columns].unsqueeze(1))
