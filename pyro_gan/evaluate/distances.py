"""Distances without a standard error: between Gaussians fitted to features, and between distributions of scores."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import extra, rows, tensor
from pyro_gan.evaluate._rows import LARGEST, two_sets
from pyro_gan.evaluate.metric import Metric, Outputs, Real

__all__ = ["ScoreDistance", "frechet_distance", "score_distance"]


@final
class ScoreDistance(NamedTuple):
    """Two distances between the score distributions of two sets."""

    #: Kolmogorov-Smirnov statistic: the largest difference of the two distribution functions, 0 to 1.
    ks: float
    #: Its p-value for equal distributions and independent scores (asymptotic; too large where scores tie).
    p_value: float
    #: Wasserstein-1 distance in the scores' unit, nats for log ratios.
    wasserstein: float


@Metric()
def frechet_distance(outputs: Outputs, real: Real) -> float:
    r"""Return the squared Wasserstein-2 distance between Gaussians fitted to two sets of features.

    .. math:: d = \lVert m_a - m_b \rVert^2 + \operatorname{tr}\bigl( C_a + C_b
        - 2\, (C_a^{1/2} C_b C_a^{1/2})^{1/2} \bigr)

    With Inception features it is the FID; with other features it compares only with itself (`extract_features` makes
    features of images). It is biased upwards, by an amount that falls as 1 / n: compare sets of equal size. It is
    computed in float64; the root of the product comes from the eigenvalues of its symmetric form, so no complex number
    arises.

    Args:
        outputs: Features of the samples to judge, `(draw_a, feature)`; further dimensions are flattened.
        real: Features of held-out data, `(draw_b, feature)`.

    Returns:
        The distance, 0 or above, in the features' squared units.

    Raises:
        ValueError: if shapes disagree, a set has no more rows than features, or an entry is not finite.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, M. Heusel, H. Ramsauer,
        T. Unterthiner, B. Nessler and S. Hochreiter, 2017, https://arxiv.org/abs/1706.08500

    Example:
        >>> x = torch.randn(500, 3)
        >>> round(frechet_distance(x, x + 2.0), 6)
        12.0
    """
    x, y = two_sets(outputs, real)
    mean_a, covariance_a = _moments(x, "outputs")
    mean_b, covariance_b = _moments(y.to(x.device), "real")
    values, vectors = torch.linalg.eigh(covariance_a)
    # Rounding can leave a null direction a hair below 0.
    root_a = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = torch.linalg.eigvalsh(root_a @ covariance_b @ root_a)
    trace = covariance_a.trace() + covariance_b.trace() - 2 * product.clamp(min=0).sqrt().sum()
    return max(float((mean_a - mean_b).square().sum() + trace), 0.0)


@Metric(figure="wasserstein", error=None)
def score_distance(outputs: Float[Tensor, " draw_a"], real: Float[Tensor, " draw_b"]) -> ScoreDistance:
    r"""Compare the distribution of a critic's scores over outputs with that over held-out real data.

    .. math:: \mathrm{KS} = \sup_s \lvert F(s) - F_\text{real}(s) \rvert, \qquad
        W_1 = \int \lvert F(s) - F_\text{real}(s) \rvert \, ds

    A sampler that works, on a correct ratio, gives outputs the scores of real data. Judge the generator alone and the
    sampler's outputs, and see how much of the gap is closed. The condition is only necessary: a critic that is wrong in
    the same way about both sets sees no gap, and a sampler that has lost a mode may show no gap. `plot_scores` draws
    the two distributions.

    Neither distance is 0 for two halves of one set: for n Gaussian scores each, of standard deviation s, KS is about
    1.2 / sqrt(n) and W1 about 1.8 s / sqrt(n). Compare with that, or with two halves of the real data.

    Args:
        outputs: Scores of the outputs to judge, log ratios or any other unbounded score, `(draw_a,)`. The p-value holds
            for independent scores: take one draw of a chain, and no copies.
        real: Scores of real data, `(draw_b,)`, by the same critic, which was not trained on them.

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
    a, b = (_checked(scores, name).numpy() for scores, name in ((outputs, "outputs"), (real, "real")))
    with extra("evaluate"):
        from scipy.stats import ks_2samp, wasserstein_distance
    # Exact p-values of large sets are slow and differ from these in no digit that matters.
    test = ks_2samp(a, b, method="asymp")
    return ScoreDistance(float(test.statistic), float(test.pvalue), float(wasserstein_distance(a, b)))


def _moments(features: Float[Tensor, "draw feature"], name: str) -> tuple[Tensor, Tensor]:
    features = features.double()
    num_draws, num_features = features.shape
    if num_draws <= num_features:
        raise ValueError(
            f"Expected more rows than features in {name}, or its covariance is singular; got {num_draws} rows of "
            f"{num_features}. Pass more samples or fewer features."
        )
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (num_draws - 1)


def _checked(scores: Tensor, name: str) -> Tensor:
    values = tensor(f"scores of {name}", scores).detach().cpu()
    # A cast would drop the imaginary part and say nothing.
    values = values if values.is_complex() else values.double()
    cure = "Pass one finite score a row: flatten a critic's (draw, 1), and take the logit of a saturated critic."
    return rows(f"scores of {name}", values, minimum=2, event_shape=(), largest=LARGEST, cure=cure)
