"""Local moves and jumps in turn: what crosses between modes, with what explores them (Ex2MCMC, and FlEx2MCMC).

Leaves invariant: the target `exp(-U(z))`, if both of its kernels do.
A step: `num_global` moves of the global kernel, then `num_local` of the local one.
Papers: Local-Global MCMC kernels: the best of both worlds, Samsonov et al., 2022, https://arxiv.org/abs/2111.02702;
Adaptive Monte Carlo augmented with normalizing flows, Gabrie, Rotskoff and Vanden-Eijnden, 2022,
https://arxiv.org/abs/2105.12603.
Cost of a step: that of its moves, and the local kernel's value, or value and gradient, once more for chains that have
jumped (on an accelerator for all: to count them would stall it). The weights that the global kernel compares follow
from potentials that are known, and cost no pass.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan.mcmc._proposal import IndependenceKernel
from pyro_gan.mcmc.independence import IndependenceMH
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.metropolis import Info, State

__all__ = ["LocalGlobal"]


class LocalGlobal(BatchKernel):
    """A local kernel and one that jumps, a fixed number of moves of each in a step.

    A jump leaves the gradient of the old place behind; used for the new one, it would bend what is sampled. It is
    therefore computed anew, for the chains that have jumped.

    The step size adapts to the mean acceptance of the local moves alone. That is also what `accept_prob` says of a
    draw: `diagnostics()` tells it apart from the acceptance of jumps, and has the share of the chains that never
    jumped, which no other figure would show, for local moves let every chain look alive.

    Args:
        local_kernel: `MALA`, `BatchHMC`, `PCN`, `RandomWalk` or another, without `num_chains`.
        global_kernel: `IndependenceMH` or `ISIR` of the same model, without `num_chains`. Its proposal is the prior, or
            any distribution that was fitted before and does not change any more.
        num_chains: Number of chains, or None; see `BatchKernel`.
        num_local: Local moves in a step.
        num_global: Jumps in a step.

    Raises:
        ValueError: for kernels of other kinds or of two models, kernels with `num_chains` of their own, chains that
            start at real data, or fewer than one move of either kind.

    Example:
        >>> from pyro_gan import LatentPosterior, VectorizedMCMC, toys
        >>> from pyro_gan.mcmc import ISIR, MALA
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> kernel = LocalGlobal(MALA(gan), ISIR(gan, num_particles=5), num_local=3)
        >>> mcmc = VectorizedMCMC(kernel, num_samples=10, num_chains=4, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples(group_by_chain=True)["z"].shape
        torch.Size([4, 10, 1])
    """

    def __init__(
        self,
        local_kernel: BatchKernel,
        global_kernel: IndependenceKernel,
        *,
        num_chains: int | None = None,
        num_local: int = 5,
        num_global: int = 1,
    ) -> None:
        _check_kernels(local_kernel, global_kernel)
        for name, value in (("num_local", num_local), ("num_global", num_global)):
            if value < 1:
                raise ValueError(
                    f"Expected {name} of at least 1; got {value}. For moves of one kind alone use that kernel."
                )
        super().__init__(
            local_kernel.model,
            local_kernel.potential_fn,
            num_chains=num_chains,
            step_size=local_kernel._adaptive,
        )
        self.local_kernel = local_kernel
        self.global_kernel = global_kernel
        self.num_local = num_local
        self.num_global = num_global
        self._jump_prob = torch.zeros(())
        self._jump_sum = torch.zeros(())
        self._jumped = torch.zeros(0, dtype=torch.bool)

    def cleanup(self) -> None:
        """Drop the states and the proposals scored ahead; diagnostics stay."""
        super().cleanup()
        self.local_kernel.cleanup()
        self.global_kernel.cleanup()

    def diagnostics(self) -> dict[str, Any]:
        """Return what every kernel does, the acceptance rate of either kind of move, and the share never jumped."""
        entries = super().diagnostics()
        return entries | {
            "local acceptance rate": entries["acceptance rate"],
            "global acceptance rate": float(self._jump_sum) / max(len(self._diverged), 1),
            "never jumped": 1.0 - float(self._jumped.double().mean()),
        }

    def logging(self) -> OrderedDict[str, str]:
        """Return step size and mean acceptance of both kinds of move for the progress bar."""
        entries = super().logging()
        if self._info is not None:
            entries["jump prob"] = f"{float(self._jump_prob):.3f}"
        return entries

    def _prepare(self, num_chains: int) -> None:
        for kernel in (self.local_kernel, self.global_kernel):
            kernel._target = self._target
            kernel._warmup_steps = self._warmup_steps
            kernel._reset_counts()
            kernel._prepare(num_chains)
        self._jump_prob, self._jump_sum = torch.zeros(()), torch.zeros(())
        self._jumped = torch.zeros(num_chains, dtype=torch.bool, device=self.target.device)

    def _sample_start(self, num_draws: int) -> Tensor:
        return self.global_kernel._sample_start(num_draws)

    def _evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        return self.local_kernel._evaluate(z)

    def _end_warmup(self, state: State) -> State:
        return self.local_kernel._end_warmup(state)

    def _transition(self, state: State) -> tuple[State, Info]:
        place = self.global_kernel.weigh(state.z, state.potential)
        jumps, moves = [], []
        for _ in range(self.num_global):
            place, info = self.global_kernel._transition(place)
            jumps.append(info)
        jumped = torch.stack([info.accepted for info in jumps]).any(0)
        state = self._arrive(state, place.z, jumped)
        for _ in range(self.num_local):
            state, info = self.local_kernel._transition(state)
            moves.append(info)
        self._count(jumps, jumped)
        every = [*jumps, *moves]
        return state, Info(
            accept_prob=torch.stack([info.accept_prob for info in moves]).mean(0),
            accepted=torch.stack([info.accepted for info in every]).any(0),
            invalid=torch.stack([info.invalid for info in every]).any(0),
            diverging=torch.stack([info.diverging for info in every]).any(0),
            energy=moves[-1].energy,
        )

    def _arrive(self, state: State, z: Float[Tensor, "chain dim"], jumped: Bool[Tensor, " chain"]) -> State:
        """Return the state after jumps, as the local kernel must know it; of who stayed it knows all."""
        if z.device.type != "cpu":
            return self.local_kernel._evaluate(z)
        rows = jumped.nonzero().flatten()
        if not len(rows):
            return state
        fresh = self.local_kernel._evaluate(z[rows])
        return State(
            *(
                None if old is None or new is None else old.index_copy(0, rows, new)
                for old, new in zip(state, fresh, strict=True)
            )  # type: ignore[arg-type]
        )

    def _count(self, jumps: list[Info], jumped: Bool[Tensor, " chain"]) -> None:
        self._jump_prob = torch.stack([info.accept_prob for info in jumps]).mean()
        self._jumped = self._jumped | jumped
        if self._step >= self._warmup_steps:
            self._jump_sum = self._jump_prob + self._jump_sum


def _check_kernels(local_kernel: BatchKernel, global_kernel: IndependenceKernel) -> None:
    if not isinstance(local_kernel, BatchKernel) or not isinstance(global_kernel, IndependenceKernel):
        raise ValueError(
            "Expected two kernels, a local one such as MALA(model) and one whose proposals do not depend on the state, "
            f"IndependenceMH(model) or ISIR(model); got {type(local_kernel).__name__} and "
            f"{type(global_kernel).__name__}."
        )
    if (
        local_kernel.model is not global_kernel.model
        or local_kernel.potential_fn != global_kernel.potential_fn
    ):
        raise ValueError(
            "Expected two kernels of one model, or one potential_fn; got two. Pass both the same."
        )
    for kernel in (local_kernel, global_kernel):
        if kernel.num_chains is not None:
            raise ValueError(
                f"Expected kernels without num_chains; {type(kernel).__name__} has {kernel.num_chains}. Give it to "
                "LocalGlobal, or to the runner."
            )
        if isinstance(kernel, IndependenceMH) and kernel.initial_log_ratio is not None:
            raise ValueError(
                "Expected chains that start at latents: those that start at real data have none for a local move to "
                "begin at. Leave initial_log_ratio out."
            )
