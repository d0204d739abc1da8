"""Distances by a discriminator that is trained on one half and judged on the other: bounds from below."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_gan._networks import by_chunk, check_eval, critic_scores
from pyro_gan._random import rng_fork, seed_rng
from pyro_gan._typing import Critic
from pyro_gan.checks import count, function, instance, rows
from pyro_gan.checks import real as number
from pyro_gan.evaluate._rows import pool_rows, two_sets
from pyro_gan.evaluate.lipschitz import lipschitz_constant, lipschitz_mlp
from pyro_gan.evaluate.metric import Estimate, Metric, Outputs, Real
from pyro_gan.evaluate.two_sample import c2st

__all__ = ["critic_distance", "total_variation_bound", "wasserstein_bound"]

_BATCH = 256
_LEARNING_RATE = 5e-3
_WATCH_EVERY = 20


@Metric()
def total_variation_bound(outputs: Outputs, real: Real, *, classifier: Any = None, seed: int = 0) -> Estimate[float]:
    r"""Bound the total variation distance from below, by a classifier's accuracy on rows it has not seen.

    .. math:: \mathrm{TV}(P, Q) = \sup_A \bigl( P(A) - Q(A) \bigr) \ge P(\text{named } P) - Q(\text{named } P)
        = 2\, \text{accuracy} - 1,

    with the accuracy balanced over the two sets, as in `c2st`. The rows named P are one set A, chosen without the rows
    that judge it, so the estimate is unbiased for something that is at most TV; `value - 2 * standard_error` is a bound
    with a confidence of about 97.5 per cent. How far it lies below TV depends on the classifier, and is unknown in many
    dimensions. TV is 1 for disjoint supports, however close they are; pixels and generators of few latents nearly have
    such supports.

    Args:
        outputs: The samples to judge, `(draw_a, *event)`, or features of them; a bound for features bounds the TV of
            the data, too.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        classifier: An unfitted scikit-learn classifier, as in `c2st`.
        seed: Of the halves and of the default classifier; no global generator is moved.

    Returns:
        An unbiased estimate of a number that is at most TV (negative where the classifier has learnt nothing), and its
        standard error given the trained classifier; equal rows count once.

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
    return Estimate(2 * test.accuracy - 1, 2 * test.standard_error)


@Metric(symmetric=False)
def critic_distance(
    outputs: Outputs, real: Real, *, critic: Critic, lipschitz: float, chunk_size: int | None = None
) -> Estimate[float]:
    r"""Judge a trained Lipschitz critic on held-out rows: a bound on W1, if its constant is one.

    .. math:: W_1(P, Q) = \sup_{\lVert c \rVert_L \le 1} E_Q c - E_P c \ge \frac{E_Q c - E_P c}{L}

    It is a bound from below for every L that is at least the critic's Lipschitz constant, such as the one that the
    weights certify, `lipschitz_constant(critic)`. **Slopes that a gradient penalty has pulled to 1, or that were
    measured at points, are not such an L**: with them the figure is an estimate, above or below W1, to be compared with
    figures of critics trained alike. The rows must not have trained the critic. Nor should the critic have trained the
    generator, because the generator has then learnt where the critic looks.

    Args:
        outputs: The samples to judge, `(draw_a, *event)`, unseen by the critic.
        real: Held-out data, `(draw_b, *event)`, unseen by the critic.
        critic: Maps `(batch, *event)` to `(batch,)` or `(batch, 1)`, larger on real data; in evaluation mode.
        lipschitz: L, in the critic's unit per unit of the data's Euclidean distance.
        chunk_size: Rows of one pass; if None, the number that suits the samples' device.

    Returns:
        The bound, in the data's unit (negative where the critic has learnt nothing), and its standard error given the
        critic; equal rows count once.

    Raises:
        ValueError: if shapes disagree, a set has fewer than 2 rows, an entry or an output is not finite, the critic is
            in training mode or gives more than one number a row, or `lipschitz` is not positive.

    References:
        Comparison of Maximum Likelihood and GAN-based training of Real NVPs, I. Danihelka, B. Lakshminarayanan,
        B. Uria, D. Wierstra and P. Dayan, 2017, https://arxiv.org/abs/1705.05263

    Example:
        >>> zeros, ones = torch.zeros(50, 2), torch.ones(50, 2)
        >>> critic_distance(zeros, ones, critic=lambda x: 3 * x[:, 0], lipschitz=3.0).value
        1.0
    """
    lipschitz = number("lipschitz", lipschitz, above=0)
    if chunk_size is not None:
        count("chunk_size", chunk_size)
    check_eval(function("critic", critic), "critic")
    sets = zip(("outputs", "real"), (outputs, real), two_sets(outputs, real, minimum=2), strict=True)
    means, variances = [], []
    for name, samples, flat in sets:
        with torch.no_grad():
            scores = by_chunk(lambda x: critic_scores(critic, x), samples.detach(), chunk_size)
        values = rows(f"scores of {name}", scores.double())
        _, identity = torch.unique(flat, dim=0, return_inverse=True)
        centred = values - values.mean()
        clusters = torch.zeros_like(centred).index_add_(0, identity, centred)
        means.append(float(values.mean()))
        variances.append(float(clusters.square().sum()) / len(values) / (len(values) - 1))
    return Estimate((means[1] - means[0]) / lipschitz, math.sqrt(sum(variances)) / lipschitz)


