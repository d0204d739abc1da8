"""Where an independence chain sits after k steps, exactly, given its proposals; and the metric expected there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ExpectedMetric", "expected_after_steps", "occupancy"]

#: Numbers that a block of chains holds at once, proposals times metrics, in float64.
BLOCK_NUMBERS = 1_000_000


class ExpectedMetric(NamedTuple):
    """A metric of the chain's state after every number of steps, with its error over chains."""

    #: Mean over chains, the start first, `(step + 1, *metric)`, float64.
    value: Float[Tensor, "step *metric"]
    #: Standard error of that mean, from the differences between chains; NaN with a single chain.
    standard_error: Float[Tensor, "step *metric"]


def occupancy(log_weights: Float[Tensor, "chain proposal"]) -> Float[Tensor, "chain proposal"]:
    r"""Return the probability that an independence chain ends at each of its proposals.

    A chain starts at proposal 0 and is offered one proposal a step. Given their weights w only the accept coins are
    random, and the law over proposals follows exactly, in k(k + 1)/2 operations a chain for k steps:

    .. math:: P_t(t) = \sum_{i<t} P_{t-1}(i)\, a_{it}, \qquad P_t(i) = P_{t-1}(i)\, (1 - a_{it}), \qquad
        a_{it} = \min(1, w_t / w_i).

    Use it as weights of the proposals where a plain chain has one draw. Column 0 is the probability of having
    accepted nothing: its mean over chains is the share of chains that never moved. For fewer steps pass fewer columns.

    Args:
        log_weights: Log of target over proposal density of the start (column 0) and of k independent proposals, in
            nats up to a constant, `(chain, k + 1)`: log ratios of generated points, over the temperature. The start
            may be a draw of the proposal or the score of a real datum. A proposal whose weight is not finite is never
            accepted, as in the kernels.

    Returns:
        Probabilities, rows summing to 1, `(chain, k + 1)`, float64.

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
    _check_weights(log_weights)
    ends = []
    for block in log_weights.detach().split(_block_chains(log_weights.shape[1])):
        *_, end = _laws(block)
        ends.append(end)
    return torch.cat(ends)


def expected_after_steps(
    log_weights: Float[Tensor, "chain proposal"], values: Float[Tensor, "chain proposal *metric"]
) -> ExpectedMetric:
    r"""Return the expected metric of an independence chain after 0, 1, ..., k steps, from one set of proposals.

    .. math:: E_t = \frac{1}{\text{chains}} \sum_c \sum_{j \le t} P_{ct}(j)\, v_{cj}, \qquad P_{ct}\text{ of }
        \texttt{occupancy}.

    The accept coins are integrated out (Rao-Blackwell), so the error is that of the proposals alone, at most the plain
    chain's and often much less; and one set of proposals gives the whole curve that says how many steps are enough.

    The metric must be a mean over outputs: an indicator of high quality, a classifier's probabilities, one-hot modes or
    classes. What is a function of such means, as the JSD is of the histogram, is computed from the expected one: see
    the example. It then has less of the upward bias that the noise of a plain chain's histogram brings.

    Args:
        log_weights: As in `occupancy`, `(chain, k + 1)`.
        values: The metric at the start and at every proposal, `(chain, k + 1, *metric)`. What stands at a proposal
            that is never accepted is not read. With a chain that starts at a real datum, column 0 is the datum's.

    Returns:
        Mean over chains and standard error, `(k + 1, *metric)` each. Chains are taken a block at a time.

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
    _check_weights(log_weights)
    if values.shape[:2] != log_weights.shape:
        raise ValueError(
            f"Expected values of shape {(*log_weights.shape, '*metric')}, one for every log weight; got "
            f"{tuple(values.shape)}."
        )
    metric = values.shape[2:]
    if 0 in metric:
        raise ValueError(
            f"Expected a metric of at least one number; got values of shape {tuple(values.shape)}. Without further "
            "dimensions, (chain, k + 1), it is one number."
        )
    size = _block_chains(log_weights.shape[1] * max(1, math.prod(metric)))
    count = 0
    mean = spread = torch.zeros((), dtype=torch.float64, device=log_weights.device)
    pairs = zip(log_weights.detach().split(size), values.detach().split(size), strict=True)
    for weights_block, values_block in pairs:
        v = _checked(
            values_block.to(log_weights.device).double().reshape(*weights_block.shape, -1),
            weights_block.isfinite(),
        )
        steps = [(law.unsqueeze(1) @ v[:, : law.shape[1]]).squeeze(1) for law in _laws(weights_block)]
        curves = torch.stack(steps, dim=1)
        # Two blocks' means and sums of squares joined, without the cancellation of a running sum of squares.
        added, shift = len(curves), curves.mean(0) - mean
        spread = spread + (curves - curves.mean(0)).square().sum(0)
        spread = spread + shift.square() * (count * added / (count + added))
        mean = mean + shift * (added / (count + added))
        count += added
    # One chain knows no error.
    error = (spread / (count - 1) / count).sqrt() if count > 1 else torch.full_like(mean, math.nan)
    return ExpectedMetric(mean.reshape(-1, *metric), error.reshape(-1, *metric))


def _laws(log_weights: Tensor) -> Iterator[Tensor]:
    """Yield the law over proposals seen so far, after every step; the same storage each time."""
    usable = log_weights.isfinite()
    # What can never be occupied gets any number, so that no infinity meets another.
    log_weight = log_weights.double().where(usable, 0.0)
    law = torch.zeros_like(log_weight)
    law[:, 0] = 1
    yield law[:, :1]
    for step in range(1, law.shape[1]):
        log_accept = log_weight[:, step, None] - log_weight[:, :step]
        flow = law[:, :step] * log_accept.clamp(max=0).exp() * usable[:, step, None]
        law[:, :step] -= flow
        law[:, step] = flow.sum(1)
        yield law[:, : step + 1]


def _checked(values: Tensor, usable: Tensor) -> Tensor:
    num_bad = int((~values.isfinite().all(-1) & usable).sum())
    if num_bad:
        raise ValueError(
            f"Expected finite values wherever the log weight is finite; {num_bad} of a block's {usable.numel()} are "
            "not. Give such a proposal a log weight of -inf if no chain should accept it."
        )
    return values.where(usable.unsqueeze(-1), 0.0)


def _block_chains(numbers: int) -> int:
    return max(1, BLOCK_NUMBERS // numbers)


def _check_weights(log_weights: Tensor) -> None:
    if log_weights.dim() != 2 or not len(log_weights) or log_weights.shape[1] < 2:
        raise ValueError(
            f"Expected log weights of shape (chain, k + 1), the start and at least one proposal; got "
            f"{tuple(log_weights.shape)}."
        )
    num_bad = int((~log_weights[:, 0].isfinite()).sum())
    if num_bad:
        raise ValueError(
            f"Expected a finite log weight at every start (column 0); {num_bad} of {len(log_weights)} are not. A chain "
            "cannot begin where the target is unknown or zero: leave those chains out, or start them elsewhere."
        )
