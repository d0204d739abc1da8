"""The contract of a kernel whose chains are a batch dimension, and that is an ordinary Pyro kernel as well."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc.accept import Info
from pyro_gan.mcmc.face import TransitionKernel
from pyro_gan.mcmc.start import check_finite, check_params, given_params, start_at
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.mcmc.tally import HandedOut, Tally
from pyro_gan.targets import PotentialTarget, State, WeightedTarget, make_target
from pyro_gan.targets.gradient import target_gradient_fault
from pyro_gan.targets.make import check_model

__all__ = ["BatchKernel"]

#: Largest step size where all sites are angles: a step with the variance of a full turn forgets where it came from, and
#: where the density is flat nothing else would end the growth.
FULL_TURN_STEP = (2 * math.pi) ** 2


class BatchKernel(TransitionKernel):
    """A Markov kernel over `(chain, dim)` rows, with the interface of `pyro.infer.mcmc.MCMCKernel`.

    Without `num_chains` it is a kernel of one chain, for `pyro.infer.MCMC` (also with `num_chains` processes there).
    With `num_chains`, sites have shape `(chain, *event)` and each chain is accepted or rejected on its own;
    `VectorizedMCMC` sets the number.

    `TransitionKernel` says what a subclass writes, and which attributes describe a kernel. Derive a kernel with a step
    size from `SteppedKernel`.

    Args:
        model: A Pyro model with continuous latents, such as `LatentPosterior`.
        potential_fn: Instead of a model, minus a log density of unconstrained sites: `{site: (chain, *event)}` to
            `(chain,)`, or without `num_chains` `{site: (*event)}` to a scalar. Needs initial params.
        num_chains: Number of chains, or None.
        adaptation: The step size and how it adapts, or None for kernels without a step size.

    Raises:
        ValueError: unless exactly one of `model` and `potential_fn` is given; if `num_chains` is not positive.
    """

    def __init__(
        self,
        model: Any = None,
        potential_fn: Callable[[Params], Tensor] | None = None,
        *,
        num_chains: int | None = None,
        adaptation: StepSize | None = None,
    ) -> None:
        check_model(model, potential_fn)
        if num_chains is not None:
            num_chains = checks.count("num_chains", num_chains, cure="None means one chain.")
        super().__init__(adaptation)
        self.model = model
        self.potential_fn = potential_fn
        self.num_chains = num_chains
        self.transforms: dict[str, Any] | None = None
        self._given_params: dict[str, Tensor] | None = None
        self._initial_params: dict[str, Tensor] | None = None
        self._runner_chains: int | None = None
        self._runner_params: dict[str, Tensor] | None = None
        self._starts: int | None = None
        self._state: State | None = None
        self._info: Info | None = None
        self._handed_out = HandedOut({})
        self._moved = torch.zeros(0, dtype=torch.bool)
        self._tally = Tally()

    # What Pyro calls.

    @torch.no_grad()
    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Bind the model's arguments, find starting points with a finite potential, and forget earlier runs.

        Without warmup steps, what an earlier run has learnt is kept: step size, scales, trajectory length.
        """
        warmup_steps = checks.count("warmup_steps", warmup_steps, minimum=0)
        if self.num_chains is not None and self._runner_chains is None:
            warnings.warn(
                f"This runner takes a kernel with num_chains={self.num_chains} for one chain with a wider event: its "
                "R-hat and effective sample size are wrong. Use pyro_gan.VectorizedMCMC.",
                stacklevel=2,
            )
        chains = self._chains
        given = self.given_params
        prototype = given
        if given is not None and chains is not None:
            prototype = {name: value.new_zeros(value.shape[1:]) for name, value in given.items()}
        target = make_target(
            self.model, self.potential_fn, args=args, context=kwargs, prototype=prototype, batched=chains is not None
        )
        self.transforms = target.transforms
        self._info, self._tally = None, Tally()
        self.attach(target, num_chains=chains or 1, warmup_steps=warmup_steps)
        has_prior = isinstance(target, WeightedTarget)
        if self.uses_gradient and has_prior:
            self._check_gradient(None)
        state = self._start(chains)
        if self.uses_gradient and not has_prior:
            self._check_gradient(state.z)
        if self.adaptation is not None:
            largest = FULL_TURN_STEP if target.is_compact else math.inf
            self.adaptation.reset(state.potential, warmup_steps=warmup_steps, largest=largest)
        self._moved = torch.zeros_like(state.potential, dtype=torch.bool)
        self._remember(state)
        self._initial_params = self._handed_out.params

    @torch.no_grad()
    def sample(self, params: Params) -> dict[str, Tensor]:
        """Make one transition from `params`, `{site: (chain, *event)}` or without `num_chains` `{site: (*event)}`."""
        state = self._state
        if state is None or not self._handed_out.is_unchanged(params):
            # The caller has moved the chains, so what is known about the old positions no longer holds.
            check_params("params", params, self.target, self._chains)
            state = self.reevaluate(self.target.wrap(self.target.pack(self._batched(params))), state)
        warming_up = self.is_warming_up
        state, self._info = self.transition(state)
        self._step += 1
        self._moved = self._moved | self._info.accepted
        if warming_up:
            if self.adaptation is not None:
                self.adaptation.update(self.adaptation_statistic(self._info))
            # Pyro's runner does not announce the end of warmup, so the kernel counts steps.
            if not self.is_warming_up:
                if self.adaptation is not None:
                    self.adaptation.freeze()
                state = self.finish_warmup(state)
        else:
            self._tally.add(self._info)
        self._remember(state)
        return self._handed_out.params.copy()

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """Unconstrained starting points: before `setup` the given ones, after it the ones in use."""
        return self._initial_params or self.given_params or {}

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor] | None) -> None:
        self._given_params = None if params is None else given_params(params)
        self._initial_params = None

    def logging(self) -> OrderedDict[str, str]:
        """Return step size and mean acceptance for the progress bar."""
        entries = OrderedDict()
        if self.step_size is not None:
            entries["step size"] = f"{float(self.step_size):.2e}"
        if self._info is not None:
            entries["acc. prob"] = f"{float(self._info.accept_prob.mean()):.3f}"
        return entries

    def diagnostics(self) -> dict[str, Any]:
        """Return the draws at which any chain diverged, and the acceptance rate, among others."""
        return {
            "divergences": self._tally.divergences,
            "acceptance rate": self._tally.acceptance_rate,
            "invalid proposals": self._tally.num_invalid,
            "never moved": 1.0 - float(self._moved[self.placed].double().mean()),
        }

    def cleanup(self) -> None:
        """Drop the state and its gradient; diagnostics stay, and what was learnt."""
        self._state = None

    # What a run is saved by.

    def settings(self) -> dict[str, Any]:
        """Return the numbers and words that the kernel was built with: a run goes on under an equal kernel alone."""
        # The number of chains is the runner's.
        own = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "num_chains"}
        built = {k: v for k, v in own.items() if isinstance(v, bool | int | float | str)}
        step_size = {} if self.adaptation is None else {"step size": self.adaptation.settings()}
        return {"kernel": type(self).__name__, **built, **step_size}

    def state_dict(self) -> dict[str, Any]:
        """Return what the kernel has learnt and counted; the positions of the chains are `state`.

        A subclass that remembers more from step to step adds it, as tensors, numbers, strings and containers of them,
        and takes it out in `load_state_dict`. Later steps must not change tensors that were returned.
        """
        adaptation = None if self.adaptation is None else self.adaptation.state_dict()
        return {"step": self._step, "moved": self._moved, "tally": self._tally.state_dict(), "adaptation": adaptation}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._step, self._moved = state["step"], state["moved"]
        self._tally.load_state_dict(state["tally"])
        if self.adaptation is not None:
            self.adaptation.load_state_dict(state["adaptation"])

    def place(self, state: State) -> dict[str, Tensor]:
        """Put the chains at a state that is known, and return its positions, as `sample` does."""
        self._remember(state)
        return self._handed_out.params.copy()

    # What a runner calls.

    def bind(self, num_chains: int, num_starts: int | None = None, initial_params: Params | None = None) -> None:
        """Run as a batch of `num_chains` under a runner that handles batches.

        Args:
            num_chains: Number of chains.
            num_starts: Number of starting points, each for equally many adjacent chains; one for each chain if None.
            initial_params: Starting points of this run; the kernel's own if None.

        Raises:
            ValueError: if the kernel was built for another number of chains.
        """
        if self.num_chains not in (None, num_chains):
            raise ValueError(
                f"The runner has num_chains={num_chains}, its kernel num_chains={self.num_chains}. "
                "Leave out the kernel's: the runner sets it."
            )
        self._runner_chains = checks.count("num_chains", num_chains)
        self._starts = num_starts
        self._runner_params = None if initial_params is None else given_params(initial_params)

    def release(self) -> None:
        """Leave the runner."""
        self._runner_chains = self._starts = self._runner_params = self._initial_params = None

    @property
    def given_params(self) -> dict[str, Tensor] | None:
        """Unconstrained starting points given by the user, or None."""
        return self._given_params if self._runner_params is None else self._runner_params

    @property
    def state(self) -> State:
        """Where the chains are."""
        if self._state is None:
            raise ValueError("The kernel has no state before setup() or after cleanup(): run it first.")
        return self._state

    @property
    def info(self) -> Info:
        """What the last transition did."""
        if self._info is None:
            raise ValueError("The kernel has made no transition yet: run it first.")
        return self._info

    @property
    def moved(self) -> Bool[Tensor, " chain"]:
        """Which chains have accepted a proposal since their start, warmup included."""
        return self._moved

    @property
    def placed(self) -> Bool[Tensor, " chain"]:
        """Which chains have a position; a kernel may start chains that have no position yet."""
        return torch.ones_like(self._moved)

    def _check_gradient(self, starts: Tensor | None) -> None:
        """Warn if the gradient does not lead to the target; raise if no accept step corrects for that."""
        fault = target_gradient_fault(self.target, starts)
        if fault is None:
            return
        name = type(self).__name__
        cure = "Make it differentiable, or use a kernel without gradients: IndependenceMH, ISIR, RandomWalk or PCN."
        if not self.is_exact:
            raise ValueError(f"{fault.text} {name} has no accept step, and would sample something else. {cure}")
        warnings.warn(f"{fault.text} {fault.consequence} {cure}", stacklevel=5)

    def _start(self, chains: int | None) -> State:
        given = self.given_params
        if given is None:
            starts = self._starts or chains or 1
            state = self.first_state(starts)
            copies = torch.arange(starts, device=state.z.device).repeat_interleave((chains or 1) // starts)
            return state.take(copies)
        check_params("initial_params", given, self.target, chains)
        check_finite("initial_params", given)
        z = self.target.wrap(self.target.pack(self._batched(given)))
        if isinstance(self.target, PotentialTarget):
            self.target.validate(z.detach())
        return start_at(z.detach().clone(), self.evaluate)

    @property
    def _chains(self) -> int | None:
        return self._runner_chains or self.num_chains

    def _batched(self, params: Params) -> Params:
        return {name: value.unsqueeze(0) for name, value in params.items()} if self._chains is None else params

    def _remember(self, state: State) -> None:
        self._state = state
        params = self.target.unpack(state.z)
        if self._chains is None:
            params = {name: value.squeeze(0) for name, value in params.items()}
        self._handed_out = HandedOut(params)
