"""Is a log ratio right? One report on held-out rows: calibration, discrimination, normalisation and tail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from pyro_gan.checks import rows
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.ratio.logistic import fit_logistic

__all__ = ["FrontierPoint", "RatioReport", "Reliability", "diagnose"]

NUM_BINS = 20

#: Largest number of steps to the constant. Most sets take five; halving an interval of twenty decades takes 120.
MAX_STEPS = 200


@final
class Reliability(NamedTuple):
    """Predicted and observed share of real data, in 20 bins of equal mass; in fewer bins if values tie."""

    #: Mean predicted probability of being real, `(bin,)`.
    predicted: Float[Tensor, " bin"]
    #: Share of the rows that is real, `(bin,)`.
    observed: Float[Tensor, " bin"]
    #: Number of rows in the bin, `(bin,)`.
    num_rows: Int[Tensor, " bin"]


@final
@dataclass(frozen=True, eq=False)
class RatioReport:
    """What held-out real and generated rows say about a log ratio. `print` it for a table.

    A probability is that of "real" in the mixture of the given rows: sigma(log r + log(n_real / n_generated)).
    """

    #: Numbers of rows judged.
    n_real: int
    n_generated: int
    #: Sum of label minus probability, divided by its standard deviation for fixed class counts: standard normal for a
    #: calibrated ratio. It does not notice a wrong slope. It is NaN or infinite if log r is constant.
    dawid_z: float
    #: Logistic regression of the label on log r: slope 1 and intercept 0 if calibrated, slope .5 if log r is twice too
    #: large. The slope is infinite if a threshold separates the classes, NaN if log r is constant.
    slope: float
    slope_se: float
    intercept: float
    #: The regression's, without the part that fixed class counts remove (1 / n_real + 1 / n_generated in variance).
    intercept_se: float
    #: Mean squared error of the probability.
    brier: float
    #: Mean negative log likelihood of the label, in nats.
    log_loss: float
    #: Mean gap between predicted and observed share over the bins of `reliability`, weighted by rows. It is positive by
    #: chance alone: see `ece_if_calibrated`.
    ece: float
    #: Probability that a real row scores above a generated one; ties count half.
    auc: float
    #: What to add to log r so that the rows fit best at slope 1, in nats, and its standard error: 0 for a calibrated
    #: ratio. A constant harms no sampler.
    constant: float
    constant_se: float
    #: E_G[r] with this constant added to log r: 1 for the exact ratio and for all that differ from it by a constant.
    #: Its standard error, that of the constant included, does not see a tail without draws.
    mean_ratio: float
    mean_ratio_se: float
    #: What the weights r of the generated rows say about themselves.
    tail: WeightTail
    #: The bins that the ECE is computed from.
    reliability: Reliability

    @property
    def independence_acceptance(self) -> float:
        """Acceptance of an independence sampler in equilibrium, if this ratio is exact: 2 (1 - AUC)."""
        return 2 * (1 - self.auc)

    @property
    def ece_if_calibrated(self) -> float:
        """The ECE that chance alone gives with bins of this size, to first order."""
        predicted, _, count = self.reliability
        return float((count * (2 / math.pi * predicted * (1 - predicted) / count).sqrt()).sum() / count.sum())

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the table, each row as name, value, and what the value should be."""
        share = self.n_real / (self.n_real + self.n_generated)
        constant = -share * math.log(share) - (1 - share) * math.log1p(-share)
        tail = self.tail
        return [
            ("Dawid Z", f"{self.dawid_z:.2f}", "within +-2; does not see the slope"),
            ("slope", f"{self.slope:.4f} +- {self.slope_se:.4f}", "1; larger if log r is too small"),
            ("intercept", f"{self.intercept:.4f} +- {self.intercept_se:.4f}", "0"),
            ("Brier score", f"{self.brier:.4f}", f"lower is better; a constant guess scores {share * (1 - share):.4f}"),
            ("log loss", f"{self.log_loss:.4f}", f"lower is better; a constant guess scores {constant:.4f}"),
            ("ECE", f"{self.ece:.4f}", f"about {self.ece_if_calibrated:.4f} by chance alone"),
            ("AUC", f"{self.auc:.4f}", "above .5; near 1 the classes do not overlap"),
            ("acceptance 2(1 - AUC)", f"{self.independence_acceptance:.4f}", "of an independence sampler"),
            ("constant", f"{self.constant:.4f} +- {self.constant_se:.4f}", "0; harms no sampler"),
            ("E_G[r]", f"{self.mean_ratio:.4f} +- {self.mean_ratio_se:.4f}", "1, with the constant removed"),
            ("ESS fraction", f"{tail.ess_fraction:.4f}", "above .01"),
            ("largest weight share", f"{tail.largest_weight_share:.5f}", "below .001 (1e5 rows or more)"),
            ("Pareto k", f"{tail.pareto_k:.2f}", "below .7, if the largest weight is 10 times the mean"),
        ]

    def __str__(self) -> str:
        lines = [f"{name:<22} {value:>20}   {target}" for name, value, target in self.rows()]
        head = f"{self.n_real} real and {self.n_generated} generated rows"
        return "\n".join([head, f"{'figure':<22} {'value':>20}   should be", *lines])


