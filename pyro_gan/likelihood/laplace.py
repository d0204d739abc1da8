"""A normal proposal around the posterior's mode, found by optimisation: no network to train."""

from __future__ import annotations

import warnings
from typing import Any, final

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_gan._random import own_generators
from pyro_gan.checks import count, real
from pyro_gan.likelihood.estimator import LatentLikelihood, check_model, data_blocks
from pyro_gan.targets.gradient import NUM_TRIED, gradient_fault
from pyro_gan.targets.rows import value_and_grad

__all__ = ["Laplace"]

#: The search for a data point starts at the likeliest of this many prior draws.
NUM_STARTS = 256


@final
class Laplace:
    r"""Laplace's approximation to the posterior over latents of each data point, as a proposal.

    Adam maximises :math:`\log p_0(z) + \log f(y \mid z)` from the best of 256 prior draws, for all data at once. The
    precision of the normal is minus the Hessian there, by one backward pass for each latent dimension; in directions
    where that is below the prior's precision (a saddle, a plateau), the prior's is taken. It finds one mode only: it
    covers a posterior with several modes in part, and the bound is then too low by about the log of their number.

    Losses that are not squared have almost no curvature, and the proposal is then about as wide as the prior.

    Args:
        num_steps: Steps of the search.
        learning_rate: Adam's, in units of the latents; it falls to 0 along a cosine.
        widen: Standard deviations are multiplied by this. A value a little over 1 guards importance weights against
            heavy tails.

    Raises:
        ValueError: if an argument is not positive.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.likelihood import EntropicModel
        >>> prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> model = EntropicModel(torch.nn.Linear(2, 3), prior, regularization=1.0)
        >>> Laplace(num_steps=50).fit(model, torch.zeros(5, 3)).batch_shape
        torch.Size([5])
    """

    def __init__(self, *, num_steps: int = 300, learning_rate: float = 0.1, widen: float = 1.1) -> None:
        self.num_steps = count("num_steps", num_steps)
        self.learning_rate = real("learning_rate", learning_rate, above=0)
        self.widen = real("widen", widen, above=0)

    def __call__(self, y: Tensor) -> Any:
        """Raise: the mode depends on the model, and only an estimator passes that to `fit`."""
        raise ValueError("Expected an estimator around it, ImportanceWeighted(Laplace()); it is not a guide.")

    def fit(self, model: LatentLikelihood, y: Tensor) -> MultivariateNormal:
        """Return a normal around the mode of each posterior, for data `(datum, *event)`.

        Warns:
            UserWarning: if the gradient of the log likelihood does not say how it changes.

        Raises:
            ValueError: if the prior is bounded or its latents are not vectors.
        """
        y = check_model(model).check_data(y)
        if len(model.prior.event_shape) != 1:
            raise ValueError(f"Expected a prior over vectors; got event {tuple(model.prior.event_shape)}.")
        z = torch.cat([_best_of_prior(model, block) for block in data_blocks(y, NUM_STARTS)])
        assert model.prior.support is not None
        if not bool(model.prior.support.check(z * 0 + 1e6).all()):
            raise ValueError(
                f"Expected a prior on all of R^d; got {model.prior}: a normal proposal reaches beyond its "
                "bounds. Take AnnealedImportance, which moves in unconstrained coordinates."
            )

        def energy(z: Tensor) -> Tensor:
            return -model.prior.log_prob(z) - model.log_likelihood(z[:, None], y)[:, 0]

        few = y[[i % len(y) for i in range(NUM_TRIED)]]
        with own_generators():
            tried = model.prior.sample((NUM_TRIED,))
        fault = gradient_fault(
            lambda z: value_and_grad(lambda z: model.log_likelihood(z[:, None], few)[:, 0], z), tried
        )
        if fault is not None:
            warnings.warn(
                f"{fault.text} The search stays near the prior's mode, and the proposal is bad. Make the likelihood "
                "differentiable, or take a proposal without gradients, such as the prior.",
                stacklevel=2,
            )

        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_(True)
            adam = torch.optim.Adam([leaf], lr=self.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.num_steps)
            for _ in range(self.num_steps):
                (leaf.grad,) = torch.autograd.grad(energy(leaf).sum(), leaf)
                adam.step()
                schedule.step()
            mode = leaf.detach()
            hessian = _hessian(energy, mode)
        values, vectors = torch.linalg.eigh(hessian)
        floor = 1 / model.prior.variance.max()
        covariance = (vectors / values.clamp(min=floor)[:, None, :]) @ vectors.mT
        return MultivariateNormal(mode, scale_tril=self.widen * torch.linalg.cholesky(covariance))


def _best_of_prior(model: LatentLikelihood, y: Tensor) -> Tensor:
    with torch.no_grad():
        starts = model.prior.sample((NUM_STARTS,))
        return starts[model.pairwise_log_likelihood(model.decode(starts), y).argmax(-1)]


def _hessian(energy: Any, z: Tensor) -> Tensor:
    """Return the second derivatives of the energy of each row, `(row, dim, dim)`."""
    leaf = z.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(leaf).sum(), leaf, create_graph=True)
    columns = []
    for column in gradient.unbind(-1):
        second = torch.zeros_like(z)
        # A piecewise linear generator and loss have a constant gradient, which has no graph.
        if column.requires_grad:
            (second,) = torch.autograd.grad(column.sum(), leaf, retain_graph=True, materialize_grads=True)
        columns.append(second)
    hessian = torch.stack(columns, -1)
    return (hessian + hessian.mT) / 2
