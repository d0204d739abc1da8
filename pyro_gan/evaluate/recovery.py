"""Whether outputs recover the real data's distribution of scores, as a sampler's should."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ScoreDistance", "score_distance"]


class ScoreDistance(NamedTuple):
    """How far apart the score distributions of two sets lie."""

    #: Kolmogorov-Smirnov statistic: the largest difference of the two distribution functions, 0 to 1.
    ks: float
    #: Its p-value under one law, for independent scores (asymptotic; too large where scores tie).
    p_value: float
    #: Wasserstein-1 distance in the scores' unit, nats for log ratios.
    wasserstein: float


def score_distance(outputs: Float[Tensor, " draw_a"], real: Float[Tensor, " draw_b"]) -> ScoreDistance:
    r"""Compare the distribution of a critic's scores over outputs with that over held-out real data.

    .. math:: \mathrm{KS} = \sup_s \lvert F(s) - F_\text{real}(s) \rvert, \qquad
        W_1 = \int \lvert F(s) - F_\text{real}(s) \rvert \, ds

    A sampler that does its work on a right ratio gives outputs the scores of real data. Judge the generator alone and
    the sampler's outputs, and see how much of the gap is closed. It is a necessary condition only: a critic that is
    wrong in the same way about both sets sees no gap, and a sampler that has lost a mode may show none. `plot_scores`
    is its picture.

    Neither figure is 0 for two halves of one set: for n scores each of standard deviation s, KS is about
    1.2 / sqrt(n), and W1 about 1.8 s / sqrt(n) (Gaussian scores). Compare with that, or with two halves of the real
    data.

    Args:
        outputs: Scores of what is judged, log ratios or any other unbounded score, `(draw_a,)`; independent of one
            another for the p-value to hold, so of a chain one draw, and no copies.
        real: Scores, by the same critic, of real data that it was not trained on, `(draw_b,)`.

    Returns:
        The two distances, and the p-value of the first.

    Raises:
        ValueError: if a shape is not `(draw,)`, a set has fewer than 2 scores, or a score is not finite.
        ImportError: without SciPy.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner, J. Hung, E. Frank, Y. Saatci and
        J. Yosinski, 2019, https://arxiv.org/abs/1811.11357

    Example:
        >>> from pyro_gan import toys
        >>> toy = toys.gaussian_shift(auc=0.8)
        >>> real = toy.log_ratio(toy.sample_data(2000))
        >>> before = score_distance(toy.log_ratio(toy.prior.sample((2000,))), real)
        >>> after = score_distance(toy.log_ratio(toy.posterior.sample((2000,))), real)
        >>> after.wasserstein < 0.2 < before.wasserstein
        True
    """
    a, b = (_checked(scores, name) for scores, name in ((outputs, "outputs"), (real, "real")))
    try:
        from scipy.stats import ks_2samp, wasserstein_distance
    except ImportError as error:
        error.add_note("pip install pyro-gan[evaluate]")
        raise
    # Exact p-values of large sets are slow and differ from these in no digit that matters.
    test = ks_2samp(a.numpy(), b.numpy(), method="asymp")
    return ScoreDistance(
        float(test.statistic), float(test.pvalue), float(wasserstein_distance(a.numpy(), b.numpy()))
    )


def _checked(scores: Tensor, name: str) -> Tensor:
    if scores.dim() != 1 or len(scores) < 2:
        raise ValueError(
            f"Expected scores of {name} of shape (draw,), 2 or more; got {tuple(scores.shape)}. One score a row: "
            "flatten a critic's (draw, 1)."
        )
    values = scores.detach().to("cpu", torch.float64)
    num_bad = int((~values.isfinite()).sum())
    if num_bad:
        raise ValueError(
            f"Expected finite scores of {name}; {num_bad} of {len(values)} are not. A saturated critic needs its "
            "logit; NaN is the critic's or the generator's to explain."
        )
    return values
