"""From a critic's output to the log density ratio: the one callable that everything else takes."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import by_chunk, by_row, check_eval, critic_scores
from pyro_gan._typing import Critic, replicates_of
from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.objectives.up_to_constant import DonskerVaradhan, Normalised
from pyro_gan.probes import probe_critic
from pyro_gan.ratio._holdout import data_rows
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport
from pyro_gan.ratio.reference import Reference
from pyro_gan.ratio.telescope import Telescoping

__all__ = ["LogRatio", "look_like_probabilities"]

#: Sum, in nats, that log ratios of generated rows reach by chance once in 100 000 times at most.
MAX_CHANCE_SUM = math.log(1e5)

#: Probabilities span at least so much. An untrained critic may return nearly the same positive number for all rows.
MIN_SPAN = 0.4


@final
class LogRatio(nn.Module):
    r"""A critic and the objective that trained it, as the function :math:`x \mapsto \log p_{data}(x) - \log p_G(x)`.

    The objective has no default. The commonest error here is to take a Wasserstein critic for a logit, and no number
    would show it. If the training of a critic is unknown, use `calibrate`.

    Args:
        critic: `(batch, *event) -> (batch,)` or `(batch, 1, ..., 1)`. A module becomes a submodule and shares its
            weights; any other callable is held as it is.
        objective: The objective that the critic was trained with, for example `Bernoulli()` for binary cross-entropy on
            logits.

    Raises:
        ValueError: if the critic is no function, or the objective's optimum does not determine a ratio, with the cure.

    Warns:
        UserWarning: if the objective takes logits and the critic ends in a sigmoid: its outputs are probabilities.

    References:
        Learning in Implicit Generative Models, S. Mohamed and B. Lakshminarayanan, 2016,
        https://arxiv.org/abs/1610.03483

    Example:
        >>> log_ratio = LogRatio(nn.Linear(2, 1), Bernoulli())
        >>> log_ratio(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, critic: Critic, objective: Objective) -> None:
        super().__init__()
        cure = "Give the one that trained the critic, such as Bernoulli(), or use calibrate(critic, real, generated)."
        checks.instance("objective", objective, Objective, cure=cure)
        # An objective without a ratio raises on this empty batch, not later in the middle of a chain.
        objective.log_ratio(torch.empty(0))
        self.critic = checks.function("critic", critic)
        if isinstance(objective, Bernoulli) and _ends_in_sigmoid(critic):
            warnings.warn(
                f"Expected a critic that returns logits; got a {type(critic).__name__} that ends in a sigmoid, and so "
                "returns probabilities. Build the log ratio by LogRatio.from_probability(discriminator).",
                stacklevel=2,
            )
        self.objective = objective
        #: The held-out verdict and all evaluations, if `fit_log_ratio` made this; None and empty otherwise.
        self.report: RatioReport | None = None
        self.frontier: tuple[FrontierPoint, ...] = ()
        #: Why the training in `fit_log_ratio` ended, and boosted trees beside it if they were asked for.
        self.ended: str = ""
        self.reference: Reference | None = None
        #: How a telescoped ratio and a single network compare, if both were fitted; this is the better one.
        self.telescoping: Telescoping | None = None

    @classmethod
    def from_probability(cls, discriminator: Critic) -> LogRatio:
        """Build the log ratio of a discriminator that returns probabilities, trained on as many real as generated rows.

        Of a sequential module that ends in a sigmoid, the layers before the sigmoid are used: their logit is exact. Any
        other discriminator D gives log D - log(1 - D), with D clamped to the open interval (0, 1) in its dtype. In
        float32 a D above about 1 - 6e-8 is exactly 1, and all such points get the same ratio and no gradient: the log
        ratio warns once when it meets one.

        Args:
            discriminator: `(batch, *event)` to probabilities of being real, `(batch,)` or `(batch, 1, ..., 1)`.

        Returns:
            The log ratio, sharing the discriminator's weights.

        Raises:
            ValueError: if the discriminator is no function; later, when the log ratio is called, if an output is
                outside [0, 1].

        Example:
            >>> discriminator = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
            >>> log_ratio = LogRatio.from_probability(discriminator)
            >>> x = torch.randn(4, 2)
            >>> torch.equal(log_ratio(x), discriminator[0](x).squeeze(-1))
            True
        """
        if isinstance(discriminator, nn.Sequential) and type(discriminator).forward is nn.Sequential.forward:
            # With `named_children` a layer that stands twice would come once.
            modules = discriminator.named_modules(remove_duplicate=False)
            layers = [(name, layer) for name, layer in modules if name and "." not in name]
            if layers and isinstance(layers[-1][1], nn.Sigmoid):
                logit = nn.Sequential(OrderedDict(layers[:-1]))
                # The layers keep their modes, and the new container takes the old one's.
                logit.training = discriminator.training
                return cls(logit, Bernoulli())
        return cls(LogOdds(checks.function("discriminator", discriminator)), Bernoulli())

    @classmethod
    def normalised(
        cls,
        critic: Critic,
        objective: DonskerVaradhan,
        *,
        generated: Float[Tensor, "row *event"],
        chunk_size: int | None = None,
    ) -> LogRatio:
        r"""Build the log ratio of a critic that gives it up to a constant, and find the constant.

        The mean of a ratio over generated data is 1. So for a critic :math:`v` of KLIEP's or Donsker and Varadhan's
        loss

        .. math:: \log r(x) = v(x) - \log E_G e^{v}.

        How good the mean over the given rows is depends on their effective sample size:
        `pyro_gan.importance.weight_tail` of the scores tells it.

        Args:
            critic: As for `LogRatio`, in evaluation mode. A conditional critic has one constant for each context:
                fix the context first, `lambda x: critic(x, label=label)`.
            objective: `KLIEP()` or `DonskerVaradhan()`.
            generated: Generated data, `(row, *event)`, that the critic has not been trained on.
            chunk_size: Rows of one pass; by default a number that suits the device.

        Returns:
            The log ratio, sharing the critic's weights. Its objective keeps the constant; its `state_dict` does not.

        Raises:
            ValueError: if the objective leaves no constant open, the critic is no function or in training mode, there
                are no rows, or data or scores are NaN or infinite.

        Example:
            >>> from pyro_gan.objectives import KLIEP
            >>> x = torch.randn(1000, 1)
            >>> log_ratio = LogRatio.normalised(nn.Linear(1, 1).eval(), KLIEP(), generated=x)
            >>> round(log_ratio(x).exp().mean().item(), 3)
            1.0
        """
        Normalised(objective, 0.0)  # refuses objectives that leave no constant open, before any work
        check_eval(checks.function("critic", critic), "critic")
        data_rows("generated", generated)
        probe_critic(critic, generated)
        chunk_size = None if chunk_size is None else checks.count("chunk_size", chunk_size)
        with torch.no_grad():
            scores = by_chunk(lambda rows: critic_scores(critic, rows), generated, chunk_size)
            constant = float(objective.log_constant(scores))
        return cls(critic, Normalised(objective, constant))

    @property
    def replicates(self) -> list[Critic]:
        """Log ratios that were each fitted without a part of the data, see `MeanLogRatio`; empty if there are none."""
        return [LogRatio(critic, self.objective) for critic in replicates_of(self.critic)]

    def extra_repr(self) -> str:
        """Name the objective in the module's `repr`."""
        return f"objective={self.objective!r}"

    def forward(self, x: Float[Tensor, "batch *event"], **context: Tensor) -> Float[Tensor, " batch"]:
        """Return the log ratio in nats.

        Args:
            x: Data, `(batch, *event)`.
            **context: Passed on to a conditional critic.

        Returns:
            `(batch,)`.

        Raises:
            ValueError: if the critic's output is not one number a row.
        """
        return by_row(self._nats, x, **context)

    def _nats(self, x: Tensor, **context: Tensor) -> Tensor:
        return self.objective.log_ratio(critic_scores(self.critic, x, **context))


