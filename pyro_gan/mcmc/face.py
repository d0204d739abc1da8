"""What a subclass of a kernel writes, and what mixtures, annealing and runners may call."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_gan import checks
from pyro_gan.mcmc.accept import Info
from pyro_gan.mcmc.start import find_start
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.targets import State, Target
from pyro_gan.targets.base import check_weighted

__all__ = ["TransitionKernel"]


class TransitionKernel(MCMCKernel):
    """One Markov transition for a batch of chains, over rows `(chain, dim)` of a target.

    A subclass must write `transition`. It may override `evaluate`, `complete`, `prepare`, `sample_start`,
    `first_state`, `reevaluate`, `finish_warmup` and `adaptation_statistic`, and set the three attributes below.

    A kernel that holds other kernels calls their `attach`, then `evaluate` or `complete`, then `transition`, and
    `finish_warmup` after the last warmup step.

    Args:
        adaptation: The step size and how it adapts, or None for kernels without a step size.

    Attributes:
        uses_gradient: Whether the kernel needs the gradient of the potential.
        is_exact: Whether the kernel leaves the target invariant.
        needs_prior: Whether the kernel needs a prior to propose from, so that a bare `potential_fn` is not enough.
    """

    uses_gradient: bool = False
    is_exact: bool = True
    needs_prior: bool = False

    def __init__(self, adaptation: StepSize | None = None) -> None:
        super().__init__()
        self.adaptation = checks.instance("adaptation", adaptation, StepSize, type(None))
        self._target: Target | None = None
        self._step = self._warmup_steps = 0

    @property
    def takes_discrete(self) -> bool:
        """Whether discrete latents may be among those sampled: if positions are only ever draws of the prior."""
        return False

    # What a subclass writes.

    @abstractmethod
    def transition(self, state: State) -> tuple[State, Info]:
        """Make one step of all chains from a state that `evaluate`, `complete` or `transition` returned."""

    # What a subclass may override.

    def evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at positions, with the fields that the kernel needs."""
        return self.target.evaluate(z, gradient=self.uses_gradient)

    def complete(self, state: State) -> State:
        """Add the fields that the kernel needs to a state whose potential is known."""
        return self.evaluate(state.z) if self.uses_gradient and state.grad is None else state

    def prepare(self, num_chains: int) -> None:
        """Check that the target fits the kernel, and forget earlier runs. Runs before chains have a start."""

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw positions for chains to start from."""
        return check_weighted(self.target).sample_start(num_draws)

    def first_state(self, num_chains: int) -> State:
        """Return the state that chains without initial params start from."""
        return find_start(num_chains, self.sample_start, self.evaluate)

    def reevaluate(self, z: Float[Tensor, "chain dim"], known: State | None) -> State:
        """Return the state at positions that the caller has changed; `known` is the state before."""
        return self.evaluate(z)

    def finish_warmup(self, state: State) -> State:
        """Return the state that the first draw starts from. Runs once, after the last warmup step."""
        return state

    def adaptation_statistic(self, info: Info) -> Tensor:
        """Return the acceptance that the step size adapts to: one number, or one for each chain, to be averaged."""
        return info.accept_prob

    # What the holder of a kernel calls.

    def attach(self, target: Target, *, num_chains: int, warmup_steps: int = 0) -> None:
        """Sample a target from now on, and forget earlier runs.

        Args:
            target: What is sampled.
            num_chains: Number of chains.
            warmup_steps: Steps that count as warmup.
        """
        discrete = checks.instance("target", target, Target).discrete_sites
        if discrete and not self.takes_discrete:
            raise ValueError(
                f"{type(self).__name__} moves by small steps, and the latent site {discrete[0]!r} is discrete. Use "
                "samplers that draw from the prior (ImportanceResampler, RejectionSampler, IndependenceMH, ISIR); or "
                f"fix the value, pyro.condition(model, {{{discrete[0]!r}: value}}), and run once for each: with SMC, "
                "exp(log_normaliser) of the runs, normalised, are the posterior probabilities of the values. Or sum it "
                "out in the model (a mixture is a dist.MixtureSameFamily)."
            )
        self._target = target
        self._step, self._warmup_steps = 0, checks.count("warmup_steps", warmup_steps, minimum=0)
        self.prepare(num_chains)

    @property
    def target(self) -> Target:
        """What is sampled; available after `setup` or `attach`."""
        if self._target is None:
            raise ValueError("The kernel has no target before setup(): run it first.")
        return self._target

    @property
    def warmup_steps(self) -> int:
        """Transitions that count as warmup."""
        return self._warmup_steps

    @property
    def is_warming_up(self) -> bool:
        """Whether the next transition belongs to warmup."""
        return self._step < self._warmup_steps

    @property
    def step_size(self) -> Tensor | None:
        """The current step size, a scalar; None for kernels without one."""
        return None if self.adaptation is None else self.adaptation.value
