"""Local moves and jumps in turn: jumps cross between modes, local moves explore them (Ex2MCMC and FlEx2MCMC).

Leaves invariant: the target `exp(-U(z))`, if both of its kernels do.
A step: `num_global` moves of the global kernel, then `num_local` of the local one.
Papers: Local-Global MCMC kernels: the best of both worlds, Samsonov et al., 2022, https://arxiv.org/abs/2111.02702;
Adaptive Monte Carlo augmented with normalizing flows, Gabrie, Rotskoff and Vanden-Eijnden, 2022,
https://arxiv.org/abs/2105.12603.
Cost of a step: the cost of its moves, and one more evaluation of the local kernel for chains that jumped (on an
accelerator for all chains, because counting those that jumped would stall it). The global kernel's weights follow from
known potentials and cost no forward pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.mcmc.accept import Info
from pyro_gan.mcmc.independence import IndependenceMH
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.proposal import IndependenceKernel
from pyro_gan.targets import State

__all__ = ["LocalGlobal"]


@final
class LocalGlobal(BatchKernel):
    """A local kernel and one that jumps; a step is a fixed number of moves of each.

    After a jump the gradient at the old position no longer holds, and using it would change the distribution that is
    sampled. It is computed again for the chains that jumped.

    The step size adapts to the mean acceptance of the local moves alone, which is also the `accept_prob` of a draw.
    `diagnostics()` reports it separately from the acceptance of jumps, with the share of chains that never jumped. No
    other figure shows that share, because local moves change the position of each chain.

    Args:
        local_kernel: `MALA`, `BatchHMC`, `PCN`, `RandomWalk` or another, without `num_chains`.
        global_kernel: `IndependenceMH` or `ISIR` of the same model, without `num_chains`. Its proposal is the prior, or
            a distribution that was fitted before the run and is fixed.
        num_chains: Number of chains, or None; see `BatchKernel`.
        num_local: Local moves in a step.
        num_global: Jumps in a step.

    Raises:
        ValueError: for kernels of other kinds or of two models, kernels that have `num_chains` themselves, chains that
            start at real data, or no moves of either kind.

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

    needs_prior = True

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
        super().__init__(
            local_kernel.model, local_kernel.potential_fn, num_chains=num_chains, adaptation=local_kernel.adaptation
        )
        cure = "For moves of one kind alone use that kernel."
        self.num_local = checks.count("num_local", num_local, cure=cure)
        self.num_global = checks.count("num_global", num_global, cure=cure)
        self.local_kernel = local_kernel
        self.global_kernel = global_kernel
        self.uses_gradient = local_kernel.uses_gradient
        self.is_exact = local_kernel.is_exact and global_kernel.is_exact
        self._jump_prob = torch.zeros(())
        self._jump_sum = torch.zeros(())
        self._jumped = torch.zeros(0, dtype=torch.bool)

    def cleanup(self) -> None:
        """Drop the states, and the proposals that were scored ahead; diagnostics stay."""
        super().cleanup()
        self.local_kernel.cleanup()
        self.global_kernel.cleanup()

    def diagnostics(self) -> dict[str, Any]:
        """Return the diagnostics of every kernel, both acceptance rates, and the share of chains that never jumped."""
        entries = super().diagnostics()
        return entries | {
            "local acceptance rate": entries["acceptance rate"],
            "global acceptance rate": float(self._jump_sum) / max(self._step - self.warmup_steps, 1),
            "never jumped": 1.0 - float(self._jumped.double().mean()),
        }

    def logging(self) -> OrderedDict[str, str]:
        """Return step size and mean acceptance of both kinds of move for the progress bar."""
        entries = super().logging()
        if self._info is not None:
            entries["jump prob"] = f"{float(self._jump_prob):.3f}"
        return entries

    def settings(self) -> dict[str, Any]:
        """Return what the mixture and both kernels were built with."""
        return super().settings() | {"local": self.local_kernel.settings(), "global": self.global_kernel.settings()}

    def state_dict(self) -> dict[str, Any]:
        """Return what every kernel keeps, what both kernels keep, and the counts of jumps."""
        return super().state_dict() | {
            "local": self.local_kernel.state_dict(),
            "global": self.global_kernel.state_dict(),
            "jump_sum": self._jump_sum,
            "jumped": self._jumped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.local_kernel.load_state_dict(state["local"])
        self.global_kernel.load_state_dict(state["global"])
        self._jump_sum, self._jumped = state["jump_sum"], state["jumped"]

    def prepare(self, num_chains: int) -> None:
        """Attach both kernels to the target."""
        for kernel in (self.local_kernel, self.global_kernel):
            kernel.attach(self.target, num_chains=num_chains, warmup_steps=self.warmup_steps)
        self._jump_prob, self._jump_sum = torch.zeros(()), torch.zeros(())
        self._jumped = torch.zeros(num_chains, dtype=torch.bool, device=self.target.device)

    def sample_start(self, num_draws: int) -> Float[Tensor, "draw dim"]:
        """Draw positions from the global kernel's proposal."""
        return self.global_kernel.sample_start(num_draws)

    def evaluate(self, z: Float[Tensor, "chain dim"]) -> State:
        """Return the state at positions, as the local kernel needs it."""
        return self.local_kernel.evaluate(z)

    def complete(self, state: State) -> State:
        """Return a state with the fields that the local kernel needs."""
        return self.local_kernel.complete(state)

    def finish_warmup(self, state: State) -> State:
        """End the warmup of the local kernel."""
        return self.local_kernel.finish_warmup(state)

    def transition(self, state: State) -> tuple[State, Info]:
        """Make the jumps, then the local moves."""
        place = self.global_kernel.complete(state)
        jumps, moves = [], []
        for _ in range(self.num_global):
            place, info = self.global_kernel.transition(place)
            jumps.append(info)
        jumped = torch.stack([info.accepted for info in jumps]).any(0)
        state = self._arrive(state, place.z, jumped)
        for _ in range(self.num_local):
            state, info = self.local_kernel.transition(state)
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
        """Return the state after jumps, as the local kernel needs it; only chains that jumped are evaluated again."""
        if z.device.type != "cpu":
            return self.local_kernel.evaluate(z)
        rows = jumped.nonzero().flatten()
        return state.put(rows, self.local_kernel.evaluate(z[rows])) if len(rows) else state

    def _count(self, jumps: list[Info], jumped: Bool[Tensor, " chain"]) -> None:
        self._jump_prob = torch.stack([info.accept_prob for info in jumps]).mean()
        self._jumped = self._jumped | jumped
        if not self.is_warming_up:
            self._jump_sum = self._jump_prob + self._jump_sum


def _check_kernels(local_kernel: BatchKernel, global_kernel: IndependenceKernel) -> None:
    checks.instance("local_kernel", local_kernel, BatchKernel, cure="Pass one such as MALA(model).")
    cure = "Its proposals must not depend on the state: pass IndependenceMH(model) or ISIR(model)."
    checks.instance("global_kernel", global_kernel, IndependenceKernel, cure=cure)
    if local_kernel.model is not global_kernel.model or local_kernel.potential_fn != global_kernel.potential_fn:
        raise ValueError(
            "Expected two kernels of the same model or potential_fn; got two. Build both kernels from one object."
        )
    for kernel in (local_kernel, global_kernel):
        if kernel.num_chains is not None:
            raise ValueError(
                f"Expected kernels without num_chains; {type(kernel).__name__} has {kernel.num_chains}. Give it to "
                "LocalGlobal, or to the runner."
            )
        if isinstance(kernel, IndependenceMH) and kernel.initial_log_ratio is not None:
            raise ValueError(
                "Expected a kernel without initial_log_ratio: a chain that starts at real data has no latent, so local "
                "moves are impossible. Leave it out."
            )
