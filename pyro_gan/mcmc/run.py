"""Runs a batched kernel with all chains in one process, and answers like `pyro.infer.MCMC`."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer.mcmc.api import AbstractMCMC
from pyro.infer.mcmc.util import diagnostics, print_summary, select_samples
from torch import Tensor
from tqdm.auto import tqdm

from pyro_gan._typing import Params
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.moments import Moments, moments_table, nested_r_hat
from pyro_gan.mcmc.record import Record

__all__ = ["VectorizedMCMC"]

#: Split R-hat needs two draws in each half.
MIN_DRAWS_FOR_RHAT = 4

#: Share of chains without a move among the kept draws from which on a run warns; by chance a few have none, and of
#: runs that are too short many.
MAX_FROZEN, MIN_STEPS_TO_MOVE = 0.01, 20

#: Share of diverging steps from which on a run warns.
MAX_DIVERGING = 0.01


class VectorizedMCMC(AbstractMCMC):
    """`pyro.infer.MCMC` with the chains as a batch dimension: thousands of them cost one network pass a step.

    Args:
        kernel: A `BatchKernel`.
        num_samples: Draws to keep a chain.
        warmup_steps: Steps before the first draw, not kept; the step size adapts in them. As many as there are steps
            after them if None; with `keep="last"`, where those may be few, it must be given.
        initial_params: Unconstrained starting points, `{site: (num_chains, *event)}`; the prior's draws if None.
        num_chains: Number of chains.
        hook_fn: Called as `hook_fn(kernel, params, stage, i)` after each step, `stage` "Warmup" or "Sample". Chains
            that have no position yet, or were dropped (`kernel.placed`), are NaN in `params`.
        mp_context: Must be None: there is one process. For Pyro's argument order only.
        disable_progbar: Whether to show no progress bar.
        disable_validation: Whether to switch off distributions' argument checks during the run, as Pyro does; None
            leaves them as they are.
        transforms: Constrained to unconstrained by site, for a bare `potential_fn`.
        save_params: Sites to keep; all if None.
        thin: Steps for each kept draw.
        keep: "all" draws, or the "last" of each chain: one output a chain, and memory for one. Convergence is then
            judged by `moments` and nested R-hat, which every run has.
        num_superchains: Points to start from, each for `num_chains / num_superchains` chains in a row, as nested R-hat
            wants it; every chain from its own if None. Given `initial_params` must agree within a superchain.

    Attributes:
        sample_stats: What was recorded of every kept draw, tensors of shape `(chain, draw)`: `lp` (log density up to a
            constant), `energy`, `accept_prob`, `diverging`, `moved` (whether the chain has accepted anything since its
            start), `step_size`, and where prior and weight are known apart `log_ratio` (the log weight, nats).
        moments: Mean and variance of every chain over all steps after warmup, kept or not, by site, constrained.

    Raises:
        ValueError: if a number is not positive, the kernel is not batched or disagrees about the chains, or the
            superchains are not of a size.

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
        for name, value in (("num_samples", num_samples), ("num_chains", num_chains), ("thin", thin)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1; got {value}.")
        if warmup_steps is not None and warmup_steps < 0:
            raise ValueError(f"Expected warmup_steps of at least 0; got {warmup_steps}.")
        if kernel.num_chains not in (None, num_chains):
            raise ValueError(
                f"The runner has num_chains={num_chains}, its kernel num_chains={kernel.num_chains}. "
                "Leave the kernel's out: the runner's is used."
            )
        if keep not in ("all", "last"):
            raise ValueError(f'Expected keep="all" or keep="last"; got {keep!r}.')
        if keep == "last" and warmup_steps is None:
            raise ValueError(
                'Expected warmup_steps with keep="last": one draw a chain says nothing about how long the chains need '
                "to forget where they started. A few hundred are a start; nested R-hat judges them."
            )
        if num_superchains is not None and (num_superchains < 2 or num_chains % num_superchains):
            raise ValueError(
                f"Expected num_superchains of 2 or more that divides num_chains={num_chains}; got {num_superchains}."
            )
        super().__init__(kernel, num_chains, transforms)
        self.num_samples = num_samples
        self._wanted_samples, self._wanted_chains = num_samples, num_chains
        self.warmup_steps = num_samples * thin if warmup_steps is None else warmup_steps
        self.thin = thin
        self.keep = keep
        self.num_superchains = num_superchains
        self.sample_stats: dict[str, Tensor] = {}
        self.moments: dict[str, Moments] = {}
        self._initial_params = initial_params
        self._hook_fn = hook_fn
        self._disable_progbar = disable_progbar
        self._disable_validation = disable_validation
        self._save_params = save_params
        self._samples: dict[str, Tensor] | None = None
        self._kernel_diagnostics: dict[str, Any] = {}
        self._superchain = self._mean_accept_prob = self._num_diverging = torch.zeros(0)
        self._lp_moments = Moments(torch.zeros(0), torch.zeros(0), 0)
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
        # What an earlier run has left of `num_chains` and `num_samples` stays until there are new draws.
        kernel.bind(self._wanted_chains, self.num_superchains)
        given = kernel._given_params
        if self._initial_params is not None:
            kernel.initial_params = dict(self._initial_params)
        try:
            with _validation(self._disable_validation):
                kernel.setup(self.warmup_steps, *args, **kwargs)
                self._check_sites()
                self._check_superchains()
                record = self._iterate()
        finally:
            kernel.release()
            kernel.initial_params = given
            kernel.cleanup()
        self._kernel_diagnostics = kernel.diagnostics()
        self._finish(record)

    def get_samples(self, num_samples: int | None = None, group_by_chain: bool = False) -> dict[str, Tensor]:
        """Return constrained draws, `(chain * draw, *event)`, or `(chain, draw, *event)` grouped by chain.

        Args:
            num_samples: Number of draws to resample with replacement; all as they are if None.
            group_by_chain: Whether to keep the chain dimension.
        """
        return select_samples(self._drawn(), num_samples, group_by_chain)

    def diagnostics(self) -> dict[str, Any]:
        """Return effective sample size, split R-hat and nested R-hat by site, by chain divergences and acceptance rate.

        Chains are named "chain 000" and so on, so that sorting the names sorts the chains. Effective sample size and
        split R-hat are NaN with fewer than four draws a chain; nested R-hat, see `moments.nested_r_hat`, is of all
        steps, with the superchains as they started or every chain one of its own.
        """
        samples = self._drawn()
        if self.num_samples >= MIN_DRAWS_FOR_RHAT:
            result: dict[str, Any] = diagnostics(samples)
        else:
            nan = {name: torch.full(value.shape[2:], torch.nan) for name, value in samples.items()}
            result = {name: {"n_eff": value, "r_hat": value} for name, value in nan.items()}
        for name in samples:
            result[name]["nested_r_hat"] = nested_r_hat(self.moments[name], self._superchain)
        width = max(3, len(str(self.num_chains - 1)))
        diverging, accept_prob = self.sample_stats["diverging"].cpu(), self._mean_accept_prob.cpu()
        chains = [f"chain {chain:0{width}d}" for chain in range(self.num_chains)]
        result["divergences"] = {
            name: row.nonzero().flatten().tolist() for name, row in zip(chains, diverging, strict=True)
        }
        result["acceptance rate"] = dict(zip(chains, accept_prob.tolist(), strict=True))
        return result

    def summary(self, prob: float = 0.9) -> None:
        """Print Pyro's table of means, quantiles, effective sample sizes and R-hats, and what went wrong by chain.

        With fewer than four draws a chain, as of `keep="last"`, the table is of the moments and nested R-hat.
        """
        samples = self._drawn()
        if self.num_samples >= MIN_DRAWS_FOR_RHAT:
            print_summary(samples, prob=prob)
        else:
            tqdm.write(moments_table(self.moments, self._superchain))
        still = "unknown after one step" if math.isnan(self.frozen) else f"{self.frozen:.2%}"
        tqdm.write(
            f"Number of divergences: {self.num_diverging}\n"
            f"Invalid proposals (NaN or infinite score, rejected): {self.num_invalid}\n"
            f"Chains that never moved: {self.never_moved:.2%}\n"
            f"Chains that stood still while draws were kept: {still}"
        )

    @property
    def never_moved(self) -> float:
        """Share of the chains that have accepted nothing since their start, warmup included."""
        self._drawn()
        return 1.0 - float(self.sample_stats["moved"][:, -1].double().mean())

    @property
    def frozen(self) -> float:
        """Share of the chains that have been at one point for all steps after warmup; NaN after a single step."""
        self._drawn()
        if self._lp_moments.num_steps == 1:
            return math.nan
        still = [
            (m.variance == 0).reshape(self.num_chains, -1).all(1)
            for m in (*self.moments.values(), self._lp_moments)
        ]
        return float(torch.stack(still).all(0).double().mean())

    @property
    def num_diverging(self) -> int:
        """Number of diverging steps after warmup, over all chains."""
        self._drawn()
        return int(self._num_diverging.sum())

    @property
    def num_invalid(self) -> int:
        """Number of proposals after warmup that were rejected because a score or gradient was not finite."""
        self._drawn()
        return int(self._kernel_diagnostics["invalid proposals"])

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
                # What the hook does to the chains is the next step's business, and no draw's.
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
        samples, stats, moments, stat_moments, num_diverging, num_draws = record.result(self.kernel)
        self.sample_stats, self._num_diverging = stats, num_diverging
        kept = [name for name in samples if self._save_params is None or name in self._save_params]
        self._samples = {name: samples[name] for name in kept}
        self.moments = {name: moments[name] for name in kept}
        self._lp_moments, self._mean_accept_prob = stat_moments["lp"], stat_moments["accept_prob"].mean
        copies = self._wanted_chains // (self.num_superchains or self._wanted_chains)
        placed = self.kernel.placed.nonzero().flatten()
        self._superchain, self.num_chains = placed // copies, len(placed)
        if num_draws < self._wanted_samples:
            made = f"Interrupted: kept {num_draws} of {self._wanted_samples} draws of each chain."
            if self.keep == "last":
                made = f"Interrupted: kept draw {num_draws} of {self._wanted_samples} of each chain."
            warnings.warn(made, stacklevel=4)
        self.num_samples = 1 if self.keep == "last" else num_draws
        if self.num_chains < self._wanted_chains:
            warnings.warn(
                f"{1 - self.num_chains / self._wanted_chains:.2%} of the chains had accepted nothing when warmup ended "
                "and were dropped: they started at real data and have no latent to give. What those data stand for is "
                "missing from the output. Run a longer warmup, or look at LatentPosterior.check().",
                stacklevel=4,
            )
        if self.never_moved > 0:
            warnings.warn(
                f"{self.never_moved:.2%} of the chains accepted nothing since their start: their draws are copies of "
                "where they started. Run longer, adapt the step size, or look at LatentPosterior.check().",
                stacklevel=4,
            )
        share = self.num_diverging / (self.num_chains * self._lp_moments.num_steps)
        if share > MAX_DIVERGING:
            warnings.warn(
                f"{share:.2%} of the steps after warmup diverged: the step size is too long for this target, or the "
                "scores are not finite there. Shorten or adapt it, or look for NaN in log_ratio(generator(z)).",
                stacklevel=4,
            )
        if self.frozen > MAX_FROZEN and self._lp_moments.num_steps >= MIN_STEPS_TO_MOVE:
            warnings.warn(
                f"{self.frozen:.2%} of the chains stood still while draws were kept: all draws of such a chain are one "
                "point. Run longer, thin more, adapt the step size, or look at LatentPosterior.check().",
                stacklevel=4,
            )

    def _check_sites(self) -> None:
        taken = {"divergences", "acceptance rate"} & set(self.kernel.target.shapes)
        if taken:
            raise ValueError(
                f"Expected sites of other names than {sorted(taken)}, which diagnostics() uses itself."
            )
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

    def _drawn(self) -> dict[str, Tensor]:
        if self._samples is None:
            raise ValueError("There are no draws yet: call run() first.")
        return self._samples


@contextlib.contextmanager
def _validation(disable: bool | None) -> Iterator[None]:
    if disable is None:
        yield
    else:
        with pyro.validation_enabled(not disable):
            yield