@final
class FrontierPoint(NamedTuple):
    """One evaluation of a critic in training: the better the critic, the less overlap is left to sample from."""

    #: Number of training steps done.
    step: int
    #: Held-out log loss in nats, where each class weighs one half; a constant guess scores log 2.
    log_loss: float
    #: Probability that a held-out real row scores above a generated one.
    auc: float
    #: Effective share of the generated draws under the weights r.
    ess_fraction: float


def diagnose(log_ratio_real: Float[Tensor, " real"], log_ratio_generated: Float[Tensor, " generated"]) -> RatioReport:
    r"""Judge log ratios on rows that trained neither the critic nor its calibration.

    The sampler's target is p_G(x) r(x), so errors of r are errors of the target. A constant error of log r cancels in
    every sampler, a wrong slope does not. Dawid's Z notices the constant and not the slope: read the slope first, then
    the tail.

    Dawid divides the sum of label minus probability by :math:`(\sum p (1 - p))^{1/2}`, the error of labels that are
    drawn. Here the numbers of rows are fixed and the sum varies less: for a calibrated ratio, and a share
    :math:`\pi` of real rows, by :math:`1 - E_G[p] / \pi` times that variance. Z is divided by the right error, taken
    from the variances of p within each class.

    Args:
        log_ratio_real: Log ratios of real rows, `(real,)`, in nats, finite.
        log_ratio_generated: Log ratios of generated rows, `(generated,)`.

    Returns:
        The report, computed in float64.

    Raises:
        ValueError: if a class is empty, a shape is wrong, or a value is NaN, infinite or no float.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner et al., 2019, https://arxiv.org/abs/1811.11357;
        Prequential Analysis, A. P. Dawid, 1997, Encyclopedia of Statistical Sciences;
        Two further applications of a model for binary regression, D. R. Cox, 1958,
        https://doi.org/10.1093/biomet/45.3-4.562;
        Logistic disease incidence models and case-control studies, R. L. Prentice and R. Pyke, 1979,
        https://doi.org/10.1093/biomet/66.3.403

    Example:
        >>> x = torch.linspace(-3, 3, 2001)
        >>> report = diagnose(2 * x[x > -1], 2 * x[x < 1])
        >>> report.auc > 0.8
        True
    """
    real, generated = _checked(log_ratio_real, "real"), _checked(log_ratio_generated, "generated")
    offset = math.log(len(real) / len(generated))
    value = torch.cat([real, generated])
    label = torch.cat([torch.ones_like(real), torch.zeros_like(generated)])
    logit = value + offset
    # Where 1 - p rounds to 0, sigma(-f) for real rows and -sigma(f) for generated ones keep their digits.
    residual = torch.where(label > 0, torch.sigmoid(-logit), -torch.sigmoid(logit))
    slope, slope_se, intercept, intercept_se = _regression(real, generated, value, label, offset)
    reliability = _reliability(torch.sigmoid(logit), label)
    tail = weight_tail(generated)
    constant, constant_se, mean_ratio, mean_ratio_se = _constant_and_mean(real, generated, offset)
    return RatioReport(
        n_real=len(real),
        n_generated=len(generated),
        dawid_z=_dawid_z(residual[: len(real)], residual[len(real) :]),
        slope=slope,
        slope_se=slope_se,
        intercept=intercept,
        intercept_se=intercept_se,
        brier=float(residual.square().mean()),
        log_loss=float(softplus(torch.where(label > 0, -logit, logit)).mean()),
        ece=float((reliability.num_rows * (reliability.predicted - reliability.observed).abs()).sum() / len(value)),
        auc=area_under_curve(real, generated),
        constant=constant,
        constant_se=constant_se,
        mean_ratio=mean_ratio,
        mean_ratio_se=mean_ratio_se,
        tail=tail,
        reliability=reliability,
    )


