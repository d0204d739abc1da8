"""Distances by a discriminator that is trained on one half and judged on the other, hence bounds from below."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import by_chunk, check_eval
from pyro_gan._random import rng_fork
from pyro_gan.evaluate._rows import as_rows, pool_rows
from pyro_gan.evaluate.lipschitz import lipschitz_constant, lipschitz_mlp
from pyro_gan.evaluate.two_sample import c2st

__all__ = ["LowerBound", "critic_distance", "total_variation_bound", "wasserstein_bound"]

_BATCH = 256
_LEARNING_RATE = 5e-3
_WATCH_EVERY = 20


class LowerBound(NamedTuple):
    """An unbiased estimate of something that is no larger than the distance."""

    #: The estimate; negative where the discriminator has learnt nothing.
    value: float
    #: Its standard error given the trained discriminator; equal rows count as one fact, not as many.
    standard_error: float


def total_variation_bound(
    outputs: Float[Tensor, "draw_a *event"],
    real: Float[Tensor, "draw_b *event"],
    *,
    classifier: Any = None,
    seed: int = 0,
) -> LowerBound:
    r"""Bound the total variation distance from below, by a classifier's accuracy on rows it has not seen.

    .. math:: \mathrm{TV}(P, Q) = \sup_A \bigl( P(A) - Q(A) \bigr) \ge P(\text{named } P) - Q(\text{named } P)
        = 2\, \text{accuracy} - 1,

    with the accuracy balanced over the two sets, as `c2st` has it. The rows named P are one set A out of all, chosen
    without the rows that judge it, so the estimate is unbiased for something that is at most TV; `value - 2
    * standard_error` is a bound with about 97.5 per cent. How far below TV it lies depends on the classifier, and in
    many dimensions nobody can tell. TV is 1 for disjoint supports, however close, which pixels and generators of few
    latents nearly have.

    Args:
        outputs: What is judged, `(draw_a, *event)`, or features of it: those give a bound on the data's TV too.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        classifier: An unfitted scikit-learn classifier, as in `c2st`.
        seed: Of the halves and of the default classifier; no global generator is moved.

    Returns:
        The bound and its standard error.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or there are too few different rows.
        ImportError: without scikit-learn or SciPy.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> bound = total_variation_bound(torch.randn(1000, 1), torch.randn(1000, 1) + 2.0)
        >>> abs(bound.value - 0.683) < 5 * bound.standard_error
        True
    """
    test = c2st(outputs, real, classifier=classifier, seed=seed)
    return LowerBound(2 * test.accuracy - 1, 2 * test.standard_error)


def critic_distance(
    critic: Callable[[Tensor], Tensor],
    outputs: Float[Tensor, "draw_a *event"],
    real: Float[Tensor, "draw_b *event"],
    *,
    lipschitz: float,
    chunk_size: int | None = None,
) -> LowerBound:
    r"""Judge a trained Lipschitz critic on held-out rows: a bound on W1, if its constant is one.

    .. math:: W_1(P, Q) = \sup_{\lVert c \rVert_L \le 1} E_Q c - E_P c \ge \frac{E_Q c - E_P c}{L}

    It is a bound from below for every L that is at least the critic's Lipschitz constant: one certified from the
    weights, `lipschitz_constant(critic)`. **Slopes that a gradient penalty has pulled to 1, or that were measured at
    points, are not such an L**: with them the figure is an estimate, above or below W1, to be compared with figures
    of critics trained alike. The rows must not have trained the critic; nor should the critic have trained the
    generator, which has learnt where it looks.

    Args:
        critic: Maps `(batch, *event)` to `(batch,)` or `(batch, 1)`, larger on real data; in evaluation mode.
        outputs: What is judged, `(draw_a, *event)`, unseen by the critic.
        real: Held-out data, `(draw_b, *event)`, unseen by the critic.
        lipschitz: L, in the critic's unit per unit of the data's Euclidean distance.
        chunk_size: Rows of one pass; what suits the samples' device if None.

    Returns:
        The bound, in the data's unit, and its standard error.

    Raises:
        ValueError: if shapes disagree, a set has fewer than 2 rows, an entry or an output is not finite, the critic is
            in training mode or gives more than one number a row, or `lipschitz` is not positive.

    References:
        Comparison of Maximum Likelihood and GAN-based training of Real NVPs, I. Danihelka, B. Lakshminarayanan,
        B. Uria, D. Wierstra and P. Dayan, 2017, https://arxiv.org/abs/1705.05263

    Example:
        >>> bound = critic_distance(lambda x: 3 * x[:, 0], torch.zeros(50, 2), torch.ones(50, 2), lipschitz=3.0)
        >>> bound.value
        1.0
    """
    if not 0 < lipschitz < math.inf:
        raise ValueError(f"Expected a positive, finite lipschitz; got {lipschitz}.")
    if outputs.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"Expected outputs and real of one event shape; got {tuple(outputs.shape)} and {tuple(real.shape)}."
        )
    check_eval(critic, "critic")
    means, variances = [], []
    for samples, name in ((outputs, "outputs"), (real, "real")):
        rows = as_rows(samples, name)
        if len(rows) < 2:
            raise ValueError(f"Expected at least 2 rows of {name}; got {len(rows)}.")
        with torch.no_grad():
            scores = by_chunk(critic, samples.detach(), chunk_size)
        if scores.numel() != len(rows):
            raise ValueError(
                f"Expected one score for each of {len(rows)} rows of {name}; got shape {tuple(scores.shape)}."
            )
        values = as_rows(scores.reshape(-1, 1).double(), f"scores of {name}").squeeze(1)
        _, identity = torch.unique(rows, dim=0, return_inverse=True)
        centred = values - values.mean()
        clusters = torch.zeros_like(centred).index_add_(0, identity, centred)
        means.append(float(values.mean()))
        variances.append(float(clusters.square().sum()) / len(values) / (len(values) - 1))
    return LowerBound((means[1] - means[0]) / lipschitz, math.sqrt(sum(variances)) / lipschitz)


def wasserstein_bound(
    outputs: Float[Tensor, "draw_a *event"],
    real: Float[Tensor, "draw_b *event"],
    *,
    network: nn.Module | None = None,
    num_steps: int = 500,
    seed: int = 0,
) -> LowerBound:
    r"""Train a critic of certified slope on one half of the rows, and bound W1 by its means over the other.

    The critic maximises :math:`E_Q c - E_P c` and is judged by `critic_distance`, with the constant that its weights
    certify. An optimal critic would give W1 itself; this one gives less, by what the network cannot express, has not
    learnt in `num_steps`, or has learnt of its own rows only (in many dimensions most of it: W1 is not estimable from
    polynomially many samples, and a bound that stays a bound must then be small).

    Args:
        outputs: What is judged, `(draw_a, *event)`, or features of it; flattened for the critic.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        network: Maps `(batch, feature)` to `(batch, 1)`, of layers that `lipschitz_constant` knows, and whose slope its
            own parametrisation holds down, as `lipschitz_mlp` does, the default. It is trained, in place.
        num_steps: Of Adam, 256 rows of each set a step.
        seed: Of the halves, the batches and the default network; no global generator is moved.

    Returns:
        The bound, in the data's unit, and its standard error.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, there are too few different rows, or the network's
            constant is not known or not finite.

    References:
        Sorting out Lipschitz function approximation, C. Anil, J. Lucas and R. Grosse, 2019,
        https://arxiv.org/abs/1811.05381

    Example:
        >>> bound = wasserstein_bound(torch.randn(1000, 2), torch.randn(1000, 2) + 1.0, num_steps=100)
        >>> abs(bound.value - 2**0.5) < 0.3
        True
    """
    if num_steps < 1:
        raise ValueError(f"Expected 1 step or more; got {num_steps}.")
    pool = pool_rows(outputs, real, num_parts=2, seed=seed)
    # One shift and one scale for all features: it changes every distance by one factor, which is known.
    training = pool.part == 0
    centre = pool.rows[training].mean(0)
    scale = float(np.sqrt(np.square(pool.rows[training] - centre).sum(1).mean())) or 1.0
    rows = torch.from_numpy((pool.rows - centre) / scale)
    if network is None:
        with rng_fork():
            torch.manual_seed(seed)
            network = lipschitz_mlp(rows.shape[1])
    lipschitz_constant(network.eval())
    sides = [rows[torch.from_numpy(training & (pool.is_real == label))] for label in (0, 1)]
    _train(network, *sides, num_steps=num_steps, seed=seed)
    judged = [rows[torch.from_numpy(~training & (pool.is_real == label))] for label in (0, 1)]
    network.eval()
    bound = critic_distance(network, judged[0], judged[1], lipschitz=lipschitz_constant(network))
    return LowerBound(scale * bound.value, scale * bound.standard_error)


@torch.enable_grad()
def _train(network: nn.Module, outputs: Tensor, real: Tensor, *, num_steps: int, seed: int) -> None:
    """Train on four fifths of the rows, and keep the network that the last fifth likes best."""
    fitted, watched = zip(*(_four_fifths(side) for side in (outputs, real)), strict=True)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    best, kept = -math.inf, network.state_dict()
    for step in range(1, num_steps + 1):
        network.train()
        batches = [side[torch.randint(len(side), (_BATCH,), generator=generator)] for side in fitted]
        loss = network(batches[0]).mean() - network(batches[1]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % _WATCH_EVERY == 0 or step == num_steps:
            network.eval()
            with torch.no_grad():
                gap = float(network(watched[1]).mean() - network(watched[0]).mean())
            gap /= lipschitz_constant(network)
            if gap > best:
                best, kept = gap, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)


def _four_fifths(side: Tensor) -> tuple[Tensor, Tensor]:
    # Rows come in the caller's order, which may mean something: every fifth is watched.
    watched = torch.arange(len(side)) % 5 == 4
    return side[~watched], side[watched]
