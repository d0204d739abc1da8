"""Draws from a latent posterior's prior, scores them, and puts them beside real rows: the work behind `check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._networks import by_chunk
from pyro_gan.importance import weight_tail
from pyro_gan.latent.prior import LatentPrior
from pyro_gan.latent.report import PosteriorReport
from pyro_gan.ratio.features import RandomFeatures
from pyro_gan.ratio.heads import look_like_probabilities
from pyro_gan.ratio.mean_ratio import judge_mean_ratio
from pyro_gan.ratio.moments import moment_change

__all__ = ["examine"]

#: Fewest real rows whose moments say something.
MIN_REAL = 100


def examine(
    latents: LatentPrior,
    score: Callable[[Tensor], Float[Tensor, " row"]],
    replicates: Sequence[Callable[[Tensor], Float[Tensor, " row"]]],
    real: Tensor | None,
    features: Callable[[Tensor], Tensor] | None,
    *,
    num_draws: int,
    temperature: float,
    is_normalised: bool,
    seed: int,
    context: dict[str, Tensor],
) -> PosteriorReport:
    """Return the report on a posterior; the arguments are those of `LatentPosterior.check`.

    Args:
        latents: The generator and the prior.
        score: Data `(row, *event)` to log ratios at temperature 1.
        replicates: The same from fits without a part of the data each; empty if there are none.
        real: Real rows, or None.
        features: Data to columns, or None for `RandomFeatures`.
        num_draws: Prior draws to score.
        temperature: T of the posterior.
        is_normalised: Whether the log ratio claims to have no constant error.
        seed: Of the features and the bootstrap.
        context: Keywords of a conditional generator.
    """
    z = latents.prior.sample(torch.Size([num_draws]))
    num_scores = 1 + len(replicates)

    def scores(x: Tensor) -> Tensor:
        return torch.stack([_double(each(x)) for each in (score, *replicates)], dim=1)

    of_real = moments = None
    if real is None:
        generated = latents.evaluate(z, scores, **context)
    else:
        _check_real(real, latents.generate(z[:1], **context))
        columns = checks.function("features", RandomFeatures(real, seed=seed) if features is None else features)

        def both(x: Tensor) -> Tensor:
            # In one pass, so that no more than a chunk of generated data is ever held.
            return torch.cat([scores(x), _columns(columns(x), len(x))], dim=1)

        generated = latents.evaluate(z, both, **context)
        of_real = by_chunk(lambda x: _double(score(x)), real, latents.chunk_size)
        of_features = by_chunk(lambda x: _columns(columns(x), len(x)), real, latents.chunk_size)
    log_ratio, others = generated[:, 0], generated[:, 1:num_scores].T / temperature
    weights, spread = log_ratio / temperature, others if replicates else None
    if real is not None:
        moments = moment_change(of_features, generated[:, num_scores:], weights, replicates=spread, seed=seed)
    return PosteriorReport(
        temperature=temperature,
        tail=weight_tail(weights, replicates=spread),
        mean_ratio=judge_mean_ratio(log_ratio, of_real, is_normalised=is_normalised),
        moments=moments,
        is_probability=look_like_probabilities(log_ratio),
    )


def _check_real(real: Any, like: Tensor) -> None:
    """Raise unless real rows look like a generated one."""
    event = tuple(like.shape[1:])
    cure = "Reshape and scale them as the generator's output is."
    checks.rows("real data", real, minimum=MIN_REAL, event_shape=event, cure=cure)
    if real.dtype != like.dtype or real.device != like.device:
        raise ValueError(
            f"Expected real data of the generator's dtype and device, {like.dtype} on {like.device}; got {real.dtype} "
            f"on {real.device}. Move the data with .to(...)."
        )


def _columns(value: Any, num_rows: int) -> Tensor:
    cure = "Features map rows to columns; flatten what has more dimensions."
    return _double(checks.shaped("features", value, (num_rows, "feature"), cure=cure))


def _double(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64)
