"""The transport potential of a generator that is not trained: `fit_transport`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, final

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_gan._networks import check_eval
from pyro_gan._typing import Generator
from pyro_gan.checks import count, function, instance
from pyro_gan.objectives.entropic import EntropicTransport
from pyro_gan.training import Batches, Player, train

__all__ = ["FittedTransport", "fit_transport"]

#: Generated rows are cheap, and the bias comes from the log of their mean.
GENERATED_PER_REAL = 4


@final
class FittedTransport(NamedTuple):
    """A fitted potential, in evaluation mode.

    Attributes:
        critic: The critic; `objective.potential(critic)` is what `Coupling` takes.
        cost: Transport cost between fresh generated draws and the last batches of data; see `EntropicTransport.cost`.
        num_steps: Steps done.
    """

    critic: nn.Module
    cost: float
    num_steps: int


def fit_transport(
    generator: Generator,
    critic: nn.Module,
    *,
    prior: TorchDistribution,
    data: Tensor | Iterable[Any],
    objective: EntropicTransport,
    optimizer: Optimizer,
    num_steps: int,
    batch_size: int | None = None,
    scheduler: LRScheduler | None = None,
    num_report: int = 4000,
    progress: bool = True,
) -> FittedTransport:
    """Fit the potential of the entropic transport between data and a generator that is not trained.

    The critic that trained a generator lags behind it. To get the tightest surrogate likelihood for this generator, fit
    a potential to the finished generator.

    Args:
        generator: Latents `(batch, *latent)` to data, in evaluation mode.
        critic: Data to one output for each row, or to two in the objective's dual form.
        prior: The distribution of the latents.
        data: As for `fit_gan`.
        objective: Loss, lambda and form.
        optimizer: The optimiser of the critic's parameters.
        num_steps: Number of updates.
        batch_size: Rows of a batch, if `data` is a tensor; large batches keep the semi-dual's bias small. Four times as
            many rows are generated for each batch.
        scheduler: The scheduler of the optimiser, stepped once after each update. A learning rate that falls to 0 helps
            much here.
        num_report: The cost is measured on this many generated rows and at least as many rows of data.
        progress: Show a bar with the loss.

    Returns:
        The critic, and the cost.

    Raises:
        ValueError: if an argument does not fit, the generator is in training mode, generated data have another shape
            than real ones, or the data end.
        NonFiniteLoss: naming the step.

    Example:
        >>> import pyro.distributions as dist
        >>> critic = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> fitted = fit_transport(
        ...     nn.Linear(1, 1), critic, prior=dist.Normal(torch.zeros(1), 1.0).to_event(1), data=torch.randn(500, 1),
        ...     objective=EntropicTransport(regularization=0.7), num_steps=5, batch_size=64, progress=False,
        ...     optimizer=torch.optim.Adam(critic.parameters(), lr=0.01),
        ... )
        >>> fitted.num_steps
        5
    """
    check_eval(function("generator", generator), "generator")
    instance("objective", objective, EntropicTransport)
    prior, num_report = instance("prior", prior, Distribution), count("num_report", num_report)
    device = next(instance("critic", critic, nn.Module).parameters(), torch.empty(0)).device
    batches = Batches(data, batch_size=batch_size, device=device)

    def generate(num_rows: int) -> Tensor:
        with torch.no_grad():
            return generator(prior.sample((num_rows,)))

    def loss(real: Tensor) -> Tensor:
        return objective.critic_loss(critic, real, generate(GENERATED_PER_REAL * len(real)))

    critic.train()
    try:
        player = Player("critic", critic, optimizer, loss, scheduler=scheduler)
        done = train([player], batches, num_steps=num_steps, progress=progress)
    finally:
        critic.eval()
    real = [batches()]
    while sum(map(len, real)) < num_report:
        real.append(batches())
    cost = objective.cost(critic, torch.cat(real), generate(num_report))
    return FittedTransport(critic, float(cost), done)
