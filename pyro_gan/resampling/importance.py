"""Sample a target without a chain: importance resampling of prior draws."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.importance import WeightTail, smooth, systematic, weight_tail
from pyro_gan.targets import make_target

__all__ = ["ImportanceResampler", "ResamplingReport", "Resamples"]

#: Prior draws that are drawn, scored and dropped from memory but for latent and weight at a time.
BLOCK_DRAWS = 100_000


class ResamplingReport(NamedTuple):
    """What a resampling cost and what it is worth.

    Attributes:
        num_draws: Prior draws scored, each one forward pass.
        num_outputs: Outputs resampled from them.
        distinct: Different prior draws among the outputs.
        tail: Effective sample size, largest share, Pareto k and log normaliser of the weights before smoothing.
    """

    num_draws: int
    num_outputs: int
    distinct: int
    tail: WeightTail


class Resamples(NamedTuple):
    """Outputs of an `ImportanceResampler`.

    Attributes:
        samples: Constrained latents by site, `(output, *event)`.
        log_ratio: Log weight of each output, `(output,)`, nats; `log r(G(z)) / T` for a latent posterior.
        report: Cost and worth.
    """

    samples: dict[str, Tensor]
    log_ratio: Float[Tensor, " output"]
    report: ResamplingReport


class ImportanceResampler:
    """Draws from the prior, weighs by the ratio, resamples: no chain, no warmup, no mode to be stuck in.

    The baseline that a chain must beat at equal cost, and with many draws the truth that chains are compared with.
    Weights are Pareto-smoothed and resampling is systematic: a draw is copied `num_outputs` times its share of the
    weight, rounded up or down, and on average exactly that.

    Args:
        posterior: A `LatentPosterior`, or any other Pyro model, whose observations and factors are then the weight.
        min_ess: Refuse to resample from fewer effective draws than this.

    Raises:
        ValueError: if `min_ess` is under 1.

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
        if not callable(posterior):
            raise ValueError(f"Expected a Pyro model, such as LatentPosterior; got {posterior!r}.")
        if not min_ess >= 1:  # NaN would refuse nothing
            raise ValueError(f"Expected min_ess of at least 1; got {min_ess}.")
        self.posterior = posterior
        self.min_ess = min_ess

    def __call__(self, num_outputs: int, num_draws: int, *args: Any, **context: Any) -> Resamples:
        """Resample outputs from scored prior draws.

        Args:
            num_outputs: Outputs wanted.
            num_draws: Prior draws to score. Outputs beyond the effective sample size are mostly copies.
            *args: The model's arguments.
            **context: The model's keyword arguments.

        Returns:
            Latents in random order, their log weights, and a report.

        Raises:
            ValueError: if the model is unfit, a number is not positive, a weight is NaN or infinite, or the effective
                sample size is under `min_ess`.
        """
        for name, value in (("num_outputs", num_outputs), ("num_draws", num_draws)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1; got {value}.")
        target = make_target(self.posterior, None, prototype=None, batched=True, context=context, args=args)
        latents, weights = [], []
        for start in range(0, num_draws, BLOCK_DRAWS):
            block = target.sample_prior(min(BLOCK_DRAWS, num_draws - start))
            latents.append(block)
            weights.append(target.log_weight(block))
        z, log_weight = torch.cat(latents), torch.cat(weights)
        tail = weight_tail(log_weight)
        if tail.ess < self.min_ess:
            raise ValueError(
                f"Expected at least {self.min_ess:g} effective draws; got {tail.ess:.1f} of {num_draws} (largest share "
                f"{tail.largest_weight_share:.2g}, Pareto k {tail.pareto_k:.2f}). Draw more, cap or flatten the ratio, "
                "or lower min_ess knowing that the outputs are copies of few."
            )
        chosen = systematic(smooth(log_weight)[0], num_outputs)
        samples = {
            name: target.transforms[name].inv(value) if name in target.transforms else value
            for name, value in target.unpack(z[chosen]).items()
        }
        report = ResamplingReport(num_draws, num_outputs, int(chosen.unique().numel()), tail)
        return Resamples(samples, log_weight[chosen], report)
