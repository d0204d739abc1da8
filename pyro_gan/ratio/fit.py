"""A fresh critic for a frozen generator, stopped by its held-out loss and by the overlap that it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from pyro_gan._networks import check_eval
from pyro_gan._typing import Generator
from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.ratio._judge import Judge, best_point
from pyro_gan.ratio.diagnostics import FrontierPoint
from pyro_gan.ratio.heads import LogRatio, critic_scores
from pyro_gan.training import Player, train

__all__ = ["fit_log_ratio"]

# With fewer rows one held-out loss could not be told from the next.
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
    r"""Train a fresh critic between data and a frozen generator, and stop it while the two still overlap.

    At its optimum the critic gives :math:`\log r = \log p_{data} - \log p_G`. The closer it comes, the fewer draws
    of G carry the weights r: their effective share is

    .. math:: \frac{(\sum_i r_i)^2}{n \sum_i r_i^2}, \qquad r_i = r(G(z_i)),\; z_i \sim p_0 .

    A sampler cannot use a ratio that leaves a share near zero. So of the states passed, every `eval_every` steps, the
    one returned has the lowest held-out loss among those with a share of `min_ess_fraction` or more. Training ends
    after `num_steps`, after three evaluations in a row with a smaller share, or after `patience` evaluations without
    a better loss. The network trains in place; it needs dropout, weight decay or a small size, since the loss is
    that of rows it has not seen. Randomness comes from torch's generator: the held-out rows, the draws they are
    compared with, and the batches.

    Two things matter more than the network. Its inputs: structure much finer than 1 is learnt slowly, so scale them
    up inside the network. And `num_steps`: a run stopped early for lack of overlap stops at a high learning rate,
    and one with just enough steps for the rate to reach zero gives the better ratio at the same overlap.

    Args:
        generator: Maps latents `(batch, *latent)` to data `(batch, *event)`; a simulator will do.
        prior: Of the latents.
        data: Real rows, `(draw, *event)`, of the generator's dtype and device. They must not be those that later
            judge the samples.
        network: An untrained critic, `(batch, *event) -> (batch,)` or `(batch, 1)`.
        objective: What the critic minimises; it must determine a ratio.
        min_ess_fraction: Smallest share of draws that the ratio must leave, in [0, 1). It is met on
            `num_validation_draws`, by the best of several states; over many more draws it is lower (on a GAN of
            digits .33 became .25, and .10 became .06).
        num_steps: Steps at most.
        batch_size: Real rows a step, and generated rows a step.
        validation_fraction: Share of the data held out, in (0, 1).
        num_validation_draws: Generated rows, fixed, for the held-out figures.
        eval_every: Steps between evaluations; a checkpoint is written at each.
        patience: Evaluations without a better held-out loss before training ends.
        optimizer: Makes an optimiser of parameters; by default AdamW, learning rate 1e-3, weight decay 1e-2.
        scheduler: Makes a scheduler of an optimiser; by default the rate falls linearly to zero at `num_steps`.
        checkpoint: Path of a file. If it exists the run goes on from it, to the same bits as without a break.
        progress: Show a bar with the loss.

    Returns:
        The log ratio, in evaluation mode, around `network`. Its `report` judges it on the held-out rows, its
        `frontier` is the `FrontierPoint` of every evaluation.

    Raises:
        ValueError: if anything given does not fit.
        NonFiniteLoss: if the training loss turns NaN or infinite.
        RuntimeError: if no evaluation found enough overlap; the message shows the frontier.

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
    _check_settings(settings)
    log_ratio = LogRatio(network, objective)
    check_eval(generator, "generator")
    num_held_out = _check_data(data, validation_fraction)
    _check_network(network, data)

    def draw_generated(num_draws: int) -> Tensor:
        with torch.no_grad():
            return generator(prior.sample(torch.Size([num_draws])))

    _check_generated(draw_generated, data)
    judge = Judge(
        network,
        log_ratio,
        data,
        draw_generated,
        num_held_out=num_held_out,
        num_draws=num_validation_draws,
        min_ess_fraction=min_ess_fraction,
        eval_every=eval_every,
        patience=patience,
        settings={"data of shape": list(data.shape), "objective": repr(objective), **settings},
    )

    def next_batch() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(judge.training_rows), (batch_size,), device=data.device)
        return data[judge.training_rows[index]], draw_generated(batch_size)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        # In one batch: a BatchNorm that saw the classes apart would have other statistics when it is used.
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
    if best_point(judge.frontier, min_ess_fraction) is None:
        raise RuntimeError(_no_overlap(judge.frontier, min_ess_fraction))
    network.load_state_dict(judge.best)
    log_ratio.report, _ = judge.report()
    log_ratio.frontier = tuple(judge.frontier)
    return log_ratio


