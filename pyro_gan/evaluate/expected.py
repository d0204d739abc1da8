"""Where an independence chain is after k steps, exactly, given its proposals; and the metric expected there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.checks import rows, shaped, tensor
from pyro_gan.evaluate.metric import Estimate

__all__ = ["expected_after_steps", "occupancy"]

#: Numbers (proposals times metrics, in float64) that a block of chains holds at once.
BLOCK_NUMBERS = 1_000_000


def occupancy(log_weights: Float[Tensor, "chain proposal"]) -> Float[Tensor, "chain proposal"]:
    r"""Return the probability that an independence chain ends at each of its proposals.

    A chain starts at proposal 0 and gets one proposal a step. Given their weights w only the accept coins are random,
    and the distribution over proposals follows exactly, in k (k + 1) / 2 operations a chain for k steps:

    .. math:: P_t(t) = \sum_{i<t} P_{t-1}(i)\, a_{it}, \qquad P_t(i) = P_{t-1}(i)\, (1 - a_{it}), \qquad
        a_{it} = \min(1, w_t / w_i).

    A plain chain keeps one of its proposals; use these probabilities as weights of all of them instead. Column 0 is the
    probability of having accepted nothing, and its mean over chains is the share of chains that never moved. For fewer
    steps pass fewer columns.

    Args:
        log_weights: Log of target over proposal density of the start (column 0) and of k independent proposals, in
            nats up to a constant, `(chain, k + 1)`: the log ratios of generated points, divided by the temperature.
            The start may be a draw of the proposal or the score of a real data point. A proposal whose weight is not
            finite is never accepted, as in the kernels.

    Returns:
        Probabilities, `(chain, k + 1)`, float64; each row sums to 1.

    Raises:
        ValueError: if there are not two dimensions, no chain or no proposal, or a start's weight is not finite.

    References:
        Rao-Blackwellisation of Sampling Schemes, G. Casella and C. Robert, 1996,
        https://doi.org/10.1093/biomet/83.1.81

        Metropolis-Hastings Generative Adversarial Networks, R. Turner, J. Hung, E. Frank, Y. Saatci and
        J. Yosinski, 2019, https://arxiv.org/abs/1811.11357

    Example:
        >>> occupancy(torch.tensor([[2.0, 1.0, 4.0]]).log())
        tensor([[0., 0., 1.]], dtype=torch.float64)
        >>> occupancy(torch.tensor([[4.0, 1.0, 2.0]]).log())
        tensor([[0.3750, 0.0000, 0.6250]], dtype=torch.float64)
    """
    log_weights = _checked_weights(log_weights)
    ends = []
    for block in log_weights.split(max(1, BLOCK_NUMBERS // log_weights.shape[1])):
        *_, end = _distributions(block)
        ends.append(end)
    return torch.cat(ends)


def expected_after_steps(
    log_weights: Float[Tensor, "chain proposal"], values: Float[Tensor, "chain proposal *metric"]
) -> Estimate[Tensor]:
    r"""Return the expected metric of an independence chain after 0, 1, ..., k steps, from one set of proposals.

    .. math:: E_t = \frac{1}{\text{chains}} \sum_c \sum_{j \le t} P_{ct}(j)\, v_{cj}, \qquad P_{ct}\text{ from }
        \texttt{occupancy}.

    The accept coins are integrated out (Rao-Blackwell), so the error comes from the proposals alone; it is at most the
    plain chain's and often much smaller. One set of proposals gives the whole curve, which shows how many steps are
    enough.

    The metric must be a mean over outputs: an indicator of high quality, a classifier's probabilities, one-hot modes or
    classes. A function of such means, as the JSD is a function of the histogram, is computed from the expected means:
    see the example. It then has less of the upward bias that the noise of a plain chain's histogram brings.

    Args:
        log_weights: As in `occupancy`, `(chain, k + 1)`.
        values: The metric at the start and at every proposal, `(chain, k + 1, *metric)`. The value at a proposal that
            is never accepted is not read. For a chain that starts at a real data point, column 0 is that point's.

    Returns:
        The mean over chains after every number of steps, the start first, and its standard error from the differences
        between chains (NaN with a single chain); `(k + 1, *metric)` each, float64.

    Raises:
        ValueError: as `occupancy`, or if `values` has another leading shape, holds no metric, or is not finite at a
            proposal that can be accepted.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner, J. Hung, E. Frank, Y. Saatci and
        J. Yosinski, 2019, https://arxiv.org/abs/1811.11357

    Example:
        >>> from pyro_gan import toys
        >>> from pyro_gan.evaluate import assign_modes, mode_jsd
        >>> toy = toys.grid()
        >>> x = toy.prior.sample((400, 51))  # 400 chains, 50 steps
        >>> modes = assign_modes(x.flatten(0, 1), toy.posterior.means, sd=0.05).unflatten(0, (400, 51))
        >>> one_hot = torch.nn.functional.one_hot(modes, 26)
        >>> histogram = expected_after_steps(toy.log_ratio(x), one_hot).value
        >>> high_quality, jsd = 1 - histogram[:, -1], [mode_jsd(counts) for counts in histogram]
        >>> high_quality[0] < 0.95 < 0.98 < high_quality[-1], jsd[0] > 0.05 > 0.01 > jsd[-1]
        (tensor(True), True)
    """
    log_weights = _checked_weights(log_weights)
    values, metric = tensor("values", values).detach(), values.shape[2:]
    if values.shape[:2] != log_weights.shape or 0 in metric:
        raise ValueError(
            f"Expected values of shape {(*log_weights.shape, '*metric')}, at least one number for every log weight; "
            f"got {tuple(values.shape)}."
        )
    size = max(1, BLOCK_NUMBERS // (log_weights.shape[1] * math.prod(metric)))
    count = 0
    mean = spread = torch.zeros((), dtype=torch.float64, device=log_weights.device)
    for weights_block, values_block in zip(log_weights.split(size), values.split(size), strict=True):
        v = values_block.to(log_weights.device).double().reshape(*weights_block.shape, -1)
        v = _checked(v, weights_block.isfinite())
        steps = [(p.unsqueeze(1) @ v[:, : p.shape[1]]).squeeze(1) for p in _distributions(weights_block)]
        curves = torch.stack(steps, dim=1)
        # Join two blocks' means and sums of squares without the cancellation of a running sum of squares.
        added, shift = len(curves), curves.mean(0) - mean
        spread = spread + (curves - curves.mean(0)).square().sum(0)
        spread = spread + shift.square() * (count * added / (count + added))
        mean = mean + shift * (added / (count + added))
        count += added
    # One chain says nothing of the error.
    error = (spread / (count - 1) / count).sqrt() if count > 1 else torch.full_like(mean, math.nan)
    return Estimate(mean.reshape(-1, *metric), error.reshape(-1, *metric))


def _distributions(log_weights: Tensor) -> Iterator[Tensor]:
    """Yield the distribution over the proposals seen so far, after every step; in the same storage each time."""
    usable = log_weights.isfinite()
    # A proposal that is never accepted gets any number, so that no two infinities are subtracted.
    log_weight = log_weights.double().where(usable, 0.0)
    p = torch.zeros_like(log_weight)
    p[:, 0] = 1
    yield p[:, :1]
    for step in range(1, p.shape[1]):
        log_accept = log_weight[:, step, None] - log_weight[:, :step]
        flow = p[:, :step] * log_accept.clamp(max=0).exp() * usable[:, step, None]
        p[:, :step] -= flow
        p[:, step] = flow.sum(1)
        yield p[:, : step + 1]


def _checked(values: Tensor, usable: Tensor) -> Tensor:
    num_bad = int((~values.isfinite().all(-1) & usable).sum())
    if num_bad:
        raise ValueError(
            f"Expected finite values wherever the log weight is finite; got {num_bad} of a block's {usable.numel()} "
            "that are not. Give such a proposal a log weight of -inf if no chain should accept it."
        )
    return values.where(usable.unsqueeze(-1), 0.0)


def _checked_weights(log_weights: Tensor) -> Tensor:
    log_weights = shaped("log_weights", log_weights, ("chain", "k + 1")).detach()
    if min(log_weights.shape) < 1 or log_weights.shape[1] < 2:
        raise ValueError(
            "Expected log_weights of a chain or more, of the start and at least one proposal; got shape "
            f"{tuple(log_weights.shape)}."
        )
    cure = "A chain cannot begin where the target is unknown or zero: leave such chains out, or start them elsewhere."
    rows("log_weights of the starts (column 0)", log_weights[:, 0] * 1.0, cure=cure)
    return log_weights