@Metric()
def wasserstein_bound(
    outputs: Outputs, real: Real, *, network: nn.Module | None = None, num_steps: int = 500, seed: int = 0
) -> Estimate[float]:
    r"""Train a critic of certified slope on one half of the rows, and bound W1 by its means over the other.

    The critic maximises :math:`E_Q c - E_P c` and is judged by `critic_distance`, with the constant that its weights
    certify. An optimal critic would give W1 itself. This critic gives less: the network cannot express everything, has
    not learnt all in `num_steps`, and has learnt some things of its own rows only. (The last loss is the largest in
    many dimensions: W1 cannot be estimated from polynomially many samples, and a bound that holds must then be small.)

    Args:
        outputs: The samples to judge, `(draw_a, *event)`, or features of them; flattened for the critic.
        real: Held-out data, `(draw_b, *event)`, made into the same features.
        network: Maps `(batch, feature)` to `(batch, 1)`. It consists of layers that `lipschitz_constant` knows, and its
            own parametrisation holds its slope down; the default, `lipschitz_mlp`, is an example. Trained in place.
        num_steps: Steps of Adam, with 256 rows of each set a step.
        seed: Of the halves, the batches and the default network; no global generator is moved.

    Returns:
        The bound, in the data's unit, and its standard error given the trained critic.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, there are too few different rows, or the network's
            constant is not known, not positive or not finite.

    References:
        Sorting out Lipschitz function approximation, C. Anil, J. Lucas and R. Grosse, 2019,
        https://arxiv.org/abs/1811.05381

    Example:
        >>> bound = wasserstein_bound(torch.randn(1000, 2), torch.randn(1000, 2) + 1.0, num_steps=100)
        >>> abs(bound.value - 2**0.5) < 0.3
        True
    """
    count("num_steps", num_steps)
    pool = pool_rows(outputs, real, num_parts=2, seed=seed)
    # One shift and one scale for all features: they change every distance by one known factor.
    training = pool.part == 0
    centre = pool.rows[training].mean(0)
    scale = float(np.sqrt(np.square(pool.rows[training] - centre).sum(1).mean())) or 1.0
    scaled = torch.from_numpy((pool.rows - centre) / scale)
    if network is None:
        with rng_fork():
            seed_rng(seed)
            network = lipschitz_mlp(scaled.shape[1])
    lipschitz_constant(instance("network", network, nn.Module).eval())
    with torch.no_grad():
        critic_scores(network, scaled[:1])
    sides = [scaled[torch.from_numpy(training & (pool.is_real == label))] for label in (0, 1)]
    _train(network, *sides, num_steps=num_steps, seed=seed)
    judged = [scaled[torch.from_numpy(~training & (pool.is_real == label))] for label in (0, 1)]
    bound = critic_distance(*judged, critic=network.eval(), lipschitz=lipschitz_constant(network))
    return Estimate(scale * bound.value, scale * bound.standard_error)


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
