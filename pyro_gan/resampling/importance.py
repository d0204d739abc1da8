"""Sample a target without a chain: importance resampling of prior draws."""

from __future__ import annotations

from typing import Any, NamedTuple, final

from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan.importance import WeightTail, smooth, systematic, weight_tail
from pyro_gan.resampling.draws import Draws, joined, score
from pyro_gan.resampling.partial import Partial, keeping, scored
from pyro_gan.targets import WeightedTarget, make_weighted_target

__all__ = ["ImportanceResampler", "Resamples", "ResamplingReport"]


@final
class ResamplingReport(NamedTuple):
    """What a resampling cost, and how good it is.

    Attributes:
        num_draws: Number of prior draws scored; each is one forward pass.
        num_outputs: Number of outputs resampled from them.
        distinct: Number of different prior draws among the outputs.
        tail: Effective sample size, largest share, Pareto k and log normaliser of the weights before smoothing.
    """

    num_draws: int
    num_outputs: int
    distinct: int
    tail: WeightTail


@final
class Resamples(NamedTuple):
    """Outputs of an `ImportanceResampler`.

    Attributes:
        samples: Constrained latents by site, `(output, *event)`.
        log_ratio: Log weight of each output, `(output,)`, nats; `log r(G(z)) / T` for a latent posterior.
        report: Cost and quality.
    """

    samples: dict[str, Tensor]
    log_ratio: Float[Tensor, " output"]
    report: ResamplingReport


@final
class ImportanceResampler:
    """Draw from the prior, weigh by the ratio, and resample: no chain, no warmup, and no mode to get stuck in.

    This is the baseline that a chain must beat at equal cost. With many draws it gives the truth that chains are
    compared with. The weights are Pareto-smoothed and resampling is systematic: a draw is copied `num_outputs` times
    its share of the weight, rounded up or down, and exactly that share on average.

    Args:
        posterior: A `LatentPosterior`, or any other Pyro model, whose observations and factors are then the weight.
        min_ess: Smallest effective sample size to resample from; with fewer effective draws a call raises.

    Attributes:
        partial: If an exception has ended the last call, the prior draws that were scored, a `Partial`; None otherwise.

    Raises:
        ValueError: if `min_ess` is below 1, or the posterior is no model.

    References:
        Pareto Smoothed Importance Sampling, Vehtari et al., 2024, https://arxiv.org/abs/1507.02646;
        Sampling-importance resampling, Rubin, 1988.

    Example:
        >>> from pyro_gan import LatentPosterior, toys
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> resampler = ImportanceResampler(LatentPosterior(toy.generator, toy.log_ratio, toy.prior))
        >>> resampler(num_outputs=100, num_draws=10_000).samples["z"].shape
        torch.Size([100, 1])
    """

    def __init__(self, posterior: Any, *, min_ess: float = 100.0) -> None:
        cure = "Pass a Pyro model, such as LatentPosterior."
        self.posterior: Any = checks.function("posterior", posterior, cure=cure)
        self.min_ess = checks.real("min_ess", min_ess, minimum=1)
        self.partial: Partial | None = None

    def __call__(self, num_outputs: int, num_draws: int, *args: Any, **context: Any) -> Resamples:
        """Resample outputs from scored prior draws.

        Args:
            num_outputs: Number of outputs wanted.
            num_draws: Number of prior draws to score. Outputs beyond the effective sample size are mostly copies.
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Returns:
            Latents in random order, their log weights, and a report.

        Warns:
            UserWarning: if weights are NaN or plus infinity; they count as zero.

        Raises:
            ValueError: if the model is unfit, a number is not positive, all weights are zero, or the effective sample
                size is below `min_ess`.
        """
        num_outputs = checks.count("num_outputs", num_outputs)
        num_draws = checks.count("num_draws", num_draws)
        target = make_weighted_target(self.posterior, args, context)
        blocks: list[Draws] = []
        with keeping(self, lambda: scored(target, blocks)):
            for block in score(target, num_draws):
                blocks.append(block)
            return self._resample(target, blocks, num_outputs)

    def _resample(self, target: WeightedTarget, blocks: list[Draws], num_outputs: int) -> Resamples:
        z, log_weight = joined(blocks)
        num_draws, tail = len(z), weight_tail(log_weight)
        if tail.ess < self.min_ess:
            raise ValueError(
                f"Expected at least {self.min_ess:g} effective draws; got {tail.ess:.1f} of {num_draws} (largest share "
                f"{tail.largest_weight_share:.2g}, Pareto k {tail.pareto_k:.2f}). Draw more, or cap or flatten the "
                "ratio. With a smaller min_ess the outputs are copies of a few draws."
            )
        chosen = systematic(smooth(log_weight)[0], num_outputs)
        report = ResamplingReport(num_draws, num_outputs, int(chosen.unique().numel()), tail)
        return Resamples(target.constrained(z[chosen]), log_weight[chosen], report)
