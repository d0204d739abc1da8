"""Runs a batched kernel with all chains in one process, and answers like `pyro.infer.MCMC`."""

from __future__ import annotations

import os
import warnings
from typing import Any, final

from pyro.infer.mcmc.api import AbstractMCMC
from pyro.infer.mcmc.util import select_samples
from torch import Tensor

from pyro_gan import files
from pyro_gan._typing import Params
from pyro_gan.interrupts import interruptible
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.moments import Moments
from pyro_gan.mcmc.plan import Hook, Keep, Plan, check_equal
from pyro_gan.mcmc.progress import Progress
from pyro_gan.mcmc.recorded import RecordedRun
from pyro_gan.targets.alone import validated
from pyro_gan.targets.make import check_transforms

__all__ = ["VectorizedMCMC"]

#: What a file of `save` says that it is.
KIND = "run of VectorizedMCMC"


@final
class VectorizedMCMC(AbstractMCMC):
    """`pyro.infer.MCMC` with the chains as a batch dimension: thousands of them cost one network pass a step.

    Args:
        kernel: A `BatchKernel`.
        num_samples: Draws to keep a chain.
        warmup_steps: Steps before the first draw, not kept; the step size adapts in them. If None as many as the steps
            that follow; with `keep="last"` it must be given.
        initial_params: Unconstrained starting points, `{site: (num_chains, *event)}`; drawn from the prior if None.
        num_chains: Number of chains.
        hook_fn: Called as `hook_fn(kernel, params, stage, i)` after each step, `stage` "Warmup" or "Sample". Chains
            that have no position yet, or were dropped (see `kernel.placed`), are NaN in `params`.
        mp_context: Must be None: there is one process. It is here for Pyro's argument order.
        disable_progbar: Whether to show no progress bar.
        disable_validation: Whether to switch off the argument checks of distributions during the run, as Pyro does;
            None leaves them as they are.
        transforms: Constrained to unconstrained by site, for a bare `potential_fn`; a model has its own.
        save_params: Sites to keep; all if None.
        thin: Steps for each kept draw.
        keep: "all" draws, or the "last" of each chain: one output a chain, and memory for one. Nested R-hat and
            `moments`, which every run has, then judge convergence.
        num_superchains: Points to start from, each for `num_chains / num_superchains` chains in a row, as nested R-hat
            needs it; one a chain if None. Given `initial_params` must agree within a superchain.

    Raises:
        ValueError: if a number is not positive, the kernel is not batched or was built for another number of chains,
            or the superchains do not have equally many chains.

    References:
        Rank-Normalization, Folding, and Localization: An Improved R-hat, Vehtari et al., 2021,
        https://arxiv.org/abs/1903.08008; Nested R-hat, Margossian et al., 2024, https://arxiv.org/abs/2110.13017.

    Example:
        >>> from pyro_gan import LatentPosterior, toys
        >>> from pyro_gan.mcmc import MALA
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> mcmc = VectorizedMCMC(MALA(gan), num_samples=20, num_chains=8, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples(group_by_chain=True)["z"].shape
        torch.Size([8, 20, 1])
    """

    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]

    def __init__(
        self,
        kernel: BatchKernel,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Params | None = None,
        num_chains: int = 1,
        hook_fn: Hook | None = None,
        mp_context: str | None = None,
        disable_progbar: bool = False,
        disable_validation: bool | None = True,
        transforms: dict[str, Any] | None = None,
        save_params: list[str] | None = None,
        *,
        thin: int = 1,
        keep: Keep = "all",
        num_superchains: int | None = None,
    ) -> None:
        check_transforms(transforms, kernel.model, initial_params)
        args = num_samples, warmup_steps, num_chains, hook_fn, disable_progbar, transforms, save_params
        self._plan = Plan(*args, thin=thin, keep=keep, num_superchains=num_superchains)
        self._plan.check(kernel, mp_context)
        super().__init__(kernel, num_chains, transforms)
        self.num_samples = num_samples
        self.warmup_steps, self.thin, self.keep = self._plan.warmup_steps, thin, keep
        self.num_superchains = num_superchains
        self._initial_params = initial_params
        self._validates = None if disable_validation is None else not disable_validation
        self._progress: Progress | None = None
        self._recorded: RecordedRun | None = None
        self._args, self._kwargs = (), {}  # of the model: ArviZ's `from_pyro` reads them here

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run warmup and sampling from the start; arguments go to the model.

        Whatever ends the run early (Ctrl-C, SIGTERM, an error of the networks, of a hook, of memory) is raised. The
        draws made so far stay readable, `num_samples` is then their number, and `resume` goes on.

        Warns:
            UserWarning: if chains never moved from their starting point, or much went wrong.

        Raises:
            RuntimeError: if weights of the networks change meanwhile.
        """
        self._go(args, kwargs, None)

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Go on with a run that has ended early, or was loaded, up to `num_samples` draws.

        The draws are those of an uninterrupted run, to the last bit, on the same machine with as many threads. For this
        the kernel must have no memory beside its `state_dict`, and a hook must change nothing but `params`.

        Args:
            *args: The model's arguments; without any, those of the run before.
            **kwargs: The model's keyword arguments.

        Raises:
            ValueError: if no run has begun, or the target is another one.
        """
        if self._progress is None:
            raise ValueError("Expected a run to go on with; got none. Call run(), or load() a saved run.")
        if not args and not kwargs:
            args, kwargs = self._args, self._kwargs
        self._go(args, kwargs, self._progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run as it stands to a file: draws, statistics, what the kernel has learnt, torch's generators.

        Call it after a run, after an exception, or in a `hook_fn` every so many steps, so that a killed process loses
        little. The file is JSON and arrays, in the layout of safetensors. A crash leaves the old file or the new one.

        Raises:
            ValueError: if no run has begun, or the path is not that of a file in an existing folder.

        Example:
            >>> import tempfile
            >>> from pyro_gan import LatentPosterior, toys
            >>> from pyro_gan.mcmc import MALA
            >>> toy = toys.gaussian_shift(auc=0.8)
            >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
            >>> mcmc = VectorizedMCMC(MALA(gan), num_samples=20, num_chains=8, disable_progbar=True)
            >>> mcmc.run()
            >>> longer = VectorizedMCMC(MALA(gan), 50, mcmc.warmup_steps, num_chains=8, disable_progbar=True)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     mcmc.save(f"{folder}/run.safetensors")
            ...     longer.load(f"{folder}/run.safetensors")
            >>> longer.resume()
            >>> bool((longer.sample_stats["lp"][:, :20] == mcmc.sample_stats["lp"]).all())
            True
        """
        if self._progress is None:
            raise ValueError("Expected a run to save; got none. Call run() first.")
        content = {"settings": self._plan.settings(self.kernel), "progress": self._progress.state_dict()}
        files.save(path, content, kind=KIND)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over a run that `save` wrote: its draws are readable, and `resume` goes on with it.

        The runner must be built as the saved one was; `num_samples` may be larger. The kernel takes over what it had
        learnt, so a new run without warmup, from `last_params`, is possible too.

        Raises:
            ValueError: if the file is damaged, no saved run, or was written by a runner or kernel of other settings.
                The runner is then as it was.
        """
        content = files.load(path, kind=KIND)
        check_equal("run", content.get("settings"), self._plan.settings(self.kernel))
        progress = Progress(self._plan.new_record(), None)
        progress.load_state_dict(content["progress"])
        progress.teach(self.kernel)
        self._progress, self._recorded = progress, None
        self._count()

    @property
    def last_params(self) -> dict[str, Tensor]:
        """Where the chains are after the last whole step, unconstrained, by site.

        Their shape is `(chain, *event)`. They can be `initial_params` of another run; draws of `get_samples`, which are
        constrained, cannot.
        """
        if self._progress is None:
            raise ValueError("There are no positions yet: call run() first.")
        return self._progress.last_params

    def get_samples(self, num_samples: int | None = None, group_by_chain: bool = False) -> dict[str, Tensor]:
        """Return constrained draws, `(chain * draw, *event)`, or `(chain, draw, *event)` grouped by chain.

        Args:
            num_samples: Number of draws to resample with replacement; all as they are if None.
            group_by_chain: Whether to keep the chain dimension.
        """
        return select_samples(self._run.samples, num_samples, group_by_chain)

    def diagnostics(self) -> dict[str, Any]:
        """Return effective sample size, split R-hat and nested R-hat by site, by chain divergences and acceptance rate.

        Chains are named "chain 000" and so on: sorted names are sorted chains. With fewer than four draws a chain,
        effective size and split R-hat are NaN. Nested R-hat, see `moments.nested_r_hat`, is of all steps after warmup;
        without superchains every chain is one of its own.
        """
        return self._run.diagnostics()

    def summary(self, prob: float = 0.9) -> None:
        """Print Pyro's table of means, quantiles, effective sample sizes and R-hats, and counts of what went wrong.

        With fewer than four draws a chain, as with `keep="last"`, the table shows the moments and nested R-hat.
        """
        self._run.print_summary(prob)

    @property
    def sample_stats(self) -> dict[str, Tensor]:
        """What was recorded of every kept draw, tensors `(chain, draw)`; empty before a run.

        `lp` (log density up to a constant), `energy`, `accept_prob`, `diverging`, `moved` (whether the chain has
        accepted anything since its start), `step_size`, and where prior and weight are known apart `log_ratio` (the log
        weight, nats).
        """
        return self._run.stats if self._has_draws else {}

    @property
    def moments(self) -> dict[str, Moments]:
        """Constrained mean and variance of every chain over all steps after warmup, by site; empty before a run."""
        return self._run.moments if self._has_draws else {}

    @property
    def never_moved(self) -> float:
        """Share of the chains that have accepted nothing since their start, warmup included."""
        return self._run.never_moved

    @property
    def frozen(self) -> float:
        """Share of the chains that have been at one point for all steps after warmup; NaN after a single step."""
        return self._run.frozen

    @property
    def num_diverging(self) -> int:
        """Number of diverging steps after warmup, over all chains."""
        return int(self._run.num_diverging.sum())

    @property
    def num_invalid(self) -> int:
        """Number of proposals after warmup that were rejected because a score or gradient was not finite."""
        return self._run.num_invalid

    @property
    def _has_draws(self) -> bool:
        return self._recorded is not None or bool(self._progress is not None and self._progress.record)

    @property
    def _run(self) -> RecordedRun:
        # The draws of the run before stay until there is a new one.
        if self._progress is not None and self._progress.record:
            self._recorded = self._progress.record.result()
        if self._recorded is None:
            raise ValueError("There are no draws yet: call run() first, or resume() if a run has ended in warmup.")
        return self._recorded

    def _go(self, args: tuple[Any, ...], kwargs: dict[str, Any], begun: Progress | None) -> None:
        kernel, plan = self.kernel, self._plan
        initial_params = self._initial_params if begun is None else begun.initial_params
        kernel.bind(plan.num_chains, plan.num_superchains, initial_params)
        with validated(self._validates), interruptible() as bookkeeping:
            try:
                self._progress = plan.begin(kernel, args, kwargs, begun)
                self._args, self._kwargs = args, kwargs
                if self.transforms is None:
                    self.transforms = kernel.target.transforms
                plan.iterate(kernel, self._progress, bookkeeping)
            except BaseException as error:
                if self._progress is not None:
                    error.add_note(self._progress.kept(plan.num_samples, plan.num_steps))
                raise
            finally:
                kernel.release()
                kernel.cleanup()
                self._count()
        for text in self._run.complaints(plan.num_chains):
            warnings.warn(text, stacklevel=3)

    def _count(self) -> None:
        """Let the numbers of chains and draws be those that there are."""
        if self._progress is not None and self._progress.record:
            record = self._progress.record
            self.num_chains, self.num_samples = record.num_chains, 1 if self.keep == "last" else len(record)
