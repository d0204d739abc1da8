"""A fresh critic for a frozen generator; its held-out loss and the overlap that it leaves end its training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_gan import checks
from pyro_gan._networks import check_eval
from pyro_gan._typing import Generator
from pyro_gan.objectives.base import Objective, Penalty
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.probes import probe_critic, probe_generator
from pyro_gan.ratio._boosted import judge_reference
from pyro_gan.ratio._contest import winner
from pyro_gan.ratio._course import Course
from pyro_gan.ratio._fit_checks import (
    check_generated,
    check_network,
    check_settings,
    held_out_number,
    make_networks,
    range_complaint,
)
from pyro_gan.ratio._judge import Judge
from pyro_gan.ratio._links import Links
from pyro_gan.ratio._member import Recipe, train_member
from pyro_gan.ratio._scores import score_both
from pyro_gan.ratio._verdict import complaints
from pyro_gan.ratio.diagnostics import diagnose
from pyro_gan.ratio.ensemble import MeanLogRatio
from pyro_gan.ratio.heads import LogRatio

__all__ = ["fit_log_ratio"]

#: Time of a network if the ones before have used up all.
MIN_SECONDS = 0.1


def fit_log_ratio(
    generator: Generator,
    prior: torch.distributions.Distribution,
    data: Float[Tensor, "draw *event"],
    network: nn.Module | Callable[[], nn.Module],
    *,
    objective: Objective = Bernoulli(),
    penalty: Penalty | None = None,
    min_ess_fraction: float = 0.1,
    num_networks: int = 1,
    num_bridges: int = 0,
    num_steps: int = 20_000,
    max_seconds: float = 180.0,
    batch_size: int = 128,
    validation_fraction: float = 0.1,
    num_validation_draws: int = 10_000,
    eval_every: int = 50,
    patience: int = 20,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    reference: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> LogRatio:
    r"""Train a fresh critic to tell data from a frozen generator's output, for as long as it learns.

    At its optimum the critic gives :math:`\log r = \log p_{data} - \log p_G`. As it comes closer, fewer draws of G
    carry the weights r: their effective share is

    .. math:: \frac{(\sum_i r_i)^2}{n \sum_i r_i^2}, \qquad r_i = r(G(z_i)),\; z_i \sim p_0 .

    A sampler cannot use a ratio that leaves a share near zero. The critic is evaluated every `eval_every` steps on
    rows held out to choose. The state returned has the lowest loss among those with a share of at least
    `min_ess_fraction`. If after `patience` evaluations there is no better one, or three in a row leave a smaller
    share, training goes back to the best state and the learning rate falls to a quarter; at the third time it ends. It
    also ends after `num_steps` or `max_seconds`, and in the last fifth of these the rate falls to zero. The report
    comes from other rows, which have chosen nothing. All rows and draws come from torch's generator. An exception, such
    as that of a Ctrl-C, leaves the network in the best state that has been passed, and is raised.

    Scale the inputs inside the network: structure much finer than 1 is learnt slowly. A generator whose every pixel
    gives it away leaves no overlap; then fit the ratio of features f(x), which is exact for the distribution of f(x)
    and overlaps at least as much. A frozen encoder inside the network does that; its parts that have parameters and
    train none stay in evaluation mode:

    .. code-block:: python

        encoder.requires_grad_(False)
        network = nn.Sequential(encoder, toys.MLP([84, 128, 1]))

    Args:
        generator: Maps latents `(batch, *latent)` to data `(batch, *event)`; it may be a simulator with its own noise.
        prior: Distribution of the latents.
        data: Real rows, `(draw, *event)`, of the generator's dtype and device. They must not be those that later
            judge the samples.
        network: An untrained critic, `(batch, *event) -> (batch,)` or `(batch, 1)`, which trains in place; or a
            function without arguments that makes one.
        objective: What the critic minimises; it must determine a ratio.
        penalty: A `Penalty` on the critic that is added to its loss, or None. On pairs of flows with an exact ratio
            `GradientPenalty(0.01, slope=0.0)` lowered the errors of log r and of its gradient by a tenth where 1000
            rows showed a weak difference, and raised them with 10 000 rows or a strong one.
        min_ess_fraction: Smallest effective share of draws that the ratio must leave, in [0, 1). It is measured on
            `num_validation_draws` and for the best of several states. Over many more draws the share is lower (on a GAN
            of digits .33 became .25, and .10 became .06).
        num_networks: Number k of networks. Each is trained without one k-th of the rows, which choose its state. The
            ratio is the mean of their log ratios, a `MeanLogRatio`, which has an error bar. For k > 1 give a function
            that makes a network.
        num_bridges: Number k of distributions between the generated and the real rows, for telescoping. If it is above
            0, half of the time fits a single network, half fits k + 1 networks whose log ratios add up, a
            `SumLogRatio`; the lower loss on the rows that choose decides which is returned. It helps where the two
            sides hardly overlap, with a `min_ess_fraction` of 0: on Gaussians in 20 dimensions, 14 nats apart, the
            error of log r over data fell from 5.4 nats to 1.1. Give a function that makes a network; k + 2 are needed.
        num_steps: Largest number of steps of one network.
        max_seconds: Largest time in seconds, of all networks together.
        batch_size: Number of real rows in a step, and of generated rows.
        validation_fraction: Share of the data held out to choose the state, in (0, 1), and again to judge it.
        num_validation_draws: Number of generated rows, drawn once, for the choice, and again for the report.
        eval_every: Steps between evaluations; a checkpoint is written at each evaluation.
        patience: Evaluations without a better held-out loss before the learning rate falls.
        optimizer: Maps parameters to an optimiser; by default AdamW, learning rate 1e-3, weight decay 1e-2.
        scheduler: Maps an optimiser to a scheduler, which then alone sets the rate; training ends where otherwise the
            rate would fall. None for the schedule above.
        reference: Whether boosted trees (scikit-learn's) are fitted to the same rows, to find out if they know more.
        checkpoint: Path of a file, one for each network. If it exists the run continues from it, with the same bits as
            an unbroken run unless `max_seconds` is nearly used up.
        progress: Whether to show a bar with the loss.

    Returns:
        The log ratio, in evaluation mode, around `network`. Its `report` judges it on rows that neither trained nor
        chose it, its `frontier` is the `FrontierPoint` of every evaluation, `ended` says why training ended, and
        `reference` compares it with the trees, `telescoping` a telescoped ratio with a single network. The frontier of
        a telescoped ratio has the mean loss of its networks. With several networks the ratio is around a
        `MeanLogRatio`, whose members have a frontier each.

    Raises:
        ValueError: if an argument is out of range or does not fit the others, or a checkpoint belongs to another run,
            is damaged or in use.
        NonFiniteLoss: if the training loss turns NaN or infinite.
        RuntimeError: if no evaluation found enough overlap; the message shows all evaluations.
        ImportError: if a reference is wanted and scikit-learn is missing.

    Warns:
        UserWarning: if data and draws have different ranges; if on the rows that judge the ratio separates the sides,
            is no better than a constant, has no finite slope or a mean far from 1, or boosted trees know more.

    References:
        Metropolis-Hastings Generative Adversarial Networks, R. Turner et al., 2019, https://arxiv.org/abs/1811.11357;
        Your GAN is Secretly an Energy-based Model and You Should Use Discriminator Driven Latent Sampling, T. Che et
        al., 2020, https://arxiv.org/abs/2003.06060;
        Telescoping Density-Ratio Estimation, B. Rhodes, K. Xu and M. U. Gutmann, 2020,
        https://arxiv.org/abs/2006.12204

    Example:
        >>> prior = torch.distributions.Normal(0.0, 1.0).expand([1])
        >>> data = 1.0 + torch.randn(2000, 1)
        >>> log_ratio = fit_log_ratio(
        ...     nn.Identity(), prior, data, nn.Linear(1, 1), num_steps=100, progress=False,
        ...     optimizer=lambda p: torch.optim.Adam(p, lr=0.05),
        ... )
        >>> log_ratio(torch.zeros(3, 1)).shape
        torch.Size([3])
        >>> log_ratio.report.auc > 0.6
        True
    """
    settings: dict[str, Any] = {
        "min_ess_fraction": min_ess_fraction,
        "num_networks": num_networks,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "validation_fraction": validation_fraction,
        "num_validation_draws": num_validation_draws,
        "eval_every": eval_every,
        "patience": patience,
    }
    check_settings(settings | {"max_seconds": max_seconds, "num_bridges": num_bridges})
    for name, maker in (("optimizer", optimizer), ("scheduler", scheduler)):
        if not (maker is None or callable(maker)):
            raise ValueError(f"Expected {name} to be a function or None; got {checks.shown(maker)}.")
    if penalty is not None:
        checks.instance("penalty", penalty, Penalty)
    check_eval(checks.function("generator", generator), "generator")
    checks.instance("prior", prior, torch.distributions.Distribution)
    num_held_out = held_out_number(data, validation_fraction)
    # For each fold one network, and those of a telescoped ratio.
    sizes = [1, num_bridges + 1] if num_bridges else [1]
    networks = make_networks(network, num_networks * sum(sizes))
    for made in networks:
        check_network(made, data)
    of_networks = iter([LogRatio(made, objective) for made in networks])
    folds = [[Links(list(islice(of_networks, size))) for size in sizes] for _ in range(num_networks)]

    def draw_generated(num_draws: int) -> Tensor:
        with torch.no_grad():
            return generator(prior.sample(torch.Size([num_draws])))

    probe_generator(generator, prior)
    check_generated(draw_generated, data)
    for made in networks:
        probe_critic(made, data)
    settings |= {"data of shape": list(data.shape), "objective": objective, "penalty": penalty}
    left, num_left, start = max_seconds, num_networks * len(sizes), None
    log_ratios: list[LogRatio] = []
    for fold, contestants in enumerate(folds):
        judges = []
        for links in contestants:
            path = checkpoint if checkpoint is None or num_networks == 1 else f"{os.fspath(checkpoint)}.{fold}"
            path = path if path is None or not links.has_bridges else f"{os.fspath(path)}.bridges"
            recipe = Recipe(penalty, optimizer, scheduler, path, progress)
            # Time that one run leaves is shared by the next ones.
            seconds, num_left = left / num_left, num_left - 1
            adam = recipe.make_optimizer(links.network)
            course = Course(adam, scheduler is None, num_steps, seconds, patience, min_ess_fraction)
            place = fold, num_networks
            judge = Judge(links, data, draw_generated, num_held_out, course, settings, place, start=start)
            if start is None and (complaint := range_complaint(data, judge.generated)):
                warnings.warn(complaint, stacklevel=2)
            train_member(judge, course, recipe)
            start = judge.start
            # The last evaluation may have taken longer than was allowed.
            left = max(left - course.seconds, MIN_SECONDS)
            judges.append(judge)
        judge = winner(judges)
        log_ratios.append(judge.links.log_ratio)
    log_ratio = log_ratios[0] if num_networks == 1 else LogRatio(MeanLogRatio(log_ratios), Bernoulli()).eval()
    log_ratio.ended = "; ".join(member.ended for member in log_ratios)
    scores = score_both(log_ratio, *judge.judging_sets)
    log_ratio.report = diagnose(*scores)
    for complaint in complaints(log_ratio.report, scores):
        warnings.warn(complaint, stacklevel=2)
    if reference:
        log_ratio.reference = judge_reference(judge, scores)
        if complaint := log_ratio.reference.complaint:
            warnings.warn(complaint, stacklevel=2)
    return log_ratio