def _no_overlap(frontier: Sequence[FrontierPoint], min_ess_fraction: float) -> str:
    rows = [
        f"{step:6d}  {log_loss:8.4f}  {auc:5.3f}  {ess_fraction:12.5f}"
        for step, log_loss, auc, ess_fraction in frontier
    ]
    return "\n".join(
        [
            f"No evaluation found the wanted overlap: all ESS fractions are below {min_ess_fraction=}.",
            "  step  log loss    AUC  ESS fraction",
            *rows,
            "Lower min_ess_fraction; or learn less, by a smaller network or learning rate, dropout or more weight "
            "decay; or evaluate earlier, by a smaller eval_every. Where all losses are above log 2 = 0.6931 nothing "
            "was learnt: train longer, or at another learning rate.",
        ]
    )


def _check_settings(settings: Mapping[str, Any]) -> None:
    if not 0 <= settings["min_ess_fraction"] < 1:
        raise ValueError(
            f"Expected min_ess_fraction in [0, 1); got {settings['min_ess_fraction']}. It is the effective share of "
            "draws that the ratio must leave; only a constant ratio leaves 1."
        )
    if not 0 < settings["validation_fraction"] < 1:
        raise ValueError(
            f"Expected validation_fraction strictly between 0 and 1; got {settings['validation_fraction']}. "
            "It is the share of the data held out."
        )
    for name in ("num_steps", "batch_size", "eval_every", "patience"):
        if settings[name] < 1:
            raise ValueError(f"Expected {name} of at least 1; got {settings[name]}.")
    if settings["num_validation_draws"] < MIN_ROWS:
        raise ValueError(
            f"Expected num_validation_draws of at least {MIN_ROWS}; got {settings['num_validation_draws']}. "
            "The effective share of fewer says nothing."
        )


def _check_data(data: Tensor, validation_fraction: float) -> int:
    """Return the number of rows to hold out, or raise."""
    if not isinstance(data, Tensor) or not data.is_floating_point() or data.dim() < 1:
        raise ValueError(
            f"Expected data as a tensor of floats, (draw, *event); got a {type(data).__name__} of "
            f"{getattr(data, 'dtype', 'no dtype')} and shape {tuple(getattr(data, 'shape', ()))}. "
            "Scale images as the generator does, for instance x.float() / 127.5 - 1."
        )
    num_held_out = round(validation_fraction * len(data))
    num_trained = len(data) - num_held_out
    if min(num_held_out, num_trained) < MIN_ROWS:
        raise ValueError(
            f"Expected at least {MIN_ROWS} rows to hold out and {MIN_ROWS} to train on; {len(data)} rows with "
            f"{validation_fraction=} give {num_held_out} and {num_trained}. Collect more, or hold out another share."
        )
    return num_held_out


def _check_network(network: nn.Module, data: Tensor) -> None:
    """Raise unless the network can be trained on such data; leave it in evaluation mode."""
    parameter = next((p for p in network.parameters() if p.requires_grad), None)
    if parameter is None:
        raise ValueError("Expected a network with parameters that require a gradient; it has none.")
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
                f"The network cannot be run on data of shape {tuple(data[:2].shape)}: {error}. "
                "Give one that takes (batch, *event), or reshape the data."
            ) from error


def _check_generated(draw_generated: Callable[[int], Tensor], data: Tensor) -> None:
    """Raise unless draws look like data."""
    try:
        generated = draw_generated(2)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"The generator cannot be run on draws of the prior: {error}. Give a prior of the latent shape, dtype "
            "and device that it takes."
        ) from error
    if not isinstance(generated, Tensor):
        raise ValueError(f"Expected a tensor from the generator; got {type(generated).__name__}.")
    if generated.shape != data[:2].shape:
        raise ValueError(
            f"Expected generated data of shape {tuple(data[:2].shape)} for 2 latents, as the real ones; got "
            f"{tuple(generated.shape)}. Reshape the data, or wrap the generator."
        )
    if generated.dtype != data.dtype or generated.device != data.device:
        raise ValueError(
            f"Expected data of the generator's dtype and device, {generated.dtype} on {generated.device}; got "
            f"{data.dtype} on {data.device}. Move the data with .to(...)."
        )
