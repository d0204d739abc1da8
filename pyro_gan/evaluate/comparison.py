"""Are samples better, worse, or not to be told apart after a change? Nine judges, their errors, and one verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pyro_gan.checks import extra, function, tensor
from pyro_gan.evaluate._contrast import Witness, contrasts
from pyro_gan.evaluate._critic import critic_witnesses
from pyro_gan.evaluate._neighbours import neighbour_witnesses
from pyro_gan.evaluate._rows import as_rows, seeded
from pyro_gan.evaluate._sides import Sides, make_sides
from pyro_gan.evaluate._witnesses import balance_witness, frechet_witness, kernel_witness
from pyro_gan.evaluate.features import extract_features
from pyro_gan.ratio import RandomFeatures

__all__ = ["Comparison", "Judgement", "compare"]

_MIN_ROWS = 100
_NUM_NEIGHBOURS = 5
_NUM_CLUSTERS = 20
# More rows say little more about 20 clusters.
_MAX_CLUSTERED = 10_000
# Probability that any judge finds a difference where there is none.
_LEVEL = 0.05

Verdict = Literal["better", "worse", "no difference", "mixed"]


@final
class Judgement(NamedTuple):
    """What one judge says about two sets of outputs."""

    #: The figure of before.
    before: float
    #: The figure of after.
    after: float
    #: After minus before, without the part that comes from an unequal effective number of rows.
    difference: float
    #: Standard error of the difference, over repeated blocks of both sides and repeated real rows.
    standard_error: float
    #: Probability of such a difference where there is none, two-sided, with all judges counted (Holm).
    p_value: float
    #: "better", "worse", or "no difference": none that so many rows can show.
    verdict: Verdict


@final
class Comparison(NamedTuple):
    """Two sets of outputs, compared with real data by nine judges; `print` shows a table."""

    #: Squared Wasserstein-2 distance of Gaussians; less is better.
    frechet_distance: Judgement
    #: Unbiased squared MMD with the cubic polynomial kernel; less is better.
    kernel_distance: Judgement
    #: Held-out accuracy of a classifier of outputs and real rows; less is better.
    c2st: Judgement
    #: Its held-out AUC; less is better.
    residual_auc: Judgement
    #: Share of outputs near real rows; more is better.
    precision: Judgement
    #: Share of real rows near outputs; more is better.
    recall: Judgement
    #: Mean number of real balls around an output, divided by the number of neighbours; more is better.
    density: Judgement
    #: Share of real balls that hold an output; more is better.
    coverage: Judgement
    #: Total variation distance of the shares of classes, or of clusters of the real rows; less is better.
    balance: Judgement
    #: "better" or "worse" if some judge says so and none the contrary, "mixed" if judges disagree, or "no difference".
    verdict: Verdict
    #: Rows compared, of each side.
    num_rows: int
    #: Real rows.
    num_real: int
    #: Independent blocks of before and of after.
    num_blocks: tuple[int, int]
    #: Copies in before and in after: rows that equal an earlier row.
    num_copies: tuple[int, int]

    def __str__(self) -> str:
        """Return a table: one line a judge, and the verdict."""
        sides = zip(("before", "after"), self.num_blocks, self.num_copies, strict=True)
        lines = [f"{name}: {self.num_rows} rows in {b} blocks, {c} copies" for name, b, c in sides]
        lines.append(f"real: {self.num_real} rows")
        lines.append(f"{'':18}{'before':>11}{'after':>11}{'difference':>12} +- {'error':<9}")
        for name in _JUDGES:
            one: Judgement = getattr(self, name)
            figures = f"{one.before:11.4g}{one.after:11.4g}{one.difference:12.3g} +- {one.standard_error:<9.2g}"
            lines.append(f"{name.replace('_', ' '):18}{figures}{one.verdict}")
        no_more = f" that {self.num_rows} rows can show" if self.verdict == "no difference" else ""
        return "\n".join([*lines, f"verdict: {self.verdict}{no_more}"])


#: The judges, in the order of the record, and the sign of a figure that grows as samples get better.
_JUDGES = {
    "frechet_distance": -1,
    "kernel_distance": -1,
    "c2st": -1,
    "residual_auc": -1,
    "precision": 1,
    "recall": 1,
    "density": 1,
    "coverage": 1,
    "balance": -1,
}


def compare(
    before: Float[Tensor, "before *event"],
    after: Float[Tensor, "after *event"],
    real: Float[Tensor, "real *event"],
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    classes: Callable[[Tensor], Int[Tensor, " row"]] | None = None,
    blocks_before: Int[Tensor, " before"] | None = None,
    blocks_after: Int[Tensor, " after"] | None = None,
    classifier: Any = None,
    seed: int = 0,
) -> Comparison:
    r"""Compare outputs before and after a change with real data.

    Nine judges look at the features of all rows. A figure J, such as the Frechet distance, is computed of before and of
    after, with equally many rows. Figures are biased by few effective rows: correlated chains or copies look worse than
    independent rows of the same distribution. So the difference is not that of the two figures. It is

    .. math:: \operatorname{mean}_\text{after} h - \operatorname{mean}_\text{before} h,

    where h is the mean slope of J between the two, estimated on one half of the blocks and used on the other, and
    vice versa. It is 0 on average where both sides have one distribution, whatever the blocks are, and agrees with the
    difference of the figures for many independent rows.

    A block is a set of rows that depend on each other, and blocks are independent: chains, the families of SMC, copies
    of one draw. The error counts whole blocks of both sides, and real rows. The p-values are Student's with Holm's
    correction: if both sides have one distribution, any judge says "better" or "worse" in at most 5 % of comparisons
    (measured: 0 to 2 %, with independent rows, chains of autocorrelation time 50, and copies). "No difference" is no
    proof: the error says how large a difference could hide.

    The critic of `c2st` and `residual_auc` is one for both sides, trained on their mixture, so their figures are those
    of `c2st` and `residual_auc` only if the sides are alike. Precision and density are those of the papers; coverage
    and recall are of half of the rows, and recall has the reach of outputs of both sides. 10 000 rows a side, 5000 real
    rows and 84 features take half a minute.

    Args:
        before: Outputs, `(before, *event)`. The larger side is cut at random, by whole blocks.
        after: Outputs after the change, `(after, *event)`.
        real: Independent real rows, `(real, *event)`, which trained and chose nothing.
        features: Maps rows `(row, *event)` to `(row, feature)`, as in `extract_features`; chosen before you see these
            rows. If None, `RandomFeatures` of the real rows.
        classes: Maps rows to the whole number of their class, `(row,)`, for `balance`. If None, k-means clusters of the
            real rows' features.
        blocks_before: Number of each row's block, `(before,)`. If None, equal rows make a block, also across the two
            sides: right for independent draws and for resamplers.
        blocks_after: Likewise of after, `(after,)`; for chains
            `torch.arange(num_chains).repeat_interleave(num_draws)`.
        classifier: An unfitted scikit-learn classifier for `c2st` and `residual_auc`; it gets the features. If None,
            the network of `residual_auc`.
        seed: Of the cut, the two halves, the default features, clusters and classifier; no global generator is moved.

    Returns:
        The judgements and the verdict.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, a set has fewer than 100 rows, or a side has blocks that
            are worth fewer than 8 of equal size.
        ImportError: without scikit-learn or SciPy.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models, T. Kynkaanniemi, T. Karras, S. Laine,
        J. Lehtinen and T. Aila, 2019, https://arxiv.org/abs/1904.06991

        Reliable Fidelity and Diversity Metrics for Generative Models, M. Naeem, S. Oh, Y. Uh, Y. Choi and J. Yoo, 2020,
        https://arxiv.org/abs/2002.09797

        Demystifying MMD GANs, M. Binkowski, D. Sutherland, M. Arbel and A. Gretton, 2018,
        https://arxiv.org/abs/1801.01401

    Example:
        >>> real = torch.randn(400, 2)
        >>> comparison = compare(torch.randn(400, 2) + 1.0, torch.randn(400, 2), real)
        >>> comparison.verdict, comparison.frechet_distance.verdict
        ('better', 'better')
    """
    y = as_rows(real, "real", minimum=_MIN_ROWS)
    named = zip(("before", "after"), (before, after), strict=True)
    flat = [as_rows(side, name, minimum=_MIN_ROWS, event_shape=tuple(real.shape[1:])) for name, side in named]
    seeded(seed)
    sides = make_sides(flat[0], flat[1], len(y), blocks_before=blocks_before, blocks_after=blocks_after, seed=seed)
    chosen = [torch.from_numpy(rows) for rows in sides.kept]
    kept = [before[chosen[0].to(before.device)], after[chosen[1].to(after.device)]]
    if features is None:
        features = RandomFeatures(real, num_clusters=_NUM_CLUSTERS, seed=seed)
    tables = [extract_features(side, features).to("cpu", torch.float64) for side in (*kept, real)]
    x, y = torch.cat(tables[:2]), tables[2]
    if classes is None:
        labels = _clusters(x, y, seed)
    else:
        function("classes", classes)
        labels = [_classes(classes, side) for side in (*kept, real)]
        labels = [np.concatenate(labels[:2]), labels[2]]
    witnesses = {
        "frechet_distance": frechet_witness(x, y, sides),
        "kernel_distance": kernel_witness(x, y, sides),
        **critic_witnesses(x.numpy(), y.numpy(), sides, classifier=classifier, seed=seed),
        **neighbour_witnesses(x, y, sides, num_neighbours=_NUM_NEIGHBOURS),
        "balance": balance_witness(labels[0], labels[1], sides),
    }
    judgements = _judge(witnesses, sides)
    found = {one.verdict for one in judgements.values()} - {"no difference"}
    verdict: Verdict = "mixed" if len(found) == 2 else found.pop() if found else "no difference"
    blocks = [len(np.unique(sides.block[sides.is_after == side])) for side in (False, True)]
    return Comparison(
        **judgements,
        verdict=verdict,
        num_rows=len(x) // 2,
        num_real=len(y),
        num_blocks=(blocks[0], blocks[1]),
        num_copies=sides.copies,
    )


def _judge(witnesses: dict[str, Witness], sides: Sides) -> dict[str, Judgement]:
    differences = contrasts(witnesses, sides)
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(differences, key=lambda name: differences[name].p_value)):
        # Holm: the smallest p-value counts for all judges, the next for all but one; none falls below the one before.
        least = max(least, min(1.0, (len(differences) - rank) * differences[name].p_value))
        adjusted[name] = least
    found = {}
    for name, better in _JUDGES.items():
        difference, error, _ = differences[name]
        verdict: Verdict = "no difference"
        if adjusted[name] <= _LEVEL:
            verdict = "better" if better * difference > 0 else "worse"
        found[name] = Judgement(
            witnesses[name].before, witnesses[name].after, difference, error, adjusted[name], verdict
        )
    return found


def _clusters(x: Tensor, real: Tensor, seed: int) -> list[np.ndarray]:
    with extra("evaluate"):
        from sklearn.cluster import KMeans
    chosen = torch.randperm(len(real), generator=seeded(seed))[:_MAX_CLUSTERED]
    found = KMeans(_NUM_CLUSTERS, n_init=3, random_state=seed).fit(real[chosen].numpy())
    return [found.predict(table.numpy()) for table in (x, real)]


def _classes(classes: Callable[[Tensor], Tensor], rows: Tensor) -> np.ndarray:
    with torch.no_grad():
        found = tensor("classes of rows", classes(rows))
    if found.shape != (len(rows),) or found.is_floating_point() or found.is_complex() or int(found.min()) < 0:
        raise ValueError(
            f"Expected classes as whole numbers from 0, of shape ({len(rows)},); got {found.dtype} of shape "
            f"{tuple(found.shape)}. Pass lambda x: classifier(x).argmax(1), for example."
        )
    return found.to("cpu", torch.int64).numpy()
