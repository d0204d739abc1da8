"""A distribution that can be drawn from and differentiated through, but has no density: a network of noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_gan._typing import left_shape
from pyro_gan.checks import count, function, shown, tensor

__all__ = ["Implicit"]


@final
class Implicit(TorchDistribution):
    r"""The distribution of :math:`g(x, \epsilon)`: a network of noise :math:`\epsilon` and a context :math:`x`.

    Every draw and every element of the batch has its own noise, also after `expand`: plates and vectorised particles
    get different values. The network always sees one batch dimension.

    There is no density. `log_prob` raises: if it returned a constant, the entropy would vanish and variational
    inference would only search for the mode. In a guide use `pyro_gan.vi.RatioELBO`; `pyro.infer.EnergyDistance` and
    `pyro.infer.Predictive` work as they are.

    Args:
        network: `(x, noise) -> (row, *event)` with a context `(row, *context)` and noise `(row, *noise)`;
            `noise -> (row, *event)` without a context.
        noise: Distribution of the noise, with `batch_shape ()`, of the network's dtype and on its device.
        event_shape: Shape of one value.
        context: The condition, `(*batch, *context)`; its left dimensions are the batch shape.
        context_event_dim: Number of dimensions of one context.

    Raises:
        ValueError: if the noise has a batch shape or the context too few dimensions; when drawn from, if the network
            returns another shape.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483;
        Hierarchical Implicit Models and Likelihood-Free Variational Inference, D. Tran et al., 2017,
        https://arxiv.org/abs/1702.08896

    Example:
        >>> import pyro.distributions as dist
        >>> noise = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
        >>> q = Implicit(lambda x, e: x + e[:, :2] * e[:, 2:], noise, event_shape=(2,), context=torch.zeros(5, 2))
        >>> q.batch_shape, q().shape, q.expand([7, 5])().shape
        (torch.Size([5]), torch.Size([5, 2]), torch.Size([7, 5, 2]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True
    #: Other distributions have a density; this one has nothing that `log_prob` could return.
    has_density = False

    def __init__(
        self,
        network: Callable[..., Tensor],
        noise: TorchDistribution,
        *,
        event_shape: Sequence[int],
        context: Float[Tensor, "*batch_and_context"] | None = None,
        context_event_dim: int = 1,
    ) -> None:
        if not isinstance(noise, torch.distributions.Distribution):
            raise ValueError(f"Expected noise to be a distribution; got {shown(noise)}.")
        if noise.batch_shape:
            raise ValueError(
                f"Expected noise with batch_shape (); got {tuple(noise.batch_shape)}. Independent coordinates become "
                "one event with .to_event(1)."
            )
        if not isinstance(event_shape, Sequence):
            raise ValueError(f"Expected event_shape as a tuple of sizes; got {shown(event_shape)}.")
        self.network = function("network", network)
        self.noise = noise
        self.context = context
        self.context_event_dim = count("context_event_dim", context_event_dim, minimum=0)
        batch_shape = torch.Size()
        if context is not None:
            if tensor("context", context).dim() < self.context_event_dim:
                raise ValueError(
                    f"Expected a context with at least {context_event_dim} dimensions; got shape "
                    f"{tuple(context.shape)}. Set context_event_dim to the number of dimensions of one context."
                )
            batch_shape = left_shape(context, self.context_event_dim)
        event = torch.Size([count("event_shape's sizes", size) for size in event_shape])
        super().__init__(batch_shape, event, validate_args=False)

    @property
    def support(self) -> Any:
        """All real values of the event's shape; the network may reach only some of them."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Implicit:
        """Return the same distribution for a larger batch; each element has its own noise.

        Args:
            batch_shape: The batch shape that this one's broadcasts to.
        """
        torch.broadcast_shapes(self.batch_shape, tuple(batch_shape))
        new = copy.copy(self)
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape"]:
        """Return draws that are differentiable in the network and in the context.

        Args:
            sample_shape: Dimensions to the left of the batch shape.

        Returns:
            `(*sample, *batch, *event)`.

        Raises:
            ValueError: if the network does not return one event a row.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        noise = self.noise.rsample(shape) if self.noise.has_rsample else self.noise.sample(shape)
        inputs = [_as_rows(noise, len(self.noise.event_shape))]
        context = self.expanded_context(shape)
        if context is not None:
            inputs.insert(0, _as_rows(context, self.context_event_dim))
        rows = tensor("the network's output", self.network(*inputs))
        expected = (shape.numel(), *self.event_shape)
        if rows.shape != expected:
            raise ValueError(
                f"Expected the network to return shape {expected}, one event a row; got {tuple(rows.shape)}. Correct "
                "event_shape or the network."
            )
        return rows.reshape(shape + self.event_shape)

    def expanded_context(self, shape: Sequence[int] | None = None) -> Tensor | None:
        """Return the context broadcast to left dimensions, by default the batch shape; None without one."""
        if self.context is None:
            return None
        left = self.batch_shape if shape is None else torch.Size(shape)
        event = self.context.shape[self.context.dim() - self.context_event_dim :]
        return self.context.expand(left + event)

    def log_prob(self, value: Tensor) -> Tensor:
        """Raise: there is no density."""
        raise NotImplementedError(
            "An Implicit distribution has draws and no density. As a guide's site, replace the objective by "
            "pyro_gan.vi.RatioELBO(ratios={site: network}), which learns log q - log p. For an observed site use "
            "pyro.infer.EnergyDistance, or pyro_gan.vi.SyntheticLikelihood in its place."
        )


def _as_rows(value: Tensor, event_dim: int) -> Tensor:
    return value.reshape(-1, *value.shape[value.dim() - event_dim :])
