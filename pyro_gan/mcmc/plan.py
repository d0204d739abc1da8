"""What a run is to do, and the loop that does it step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from tqdm.auto import tqdm

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.interrupts import Bookkeeping
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.progress import Progress
from pyro_gan.mcmc.record import Record
from pyro_gan.targets.weights import Weights

__all__ = ["Hook", "Keep", "Plan", "check_equal"]

Keep = Literal["all", "last"]
Hook = Callable[[BatchKernel, Params, str, int], None]


@final
@dataclass(frozen=True)
class Plan:
    """The arguments of `VectorizedMCMC` that say what a run does."""

    #: Draws of each chain.
    num_samples: int
    #: Steps before the first draw; None for as many as follow.
    warmup: int | None
    num_chains: int
    hook_fn: Hook | None
    disable_progbar: bool
    #: Constrained to unconstrained by site; the target's if None.
    transforms: dict[str, Any] | None
    #: Sites to keep; all if None.
    save_params: list[str] | None
    #: Steps for each kept draw.
    thin: int
    keep: Keep
    num_superchains: int | None

    @property
    def warmup_steps(self) -> int:
        """Steps before the first draw."""
        return self.num_samples * self.thin if self.warmup is None else self.warmup

    @property
    def num_steps(self) -> int:
        """All steps of the run."""
        return self.warmup_steps + self.num_samples * self.thin

    def check(self, kernel: Any, mp_context: Any) -> None:
        """Raise unless the arguments are valid, and fit one another and the kernel."""
        if not isinstance(kernel, BatchKernel):
            raise ValueError(
                f"Expected a pyro_gan kernel, whose chains are a batch; got {type(kernel).__name__}. "
                "Run Pyro's own kernels with pyro.infer.MCMC."
            )
        if mp_context is not None:
            raise ValueError(f"Expected mp_context=None: all chains share one process; got {mp_context!r}.")
        checks.count("num_samples", self.num_samples)
        checks.count("num_chains", self.num_chains)
        checks.count("thin", self.thin)
        if self.warmup is not None:
            checks.count("warmup_steps", self.warmup, minimum=0)
        if self.hook_fn is not None:
            checks.function("hook_fn", self.hook_fn)
        if kernel.num_chains not in (None, self.num_chains):
            raise ValueError(
                f"The runner has num_chains={self.num_chains}, its kernel num_chains={kernel.num_chains}. "
                "Leave out the kernel's: the runner sets it."
            )
        checks.choice("keep", self.keep, ("all", "last"))
        if self.keep == "last" and self.warmup is None:
            raise ValueError(
                'Expected warmup_steps with keep="last": one draw a chain says nothing about how long the chains need '
                "to forget where they started. A few hundred are a start; nested R-hat judges them."
            )
        number = self.num_superchains
        if number is not None and self.num_chains % checks.count("num_superchains", number, minimum=2):
            raise ValueError(f"Expected num_superchains that divides num_chains={self.num_chains}; got {number}.")

    def settings(self, kernel: BatchKernel) -> dict[str, Any]:
        """Return what must be equal for a saved run to go on."""
        return {
            "kernel": kernel.settings(),
            "num_chains": self.num_chains,
            "warmup_steps": self.warmup_steps,
            "thin": self.thin,
            "keep": self.keep,
            "num_superchains": self.num_superchains,
            "save_params": self.save_params,
        }

    def new_record(self) -> Record:
        """Return an empty record, with room for the run."""
        return Record(
            self.transforms,
            self.num_samples,
            save_params=self.save_params,
            num_copies=self.num_chains // (self.num_superchains or self.num_chains),
            copy=self.hook_fn is not None,
            only_last=self.keep == "last",
        )

    def check_target(self, kernel: BatchKernel) -> None:
        """Raise unless the plan fits what the kernel samples and where its chains start."""
        sites = set(kernel.target.shapes)
        taken = {"divergences", "acceptance rate"} & sites
        if taken:
            raise ValueError(f"Expected sites of other names than {sorted(taken)}, which diagnostics() uses itself.")
        unknown = set(self.save_params or ()) - sites
        if unknown:
            raise ValueError(f"Expected save_params out of the sites {sorted(sites)}; got {sorted(unknown)}.")
        if self.num_superchains is None:
            return
        starts = kernel.state.z.unflatten(0, (self.num_superchains, -1))
        if not torch.equal(starts, starts[:, :1].expand_as(starts)) and not starts.isnan().any():
            raise ValueError(
                f"Expected initial_params to agree within each of the {self.num_superchains} superchains, "
                f"{starts.shape[1]} chains in a row; got others. Nested R-hat compares chains that start together."
            )

    def begin(
        self, kernel: BatchKernel, args: tuple[Any, ...], kwargs: dict[str, Any], begun: Progress | None
    ) -> Progress:
        """Set a bound kernel up with the model's arguments, and return the progress of the run.

        Args:
            kernel: The kernel.
            args: The model's positional arguments.
            kwargs: Its keyword arguments.
            begun: The run to go on with, where it stands; None for a new one. The setup is repeated as it was.
        """
        progress = Progress(self.new_record(), kernel.given_params) if begun is None else begun
        progress.rewind()
        kernel.setup(self.warmup_steps, *args, **kwargs)
        self.check_target(kernel)
        if begun is None:
            progress.mark(kernel, kernel.initial_params, 0)
        else:
            progress.restore(kernel)
        return progress

    def iterate(self, kernel: BatchKernel, progress: Progress, bookkeeping: Bookkeeping) -> None:
        """Make the steps that are left.

        Args:
            kernel: The kernel, which has been set up.
            progress: Where the run stands; it follows step by step.
            bookkeeping: In it a signal waits, so that a step is recorded whole.
        """
        params = progress.params
        weights = Weights(*kernel.target.functions)
        with tqdm(total=self.num_steps, initial=progress.num_steps, disable=self.disable_progbar) as bar:
            for step in range(progress.num_steps, self.num_steps):
                is_warmup = step < self.warmup_steps
                stage, i = ("Warmup", step) if is_warmup else ("Sample", step - self.warmup_steps)
                bar.set_description(stage, refresh=False)
                params = kernel.sample(params)
                weights.check(f"step {step + 1}", read=step + 1 == self.num_steps)
                with bookkeeping:
                    # The draw is recorded before the hook, which may change the chains for the next step.
                    if not is_warmup:
                        progress.record.step(kernel, keep=(i + 1) % self.thin == 0)
                    progress.mark(kernel, params, step + 1)
                if self.hook_fn is not None:
                    self.hook_fn(kernel, params, stage, i)
                    progress.mark_rng()
                # The bar redraws a few times a second; only then is a number read back from the device.
                if bar.update():
                    bar.set_postfix(kernel.logging(), refresh=False)


def check_equal(name: str, there: Any, here: Any, *, inside: str = "") -> None:
    """Raise unless the settings in a file are those in use, naming the first one that is not.

    Args:
        name: What the settings are of.
        there: What the file holds.
        here: What is in use: a dictionary, whose values may be dictionaries.
        inside: The key that led here.

    Raises:
        ValueError: with both values.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            check_equal(name, there.get(key), here.get(key), inside=f"{inside} {key}".strip())
    elif there != here:
        raise ValueError(
            f"Expected the settings of the saved {name}; its {inside or 'settings'} is {there!r}, and here {here!r}. "
            "Build it with the same settings, or give another path."
        )