def _checked(log_ratio: Tensor, name: str) -> Tensor:
    cure = "A saturated sigmoid gives infinite log ratios: see LogRatio.from_probability."
    values = rows(f"log ratios of {name} rows", log_ratio, event_shape=(), cure=cure)
    return values.detach().to("cpu", torch.float64)


def _regression(
    real: Tensor, generated: Tensor, value: Tensor, label: Tensor, offset: float
) -> tuple[float, float, float, float]:
    above, below = real.min() >= generated.max(), real.max() <= generated.min()
    if above != below:  # the likelihood has no maximum; if both hold, all values are equal
        return (math.inf if above else -math.inf), math.inf, math.nan, math.inf
    fit = fit_logistic(value, label, offset=offset)
    # Class counts are fixed by design, so they add nothing to the intercept's variance (Prentice and Pyke).
    by_design = 1 / len(real) + 1 / len(generated)
    slope_variance, intercept_variance = fit.covariance.diagonal().tolist()
    return (
        fit.slope,
        # For values that span twenty decades the information matrix is singular in double precision.
        math.sqrt(slope_variance) if slope_variance >= 0 else math.inf,
        fit.intercept,
        math.sqrt(max(intercept_variance - by_design, 0)),
    )


def _sum_variance(real: Tensor, generated: Tensor) -> Tensor:
    """Return the variance of the sum of one term a row, with as many rows of each class as there are."""
    return len(real) * real.var(correction=0) + len(generated) * generated.var(correction=0)


def _dawid_z(real: Tensor, generated: Tensor) -> float:
    total, number = float(real.sum() + generated.sum()), len(real) + len(generated)
    variance = float(_sum_variance(real, generated))
    if variance > 1e-24 * number:
        return total / math.sqrt(variance)
    # A constant: what its variance and its sum are beyond zero may be rounding.
    return math.nan if abs(total) < 1e-9 * number else math.copysign(math.inf, total)


def _constant_and_mean(real: Tensor, generated: Tensor, offset: float) -> tuple[float, float, float, float]:
    """Return the constant of highest likelihood at slope 1, the mean ratio with it, and the errors of both."""
    value = torch.cat([real, generated])
    # At these ends the expected number of real rows is too small, or too large.
    low, high = -float(value.max()), -float(value.min())
    constant = min(max(0.0, low), high)
    for _ in range(MAX_STEPS):
        logit = value + (offset + constant)
        p = torch.sigmoid(logit)
        # Where p rounds to 1, sigma(f) sigma(-f) keeps its digits and p (1 - p) does not.
        slope = (p * torch.sigmoid(-logit)).sum()
        excess = float(p.sum()) - len(real)
        low, high = (low, constant) if excess > 0 else (constant, high)
        if abs(excess) < 1e-9 * len(value):
            break
        newton = constant - excess / float(slope) if slope > 0 else math.inf
        # A step that leaves the interval is replaced by a halving.
        constant = newton if low < newton < high else (low + high) / 2
    p_real, p_generated = p.tensor_split([len(real)])
    # How much each row moves the constant, and the logarithm of the mean.
    of_real, of_generated = -p_real / slope, -p_generated / slope
    share = generated.softmax(0)
    mean = _exp(float(generated.logsumexp(0)) - math.log(len(generated)) + constant)
    mean_se = mean * float(_sum_variance(of_real, of_generated + share).sqrt())
    return constant, float(_sum_variance(of_real, of_generated).sqrt()), mean, mean_se


def _reliability(probability: Tensor, label: Tensor) -> Reliability:
    ordered = probability.sort().values
    # Edges are values, so that ties share a bin: a split by rank would separate them by their order in the input.
    edges = ordered[(torch.arange(1, NUM_BINS) * len(ordered)) // NUM_BINS].unique()
    index = torch.bucketize(probability, edges, right=True)
    count = torch.bincount(index, minlength=NUM_BINS)
    total = [torch.bincount(index, weights=values, minlength=NUM_BINS) for values in (probability, label)]
    kept = count > 0
    predicted, observed = ((values / count)[kept] for values in total)
    return Reliability(predicted, observed, count[kept])


def area_under_curve(real: Float[Tensor, " real"], generated: Float[Tensor, " generated"]) -> float:
    """Return the probability that a real row scores above a generated one; ties count half."""
    ordered = generated.sort().values
    wins = torch.searchsorted(ordered, real) + torch.searchsorted(ordered, real, right=True)
    return float(wins.double().mean()) / (2 * len(generated))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
