"""A fresh critic for a frozen generator; its held-out loss and the overlap that it leaves end its training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from pyro_gan import checks
from pyro_gan._networks import check_eval, critic_scores
from pyro_gan._probe import probe_critic, probe_generator
from pyro_gan._typing import Generator
from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.ratio._judge import Judge
from pyro_gan.ratio.diagnostics import FrontierPoint
from pyro_gan.ratio.heads import LogRatio
from pyro_gan.training import Player, train

__all__ = ["fit_log_ratio"]

# With fewer rows the noise of a held-out loss exceeds its changes.
MIN_ROWS = 50


def fit_log_ratio(
    generator: Generator,
    prior: torch.distributions.Distribution,
    data: Float[Tensor, "draw *event"],
    network: nn.Module,
    *,
    objective: Objective = Bernoulli(),
    min_ess_fraction: float = 0.1,
    num_steps: int = 1000,
    batch_size: int = 128,
    validation_fraction: float = 0.1,
    num_validation_draws: int = 10_000,
    eval_every: int = 50,
    patience: int = 20,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> LogRatio:
    r"""Train a fresh critic to tell data from a frozen generator's output, and stop while the two still overlap.

    At its optimum the critic gives :math:`\log r = \log p_{data} - \log p_G`. As it comes closer, fewer draws of G
    carry the weights r: their effective share is

    .. math:: \frac{(\sum_i r_i)^2}{n \sum_i r_i^2}, \qquad r_i = r(G(z_i)),\; z_i \sim p_0 .

    A sampler cannot use a ratio that leaves a share near zero. The critic is evaluated every `eval_every` steps. The
    state returned has the lowest held-out loss among those with a share of at least `min_ess_fraction`. Training ends
    after `num_steps`, after three evaluations in a row with a smaller share, or after `patience` evaluations without
    a better loss. The network trains in place; it needs dropout, weight decay or a small size, because the loss is
    measured on rows that it has not seen. The held-out rows, the draws they are compared with, and the batches come
    from torch's generator.

    Two things matter more than the network. First its inputs: structure much finer than 1 is learnt slowly, so scale
    the inputs up inside the network. Then `num_steps`: a run that ends early for lack of overlap ends at a high
    learning rate. A run with just enough steps for the rate to reach zero gives a better ratio at the same overlap.

    Args:
        generator: Maps latents `(batch, *latent)` to data `(batch, *event)`; it may be a simulator with its own noise.
        prior: Distribution of the latents.
        data: Real rows, `(draw, *event)`, of the generator's dtype and device. They must not be those that later
            judge the samples.
        network: An untrained critic, `(batch, *event) -> (batch,)` or `(batch, 1)`.
        objective: What the critic minimises; it must determine a ratio.
        min_ess_fraction: Smallest effective share of draws that the ratio must leave, in [0, 1). It is measured on
            `num_validation_draws` and for the best of several states. Over many more draws the share is lower (on a GAN
            of digits .33 became .25, and .10 became .06).
        num_steps: Largest number of steps.
        batch_size: Number of real rows in a step, and of generated rows.
        validation_fraction: Share of the data held out, in (0, 1).
        num_validation_draws: Number of generated rows, drawn once, for the held-out figures.
        eval_every: Steps between evaluations; a checkpoint is written at each evaluation.
        patience: Evaluations without a better held-out loss before training ends.
        optimizer: Maps parameters to an optimiser; by default AdamW, learning rate 1e-3, weight decay 1e-2.
        scheduler: Maps an optimiser to a scheduler; by default the rate falls linearly to zero at `num_steps`.
        checkpoint: Path of a file. If it exists the run continues from it, with the same bits as an unbroken run.
        progress: Whether to show a bar with the loss.

    Returns:
        The log ratio, in evaluation mode, around `network`. Its `report` judges it on the held-out rows, its
        `frontier` is the `FrontierPoint` of every evaluation.

    Raises:
        ValueError: if an argument is out of range or does not fit the others.
        NonFiniteLoss: if the training loss turns NaN or infinite.
        RuntimeError: if no evaluation found enough overlap; the message shows all evaluations.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner et al., 2019, https://arxiv.org/abs/1811.11357;
        Your GAN is Secretly an Energy-based Model and You Should Use Discriminator Driven Latent Sampling, T. Che et
        al., 2020, https://arxiv.org/abs/2003.06060

    Example:
        >>> prior = torch.distributions.Normal(0.0, 1.0).expand([1])
        >>> data = 1.0 + torch.randn(2000, 1)
        >>> log_ratio = fit_log_ratio(
        ...     nn.Identity(), prior, data, nn.Linear(1, 1), num_steps=100, optimizer=lambda p: AdamW(p, lr=0.05),
        ...     progress=False,
        ... )
        >>> log_ratio(torch.zeros(3, 1)).shape
        torch.Size([3])
        >>> log_ratio.report.auc > 0.6
        True
    """
    settings = {
        "min_ess_fraction": min_ess_fraction,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "validation_fraction": validation_fraction,
        "num_validation_draws": num_validation_draws,
        "eval_every": eval_every,
        "patience": patience,
    }
    for name in ("num_steps", "batch_size", "eval_every", "patience"):
        checks.count(name, settings[name])
    few = "The effective share of fewer draws is not reliable."
    checks.count("num_validation_draws", num_validation_draws, minimum=MIN_ROWS, cure=few)
    overlap = "It is the effective share of draws that the ratio must leave; only a constant ratio leaves 1."
    checks.real("min_ess_fraction", min_ess_fraction, minimum=0, below=1, cure=overlap)
    share = "It is the share of the data held out."
    checks.real("validation_fraction", validation_fraction, above=0, below=1, cure=share)
    for name, maker in (("optimizer", optimizer), ("scheduler", scheduler)):
        if not (maker is None or callable(maker)):
            raise ValueError(f"Expected {name} to be a function or None; got {checks.shown(maker)}.")
    check_eval(checks.function("generator", generator), "generator")
    checks.instance("prior", prior, torch.distributions.Distribution)
    num_held_out = _num_held_out(data, validation_fraction)
    _check_network(network, data)
    log_ratio = LogRatio(network, objective)

    def draw_generated(num_draws: int) -> Tensor:
        with torch.no_grad():
            return generator(prior.sample(torch.Size([num_draws])))

    probe_generator(generator, prior)
    _check_generated(draw_generated, data)
    probe_critic(network, data)
    judge = Judge(
        network,
        log_ratio,
        data,
        draw_generated,
        num_held_out=num_held_out,
        settings={"data of shape": list(data.shape), "objective": repr(objective), **settings},
    )

    def next_batch() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(judge.training_rows), (batch_size,), device=data.device)
        return data[judge.training_rows[index]], draw_generated(batch_size)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        # In one batch: a BatchNorm that saw one class at a time would have other statistics than in use.
        scores = critic_scores(network, torch.cat(batch))
        return objective.critic_loss(scores[:batch_size], scores[batch_size:])

    trained = [p for p in network.parameters() if p.requires_grad]
    adam = AdamW(trained, lr=1e-3, weight_decay=1e-2) if optimizer is None else optimizer(trained)
    decay = LinearLR(adam, 1.0, 0.0, num_steps) if scheduler is None else scheduler(adam)
    network.train()
    train(
        [Player("critic", network, adam, loss, scheduler=decay)],
        next_batch,
        num_steps=num_steps,
        callback=judge,
        state=judge,
        checkpoint=checkpoint,
        checkpoint_every=eval_every,
        progress=progress,
    )
    if not judge.best:
        raise RuntimeError(_no_overlap(judge.frontier, min_ess_fraction))
    network.load_state_dict(judge.best)
    log_ratio.report, _ = judge.report()
    log_ratio.frontier = tuple(judge.frontier)
    return log_ratio


def _no_overlap(frontier: Sequence[FrontierPoint], min_ess_fraction: float) -> str:
    rows = "".join("{:6d}  {:8.4f}  {:5.3f}  {:12.5f}\n".format(*point) for point in frontier)
    return (
        f"No evaluation found the wanted overlap: all ESS fractions are below {min_ess_fraction=}.\n"
        f"  step  log loss    AUC  ESS fraction\n{rows}"
        "Lower min_ess_fraction; or let the critic learn less, with a smaller network or learning rate, dropout or "
        "more weight decay; or evaluate earlier, with a smaller eval_every. If all losses are above log 2 = 0.6931 "
        "nothing was learnt: train longer, or with another learning rate."
    )


def _num_held_out(data: Tensor, validation_fraction: float) -> int:
    """Return the number of rows to hold out, or raise if the data do not allow it."""
    cure = "Scale images as the generator does, for instance x.float() / 127.5 - 1."
    checks.rows("real data", data, cure=cure)
    num_held_out = round(validation_fraction * len(data))
    num_trained = len(data) - num_held_out
    if min(num_held_out, num_trained) < MIN_ROWS:
        raise ValueError(
            f"Expected at least {MIN_ROWS} rows to hold out and {MIN_ROWS} to train on; {len(data)} rows with "
            f"{validation_fraction=} give {num_held_out} and {num_trained}. Collect more, or hold out another share."
        )
    return num_held_out


def _check_network(network: nn.Module, data: Tensor) -> None:
    """Raise unless the network can be trained on such data. It is in evaluation mode afterwards."""
    parameter = next((p for p in checks.instance("network", network, nn.Module).parameters() if p.requires_grad), None)
    if parameter is None:
        raise ValueError("Expected a network with parameters that require a gradient; got a network without.")
    if parameter.device != data.device or parameter.dtype != data.dtype:
        raise ValueError(
            f"Expected network and data of one dtype and device; got {parameter.dtype} on {parameter.device} and "
            f"{data.dtype} on {data.device}. Move one with .to(...)."
        )
    network.eval()
    with torch.no_grad():
        try:
            critic_scores(network, data[:2])
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"Expected a network that takes (batch, *event); got {error} on data of shape {tuple(data[:2].shape)}. "
                "Give another network, or reshape the data."
            ) from error


def _check_generated(draw_generated: Callable[[int], Tensor], data: Tensor) -> None:
    """Raise unless draws look like data."""
    try:
        generated = draw_generated(2)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"Expected a generator that takes draws of the prior; got {error}. Give a prior of the shape, dtype and "
            "device that the generator takes."
        ) from error
    cure = "That is the shape of 2 real rows. Reshape the data, or wrap the generator."
    checks.shaped("generated data", generated, data[:2].shape, cure=cure)
    if generated.dtype != data.dtype or generated.device != data.device:
        raise ValueError(
            f"Expected data of the generator's dtype and device, {generated.dtype} on {generated.device}; got "
            f"{data.dtype} on {data.device}. Move the data with .to(...)."
        )
