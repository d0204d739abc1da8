"""The contract of a kernel whose chains are a batch dimension, and that still is an ordinary Pyro kernel."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_gan._typing import Params
from pyro_gan.mcmc.metropolis import Info, State, take
from pyro_gan.mcmc.start import check_initial_params, find_start, start_at
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.targets import Target, make_target

__all__ = ["BatchKernel"]


class BatchKernel(MCMCKernel):
    """A Markov kernel over `(chain, dim)` rows, dressed as a `pyro.infer.mcmc.MCMCKernel`.

    Without `num_chains` it is a kernel of one chain, for `pyro.infer.MCMC` (with its own `num_chains`
    processes too). With it, sites have shape `(chain, *event)` and chains are accepted each for itself;
    `VectorizedMCMC` sets the number by itself.

    A subclass writes `_evaluate` (a state from a position) and `_transition` (a step). `step_size` is None for
    kernels without one.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: In place of a model, minus a log density of unconstrained sites: `{site: (chain, *event)}` to
            `(chain,)`, or without `num_chains` `{site: (*event)}` to a scalar. Needs initial params.
        num_chains: Number of chains, or None.
        step_size: The kernel's step size, or None.

    Raises:
        ValueError: unless exactly one of `model` and `potential_fn` is given; if `num_chains` is not positive.
    """

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        step_size: StepSize | None = None,
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise ValueError("Expected exactly one of model and potential_fn.")
        if num_chains is not None and num_chains < 1:
            raise ValueError(f"Expected num_chains of at least 1, or None for one chain; got {num_chains}.")
        super().__init__()
        self.model = model
        self.potential_fn = potential_fn
        self.num_chains = num_chains
        self.transforms: dict[str, Any] | None = None
        self._adaptive = step_size
        self._given_params: dict[str, Tensor] | None = None
        self._initial_params: dict[str, Tensor] | None = None
        self._runner_chains: int | None = None
        self._starts: int | None = None
        self._target: Target | None = None
        self._state: State | None = None
        self._info: Info | None = None
        self._last_params: dict[str, Tensor] = {}
        self._last_versions: dict[str, int] = {}
        self._warmup_steps = 0
        self._moved = torch.zeros(0, dtype=torch.bool)
        self._step = 0
        self._accept_sum = torch.zeros(())
        self._num_invalid = torch.zeros((), dtype=torch.long)
        self._diverged: list[Tensor] = []

    # What a subclass writes.

    @abstractmethod
    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at a position, with the fields that the kernel needs."""

    @abstractmethod
    def _transition(self, state: State) -> tuple[State, Info]:
        """Make one step from a state."""

    # What Pyro calls.

    @torch.no_grad()
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Bind the model's arguments, find a starting point with a finite potential, forget earlier runs."""
        if self.num_chains is not None and self._runner_chains is None:
            warnings.warn(
                f"A kernel with num_chains={self.num_chains} looks like one chain with a wider event to this runner: "
                "its R-hat and effective sample size are wrong. Use pyro_gan.VectorizedMCMC.",
                stacklevel=2,
            )
        chains = self._runner_chains or self.num_chains
        given = self._given_params
        prototype = None
        if given is not None:
            prototype = {name: value[0] for name, value in given.items()} if chains is not None else given
        self._target = make_target(
            self.model,
            self.potential_fn,
            prototype=prototype,
            batched=chains is not None,
            context=kwargs,
            args=args,
        )
        self.transforms = self._target.transforms
        self._warmup_steps = warmup_steps
        self._reset_counts()
        self._prepare(chains or 1)
        state = self._start(chains)
        if self._adaptive is not None:
            self._adaptive.reset(state.potential, warmup_steps=warmup_steps)
        self._moved = torch.zeros_like(state.potential, dtype=torch.bool)
        self._remember(state)
        self._initial_params = self._last_params

    @torch.no_grad()
    def sample(self, params: Params) -> dict[str, Tensor]:
        """Make one transition from `params`, `{site: (chain, *event)}` or without `num_chains` `{site: (*event)}`."""
        state = self._state
        if state is None or not self._is_current(params):
            # Somebody moved the chain behind our back: what we know about the old position is worthless.
            state = self._reevaluate(self.target.pack(self._batched(params)), state)
        warming_up = self._step < self._warmup_steps
        state, self._info = self._transition(state)
        self._step += 1
        self._moved = self._moved | self._info.accepted
        if warming_up:
            if self._adaptive is not None:
                self._adaptive.update(self._acceptance(self._info))
                # Pyro's runner does not announce the end of warmup.
                if self._step == self._warmup_steps:
                    self._adaptive.freeze()
            if self._step == self._warmup_steps:
                state = self._end_warmup(state)
        else:
            self._accept_sum = self._info.accept_prob.mean() + self._accept_sum
            self._num_invalid = self._info.invalid.sum() + self._num_invalid
            self._diverged.append(self._info.diverging.any())
        self._remember(state)
        return self._last_params.copy()

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """Unconstrained starting point: after `setup` the one in use, before it the one given."""
        return self._initial_params or self._given_params or {}

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor] | None) -> None:
        self._given_params = None if params is None else dict(params)
        self._initial_params = None

    def logging(self) -> OrderedDict[str, str]:
        """Return step size and mean acceptance for the progress bar."""
        entries = OrderedDict()
        if self._adaptive is not None:
            entries["step size"] = f"{float(self._adaptive.value):.2e}"
        if self._info is not None:
            entries["acc. prob"] = f"{float(self._info.accept_prob.mean()):.3f}"
        return entries

    def diagnostics(self) -> dict[str, Any]:
        """Return the draws at which any chain diverged, acceptance rate, invalid proposals, share never moved."""
        steps = max(len(self._diverged), 1)
        diverged = torch.stack(self._diverged).nonzero().flatten().tolist() if self._diverged else []
        return {
            "divergences": diverged,
            "acceptance rate": float(self._accept_sum) / steps,
            "invalid proposals": int(self._num_invalid),
            "never moved": 1.0 - float(self._moved[self.placed].double().mean()),
        }

    def cleanup(self) -> None:
        """Drop the state and its gradient; diagnostics stay."""
        self._state = None

    # What VectorizedMCMC calls.

    def bind(self, num_chains: int, num_starts: int | None = None) -> None:
        """Run as a batch of `num_chains` under a runner that knows about it.

        Args:
            num_chains: Number of chains.
            num_starts: Number of points to start from, each for as many chains in a row; one a chain if None.

        Raises:
            ValueError: if the kernel was built for another number of chains.
        """
        if self.num_chains not in (None, num_chains):
            raise ValueError(
                f"The runner has num_chains={num_chains}, its kernel num_chains={self.num_chains}. "
                "Leave the kernel's out: the runner's is used."
            )
        self._runner_chains = num_chains
        self._starts = num_starts

    def release(self) -> None:
        """Leave the runner."""
        self._runner_chains = self._starts = None

    @property
    def target(self) -> Target:
        """What is sampled; there after `setup`."""
        if self._target is None:
            raise ValueError("The kernel has no target before setup(); run it first.")
        return self._target

    @property
    def state(self) -> State:
        """Where the chains are."""
        if self._state is None:
            raise ValueError("The kernel has no state before setup() or after cleanup(); run it first.")
        return self._state

    @property
    def info(self) -> Info:
        """What the last transition did."""
        if self._info is None:
            raise ValueError("The kernel has made no transition yet.")
        return self._info

    @property
    def moved(self) -> Tensor:
        """Which chains have accepted a proposal since their start, warmup included, `(chain,)`."""
        return self._moved

    @property
    def placed(self) -> Tensor:
        """Which chains have a position at all, `(chain,)`; a kernel may start chains that have none yet."""
        return torch.ones_like(self._moved)

    @property
    def step_size(self) -> Tensor | None:
        """The current step size, a scalar; None for kernels without one."""
        return None if self._adaptive is None else self._adaptive.value

    # Private.

    def _prepare(self, num_chains: int) -> None:
        """Check what the kernel needs of the target. Runs before the starting point is found."""

    def _reevaluate(self, z: Float[Tensor, "chain dim"], known: State | None) -> State:
        """Return the state at positions that somebody else has changed; `known` is what it was before."""
        return self._evaluate(z)

    def _end_warmup(self, state: State) -> State:
        """Do what is to be done once, between warmup and the first draw."""
        return state

    def _acceptance(self, info: Info) -> Tensor:
        """Return what the step size adapts to, a mean of the acceptance probabilities or all of them."""
        return info.accept_prob

    def _reset_counts(self) -> None:
        self._step = 0
        self._info = None
        self._accept_sum = torch.zeros(())
        self._num_invalid = torch.zeros((), dtype=torch.long)
        self._diverged = []

    def _start(self, chains: int | None) -> State:
        if self._given_params is None:
            starts = self._starts or chains or 1
            return _repeated(self._first_state(starts), (chains or 1) // starts)
        check_initial_params(self._given_params, self.target, chains)
        z = self.target.pack(self._batched(self._given_params, chains is not None))
        return start_at(z.detach().clone(), self._evaluate)

    def _first_state(self, num_chains: int) -> State:
        return find_start(num_chains, self._sample_start, self._evaluate)

    def _sample_start(self, num_draws: int) -> Tensor:
        return self.target.sample_start(num_draws)

    def _batched(self, params: Params, batched: bool | None = None) -> Params:
        if batched is None:
            batched = (self._runner_chains or self.num_chains) is not None
        return params if batched else {name: value.unsqueeze(0) for name, value in params.items()}

    def _remember(self, state: State) -> None:
        self._state = state
        params = self.target.unpack(state.z)
        if (self._runner_chains or self.num_chains) is None:
            params = {name: value.squeeze(0) for name, value in params.items()}
        self._last_params = params
        self._last_versions = {name: value._version for name, value in params.items()}

    def _is_current(self, params: Params) -> bool:
        # Identity and in-place version of every tensor tell a moved chain without reading a number from the device.
        last, versions = self._last_params, self._last_versions
        return params.keys() == last.keys() and all(
            value is last[name] and value._version == versions[name] for name, value in params.items()
        )


def _repeated(state: State, copies: int) -> State:
    index = torch.arange(len(state.z), device=state.z.device).repeat_interleave(copies)
    return take(state, index)
