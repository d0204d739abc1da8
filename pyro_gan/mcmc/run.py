"""Runs a batched kernel with all chains in one process, and answers like `pyro.infer.MCMC`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, final

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer.mcmc.api import AbstractMCMC
from pyro.infer.mcmc.util import select_samples
from torch import Tensor
from tqdm.auto import tqdm

from pyro_gan import checks
from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.moments import Moments
from pyro_gan.mcmc.record import Record
from pyro_gan.mcmc.recorded import RecordedRun
from pyro_gan.targets.make import check_transforms

__all__ = ["VectorizedMCMC"]


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

    def __init__(
        self,
        kernel: BatchKernel,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Params | None = None,
        num_chains: int = 1,
        hook_fn: Callable[[BatchKernel, Params, str, int], None] | None = None,
        mp_context: str | None = None,
        disable_progbar: bool = False,
        disable_validation: bool | None = True,
        transforms: dict[str, Any] | None = None,
        save_params: list[str] | None = None,
        *,
        thin: int = 1,
        keep: Literal["all", "last"] = "all",
        num_superchains: int | None = None,
    ) -> None:
        if not isinstance(kernel, BatchKernel):
            raise ValueError(
                f"Expected a pyro_gan kernel, whose chains are a batch; got {type(kernel).__name__}. "
                "Run Pyro's own kernels with pyro.infer.MCMC."
            )
        if mp_context is not None:
            raise ValueError(f"Expected mp_context=None: all chains share one process; got {mp_context!r}.")
        num_samples, num_chains = (checks.count("num_samples", num_samples), checks.count("num_chains", num_chains))
        thin = checks.count("thin", thin)
        if warmup_steps is not None:
            warmup_steps = checks.count("warmup_steps", warmup_steps, minimum=0)
        if hook_fn is not None:
            checks.function("hook_fn", hook_fn)
        if kernel.num_chains not in (None, num_chains):
            raise ValueError(
                f"The runner has num_chains={num_chains}, its kernel num_chains={kernel.num_chains}. "
                "Leave out the kernel's: the runner sets it."
            )
        checks.choice("keep", keep, ("all", "last"))
        if keep == "last" and warmup_steps is None:
            raise ValueError(
                'Expected warmup_steps with keep="last": one draw a chain says nothing about how long the chains need '
                "to forget where they started. A few hundred are a start; nested R-hat judges them."
            )
        if num_superchains is not None and num_chains % checks.count("num_superchains", num_superchains, minimum=2):
            raise ValueError(f"Expected num_superchains that divides num_chains={num_chains}; got {num_superchains}.")
        check_transforms(transforms, kernel.model, initial_params)
        super().__init__(kernel, num_chains, transforms)
        self.num_samples = num_samples
        self._wanted_samples, self._wanted_chains = num_samples, num_chains
        self.warmup_steps = num_samples * thin if warmup_steps is None else warmup_steps
        self.thin = thin
        self.keep = keep
        self.num_superchains = num_superchains
        self._initial_params = initial_params
        self._hook_fn = hook_fn
        self._disable_progbar = disable_progbar
        self._disable_validation = disable_validation
        self._save_params = save_params
        self._recorded: RecordedRun | None = None
        # ArviZ's `from_pyro` reads the model's arguments here.
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}

    @poutine.block
    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run warmup and sampling; arguments go to the model.

        Ctrl-C ends the run early and keeps the draws made so far, with a warning; `num_samples` is then their number.
        Ctrl-C before the first draw is raised.

        Warns:
            UserWarning: if the run was interrupted, or chains never moved from their starting point.
        """
        self._args, self._kwargs = args, kwargs
        kernel = self.kernel
        kernel.bind(self._wanted_chains, self.num_superchains, self._initial_params)
        try:
            with _validation(self._disable_validation):
                kernel.setup(self.warmup_steps, *args, **kwargs)
                self._check_sites()
                self._check_superchains()
                record = self._iterate()
        finally:
            kernel.release()
            kernel.cleanup()
        self._finish(record)

    def get_samples(self, num_samples: int | None = None, group_by_chain: bool = False) -> dict[str, Tensor]:
        """Return constrained draws, `(chain * draw, *event)`, or `(chain, draw, *event)` grouped by chain.

        Args:
            num_samples: Number of draws to resample with replacement; all as they are if None.
            group_by_chain: Whether to keep the chain dimension.
        """
        return select_samples(self._run.samples, num_samples, group_by_chain)

    def diagnostics(self) -> dict[str, Any]:
        """Return effective sample size, split R-hat and nested R-hat by site, by chain divergences and acceptance rate.

        Chains are named "chain 000" and so on, so that sorting the names sorts the chains. Effective sample size and
        split R-hat are NaN with fewer than four draws a chain. Nested R-hat, see `moments.nested_r_hat`, is of all
        steps after warmup; without superchains every chain is one of its own.
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
        return {} if self._recorded is None else self._recorded.stats

    @property
    def moments(self) -> dict[str, Moments]:
        """Constrained mean and variance of every chain over all steps after warmup, by site; empty before a run."""
        return {} if self._recorded is None else self._recorded.moments

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
    def _run(self) -> RecordedRun:
        if self._recorded is None:
            raise ValueError("There are no draws yet: call run() first.")
        return self._recorded

    def _iterate(self) -> Record:
        kernel, params = self.kernel, self.kernel.initial_params
        if self.transforms is None:
            self.transforms = kernel.target.transforms
        record = Record(self.transforms, copy=self._hook_fn is not None, only_last=self.keep == "last")
        bar = tqdm(total=self.warmup_steps + self._wanted_samples * self.thin, disable=self._disable_progbar)
        with bar, contextlib.suppress(KeyboardInterrupt):
            for stage, i in self._steps():
                bar.set_description(stage, refresh=False)
                params = kernel.sample(params)
                # The draw is recorded before the hook, which may change the chains for the next step.
                if stage == "Sample":
                    record.step(kernel, keep=(i + 1) % self.thin == 0)
                if self._hook_fn is not None:
                    self._hook_fn(kernel, params, stage, i)
                # The bar redraws a few times a second; only then is a number read back from the device.
                if bar.update():
                    bar.set_postfix(kernel.logging(), refresh=False)
        if not record:
            raise KeyboardInterrupt
        return record

    def _steps(self) -> Iterator[tuple[str, int]]:
        yield from (("Warmup", i) for i in range(self.warmup_steps))
        yield from (("Sample", i) for i in range(self._wanted_samples * self.thin))

    def _finish(self, record: Record) -> None:
        num_copies = self._wanted_chains // (self.num_superchains or self._wanted_chains)
        run = record.result(self.kernel, save_params=self._save_params, num_copies=num_copies)
        self._recorded, self.num_chains = run, run.num_chains
        self.num_samples = 1 if self.keep == "last" else run.num_draws
        if run.num_draws < self._wanted_samples:
            last = "draw " if self.keep == "last" else ""
            warnings.warn(
                f"Interrupted: kept {last}{run.num_draws} of {self._wanted_samples}"
                f"{'' if last else ' draws'} of each chain.",
                stacklevel=4,
            )
        for text in run.complaints(self._wanted_chains):
            warnings.warn(text, stacklevel=4)

    def _check_sites(self) -> None:
        taken = {"divergences", "acceptance rate"} & set(self.kernel.target.shapes)
        if taken:
            raise ValueError(f"Expected sites of other names than {sorted(taken)}, which diagnostics() uses itself.")
        unknown = set(self._save_params or ()) - set(self.kernel.target.shapes)
        if unknown:
            raise ValueError(
                f"Expected save_params out of the sites {sorted(self.kernel.target.shapes)}; got {sorted(unknown)}."
            )

    def _check_superchains(self) -> None:
        if self.num_superchains is None:
            return
        starts = self.kernel.state.z.unflatten(0, (self.num_superchains, -1))
        if not torch.equal(starts, starts[:, :1].expand_as(starts)) and not starts.isnan().any():
            raise ValueError(
                f"Expected initial_params to agree within each of the {self.num_superchains} superchains, "
                f"{starts.shape[1]} chains in a row; got others. Nested R-hat compares chains that start together."
            )


@contextlib.contextmanager
def _validation(disable: bool | None) -> Iterator[None]:
    if disable is None:
        yield
    else:
        with pyro.validation_enabled(not disable):
            yield
