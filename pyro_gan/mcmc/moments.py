"""Running moments of chains, for runs that keep no history, and nested R-hat, which judges convergence by them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pyro_gan import checks

__all__ = ["Moments", "RunningMoments", "moments_table", "nested_r_hat"]


@final
class Moments(NamedTuple):
    """Mean and variance of each chain over `num_steps` steps, which need not be kept.

    Attributes:
        mean: Mean over the steps, `(chain, *event)`.
        variance: Variance over the steps, with the divisor `num_steps - 1`; NaN after one step.
        num_steps: Steps of each chain.
    """

    mean: Tensor
    variance: Tensor
    num_steps: int


@final
class RunningMoments:
    """Mean and variance of a sequence of tensors, in one pass and without history.

    References:
        Note on a method for calculating corrected sums of squares and products, B. P. Welford, 1962.

    Example:
        >>> running = RunningMoments()
        >>> for value in (1.0, 2.0, 6.0):
        ...     running.update(torch.tensor([value]))
        >>> running.result().mean, running.result().variance
        (tensor([3.]), tensor([7.]))
    """

    def __init__(self) -> None:
        self._num_steps = 0
        self._mean = self._squares = torch.zeros(())

    def update(self, value: Float[Tensor, "chain *event"]) -> None:
        """Take the values of a step into account. They are copied."""
        num_steps = self._num_steps + 1
        if num_steps == 1:
            mean, squares = value.clone(), torch.zeros_like(value)
        else:
            mean = self._mean.lerp(value, 1 / num_steps)
            squares = self._squares.addcmul(value - self._mean, value - mean)
        # Whatever fails above leaves the moments as they were.
        self._num_steps, self._mean, self._squares = num_steps, mean, squares

    def state_dict(self) -> dict[str, Any]:
        """Return the moments; later updates do not change what was returned."""
        return {"num_steps": self._num_steps, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._num_steps, self._mean, self._squares = state["num_steps"], state["mean"], state["squares"]

    def result(self, chains: Bool[Tensor, " chain"] | slice = slice(None)) -> Moments:
        """Return the moments so far, of all chains or of some chains."""
        divisor = self._num_steps - 1 if self._num_steps > 1 else torch.nan
        return Moments(self._mean[chains], self._squares[chains] / divisor, self._num_steps)


def nested_r_hat(moments: Moments, superchain: Float[Tensor, " chain"]) -> Float[Tensor, "*event"]:
    r"""Return R-hat for many short chains, some of which share a starting point.

    .. math:: \widehat{nR} = \sqrt{1 + \hat B / \hat W},

    where :math:`\hat B` is the variance of the superchains' means and :math:`\hat W` the mean over superchains of the
    variance between their chains plus the variance within their chains. Ordinary R-hat asks whether one chain has
    forgotten where it started, which takes many effective draws; nested R-hat asks it of `M` chains together. At
    stationarity it is about `sqrt(1 + 1 / M)` after a single step, and falls towards 1 with more steps.

    If proposals do not depend on the state (`IndependenceMH`, a long step of `PCN`), chains forget their start at their
    first accept, before they follow the target. For them nested R-hat only shows how many chains have not moved.

    Args:
        moments: Moments of every chain.
        superchain: Which superchain each chain belongs to, integers `(chain,)`. A superchain of one chain contributes
            no variance between chains, only the variance within its chain.

    Returns:
        One number for each coordinate; NaN for fewer than two superchains, or where nothing varies within them.

    Raises:
        ValueError: if `superchain` does not have one number for each chain.

    References:
        Nested R-hat: Assessing the convergence of Markov chain Monte Carlo when running many short chains,
        C. C. Margossian et al., 2024, https://arxiv.org/abs/2110.13017.

    Example:
        >>> moments = Moments(torch.randn(1000), torch.full((1000,), torch.nan), 1)
        >>> bool(nested_r_hat(moments, torch.arange(1000) // 100) < 1.05)
        True
    """
    checks.instance("moments", moments, Moments, cure="VectorizedMCMC.moments holds them by site.")
    checks.shaped("superchain", superchain, (len(moments.mean),), cure="It is one number for each chain.")
    _, group, counts = superchain.to(moments.mean.device).unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return torch.full_like(moments.mean[0], torch.nan)
    sizes = counts.to(moments.mean).reshape(-1, *[1] * (moments.mean.dim() - 1))
    centres = _group_sum(moments.mean, group, len(sizes)) / sizes
    deviations = (moments.mean - centres[group]).square()
    among = _group_sum(deviations, group, len(sizes)) / (sizes - 1).clamp(min=1)
    within = moments.variance.mean(0) if moments.num_steps > 1 else 0.0
    total = (among[counts > 1].mean(0) if (counts > 1).any() else 0.0) + within
    if not torch.is_tensor(total):
        return torch.full_like(moments.mean[0], torch.nan)
    return torch.where(total > 0, torch.sqrt(1 + centres.var(0) / total), torch.nan)


def moments_table(moments: dict[str, Moments], superchain: Float[Tensor, " chain"]) -> str:
    """Return a table of mean, standard deviation and nested R-hat, with one line for each coordinate of each site."""
    lines = [f"{'':>16}{'mean':>12}{'std':>12}{'nested r_hat':>14}"]
    for name, (mean, variance, num_steps) in moments.items():
        # One chain has no variance between chains, and one step has no variance within a chain.
        spread = torch.zeros_like(mean[0]) + (mean.var(0) if len(mean) > 1 else 0.0)
        spread, centre = spread + (variance.mean(0) if num_steps > 1 else 0.0), mean.mean(0)
        r_hat = nested_r_hat(moments[name], superchain)
        for index in itertools.product(*(range(size) for size in mean.shape[1:])):
            label = name + (f"[{','.join(map(str, index))}]" if index else "")
            figures = float(centre[index]), float(spread[index].sqrt()), float(r_hat[index])
            lines.append(f"{label:>16}" + "{:>12.2f}{:>12.2f}{:>14.3f}".format(*figures))
    return "\n".join(lines)


def _group_sum(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return values.new_zeros((num_groups, *values.shape[1:])).index_add_(0, group, values)