def look_like_probabilities(log_ratios: Float[Tensor, " generated"]) -> bool:
    r"""Whether log ratios of generated rows can only be a discriminator's probabilities.

    All of them lie in [0, 1], span .4 or more, and their sum is more than chance allows. The exact ratio has mean 1
    over generated data, so the product of n ratios also has mean 1, and by Markov's inequality
    :math:`P(\sum_i \log r_i \ge t) \le e^{-t}`.

    Args:
        log_ratios: Of independent generated rows, `(generated,)`, in nats.

    Returns:
        The answer. For an exact log ratio it is True once in 100 000 times at most, for any number of rows.

    Example:
        >>> x = torch.randn(1000)
        >>> look_like_probabilities(torch.sigmoid(x)), look_like_probabilities(x - 0.5)
        (True, False)
    """
    inside = bool(((log_ratios >= 0) & (log_ratios <= 1)).all())
    spans = inside and float(log_ratios.max() - log_ratios.min()) >= MIN_SPAN
    return spans and float(log_ratios.sum(dtype=torch.float32)) >= MAX_CHANCE_SUM


def _ends_in_sigmoid(module: Any) -> bool:
    """Whether the last layer is a sigmoid, as far as the structure shows it."""
    if isinstance(module, nn.Sigmoid):
        return True
    if not isinstance(module, nn.Module) or isinstance(module, LogOdds):
        return False
    layers = [layer for layer in module.children() if not isinstance(layer, nn.Flatten | nn.Unflatten | nn.Identity)]
    is_chain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    # A module around a single one mostly reshapes its output.
    return bool(layers) and (is_chain or len(layers) == 1) and _ends_in_sigmoid(layers[-1])


@final
class LogOdds(nn.Module):
    """The log odds of a probability, finite at 0 and 1."""

    def __init__(self, discriminator: Critic) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._warned = False

    def forward(self, x: Tensor, **context: Tensor) -> Tensor:
        probability = critic_scores(self.discriminator, x, **context)
        finfo = torch.finfo(probability.dtype)
        lowest, highest = finfo.tiny, 1 - finfo.eps / 2
        if bool(((probability < 0) | (probability > 1)).any()):
            raise ValueError(
                "Expected a discriminator's probabilities, in [0, 1]; got values between "
                f"{float(probability.min()):.4g} and {float(probability.max()):.4g}. For logits use "
                "LogRatio(critic, Bernoulli()), for other scores calibrate(critic, real, generated)."
            )
        if not self._warned and bool(((probability < lowest) | (probability > highest)).any()):
            self._warned = True
            warnings.warn(
                f"The discriminator's sigmoid has saturated in {probability.dtype}: some probabilities are exactly 0 "
                "or 1, and their log ratios are clamped and flat. Use the network's output before its sigmoid, "
                "LogRatio(critic, Bernoulli()), or run it in float64.",
                stacklevel=2,
            )
        probability = probability.clamp(lowest, highest)
        return probability.log() - torch.log1p(-probability)
