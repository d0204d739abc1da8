"""A finished run: what was recorded, what it says of convergence, and what it warns of."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from pyro.infer.mcmc.util import diagnostics, print_summary
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor
from tqdm.auto import tqdm

from pyro_gan.mcmc.moments import Moments, moments_table, nested_r_hat

__all__ = ["RecordedRun"]

#: Split R-hat needs two draws in each half.
MIN_DRAWS_FOR_RHAT = 4

#: Warn if more than this share of chains stood still while draws were kept. A few do so by chance, and in a run of
#: fewer steps than this many do.
MAX_FROZEN, MIN_STEPS_TO_MOVE = 0.01, 20

#: Numbers in a block of coordinates that effective sizes and R-hats are computed of.
BLOCK_NUMBERS = 2_000_000

#: Warn if more than this share of the steps diverged.
MAX_DIVERGING = 0.01


@final
class RecordedRun(NamedTuple):
    """A run as it was recorded, of the chains that have a position.

    Attributes:
        samples: Constrained draws by site, `(chain, draw, *event)`.
        stats: Statistics of the draws, `(chain, draw)`. `log_ratio` is the log weight, `lp` minus the log density of
            the prior, where that is known.
        moments: Of every step, kept or not, by site.
        stat_moments: Likewise, of `lp` and `accept_prob`.
        num_diverging: Diverging steps of each chain, kept or not, `(chain,)`.
        num_draws: Draws made of each chain, whether they were all kept or only the last.
        superchain: The superchain of each chain, integers `(chain,)`.
        num_invalid: Proposals after warmup that were rejected because a score or gradient was not finite.
    """

    samples: dict[str, Tensor]
    stats: dict[str, Tensor]
    moments: dict[str, Moments]
    stat_moments: dict[str, Moments]
    num_diverging: Tensor
    num_draws: int
    superchain: Tensor
    num_invalid: int

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return len(self.num_diverging)

    @property
    def never_moved(self) -> float:
        """Share of the chains that have accepted nothing since their start, warmup included."""
        return 1.0 - float(self.stats["moved"][:, -1].double().mean())

    @property
    def frozen(self) -> float:
        """Share of the chains that have been at one point for all steps after warmup; NaN after a single step."""
        lp = self.stat_moments["lp"]
        if lp.num_steps == 1:
            return math.nan
        still = [(m.variance == 0).reshape(self.num_chains, -1).all(1) for m in (*self.moments.values(), lp)]
        return float(torch.stack(still).all(0).double().mean())

    def diagnostics(self) -> dict[str, Any]:
        """Return what `VectorizedMCMC.diagnostics` returns."""
        if self._has_r_hat:
            result: dict[str, Any] = {name: _by_block(value) for name, value in self.samples.items()}
        else:
            nan = {name: torch.full(value.shape[2:], torch.nan) for name, value in self.samples.items()}
            result = {name: {"n_eff": value, "r_hat": value} for name, value in nan.items()}
        for name in self.samples:
            result[name]["nested_r_hat"] = nested_r_hat(self.moments[name], self.superchain)
        width = max(3, len(str(self.num_chains - 1)))
        diverging, accept_prob = self.stats["diverging"].cpu(), self.stat_moments["accept_prob"].mean.cpu()
        chains = [f"chain {chain:0{width}d}" for chain in range(self.num_chains)]
        result["divergences"] = {
            name: row.nonzero().flatten().tolist() for name, row in zip(chains, diverging, strict=True)
        }
        result["acceptance rate"] = dict(zip(chains, accept_prob.tolist(), strict=True))
        return result

    def print_summary(self, prob: float) -> None:
        """Print what `VectorizedMCMC.summary` prints."""
        if self._has_r_hat:
            print_summary(self.samples, prob=prob)
        else:
            tqdm.write(moments_table(self.moments, self.superchain))
        if "log_ratio" in self.stats:
            tqdm.write(self._log_ratio_line())
        still = "unknown after one step" if math.isnan(self.frozen) else f"{self.frozen:.2%}"
        tqdm.write(
            f"Number of divergences: {int(self.num_diverging.sum())}\n"
            f"Invalid proposals (NaN or infinite score, rejected): {self.num_invalid}\n"
            f"Chains that never moved: {self.never_moved:.2%}\n"
            f"Chains that stood still while draws were kept: {still}"
        )

    def _log_ratio_line(self) -> str:
        nats = self.stats["log_ratio"].double()
        r_hat = float(split_gelman_rubin(nats)) if self._has_r_hat else math.nan
        spread = float(nats.std()) if nats.numel() > 1 else math.nan
        return f"Log ratio (log weight over the prior), nats: mean {float(nats.mean()):.4g}, sd {spread:.3g}" + (
            "" if math.isnan(r_hat) else f", R-hat {r_hat:.3f}"
        )

    def complaints(self, num_started: int) -> list[str]:
        """Return what is wrong with the run of so many chains, each with its cure."""
        num_steps = self.stat_moments["lp"].num_steps
        dropped = 1 - self.num_chains / num_started
        num_diverging = int(self.num_diverging.sum())
        diverging = num_diverging / (self.num_chains * num_steps)
        # A step that is too long may have thrown a chain to where scores are not finite, so the rest decides.
        too_long = (num_diverging - self.num_invalid) / (self.num_chains * num_steps)
        found = (
            (
                dropped > 0,
                f"{dropped:.2%} of the chains had accepted nothing when warmup ended and were dropped: they started at "
                "real data and have no latent to give. The output lacks what those data points stand for. Run a longer "
                "warmup, or look at LatentPosterior.check().",
            ),
            (
                self.never_moved > 0,
                f"{self.never_moved:.2%} of the chains accepted nothing since their start: their draws are copies of "
                "their starting points. Run longer, adapt the step size, or look at LatentPosterior.check().",
            ),
            (
                diverging > MAX_DIVERGING,
                f"{diverging:.2%} of the steps after warmup diverged"
                + (
                    f", {min(self.num_invalid, num_diverging)} of {num_diverging} because a score or its gradient was "
                    "not finite: look for NaN in log_ratio(generator(z)) and in its gradient"
                    if self.num_invalid
                    else ""
                )
                + (
                    f"{'; the others because' if self.num_invalid else ':'} the step size is too long for this target: "
                    "shorten or adapt it."
                    if too_long > MAX_DIVERGING
                    else "."
                ),
            ),
            (
                self.frozen > MAX_FROZEN and num_steps >= MIN_STEPS_TO_MOVE,
                f"{self.frozen:.2%} of the chains stood still while draws were kept: all draws of such a chain are one "
                "point. Run longer, thin more, adapt the step size, or look at LatentPosterior.check().",
            ),
        )
        return [text for is_wrong, text in found if is_wrong]

    @property
    def _has_r_hat(self) -> bool:
        return next(iter(self.stats.values())).shape[1] >= MIN_DRAWS_FOR_RHAT


def _by_block(draws: Float[Tensor, "chain draw *event"]) -> dict[str, Tensor]:
    """Return Pyro's diagnostics of a site, a few coordinates at a time: of all at once they take much memory."""
    columns = draws.flatten(2) if draws.dim() > 2 else draws.unsqueeze(-1)
    size = max(1, BLOCK_NUMBERS // columns[..., 0].numel())
    blocks = [diagnostics({"block": block})["block"] for block in columns.split(size, dim=-1)]
    return {name: torch.cat([block[name] for block in blocks]).reshape(draws.shape[2:]) for name in blocks[0]}
