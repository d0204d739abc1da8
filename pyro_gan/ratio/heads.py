"""From a critic's output to the log density ratio: the one callable that everything downstream takes."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import by_chunk, check_eval, critic_scores
from pyro_gan._typing import Critic
from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.scoring import Bernoulli
from pyro_gan.objectives.up_to_constant import Normalised, UpToConstant
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport

__all__ = ["LogRatio", "critic_scores"]


@final
class LogRatio(nn.Module):
    r"""A critic and the objective that trained it, as the function :math:`x \mapsto \log p_{data}(x) - \log p_G(x)`.

    The objective has no default: to take a Wasserstein critic for a logit is the commonest error here, and nothing
    in the numbers betrays it. A critic of unknown training goes to `calibrate`.

    Args:
        critic: `(batch, *event) -> (batch,)` or `(batch, 1, ..., 1)`. A module becomes a submodule and shares its
            weights; any other callable is held as it is.
        objective: What the critic was trained with, for example `Bernoulli()` for binary cross-entropy on logits.

    Raises:
        ValueError: if the objective's optimum does not determine a ratio, with the cure.

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
        if not callable(critic):
            raise ValueError(f"Expected critic to be a module or a function of data; got {critic!r}.")
        if not isinstance(objective, Objective):
            raise ValueError(
                f"Expected the objective that trained the critic, such as Bernoulli(); got {objective!r}. "
                "If it is unknown, use calibrate(critic, real, generated)."
            )
        # Ask on an empty batch, so that an objective without a ratio raises here and not in the middle of a chain.
        objective.log_ratio(torch.empty(0))
        self.critic = critic
        self.objective = objective
        #: The held-out verdict and the evaluations passed, where `fit_log_ratio` made this; None and empty otherwise.
        self.report: RatioReport | None = None
        self.frontier: tuple[FrontierPoint, ...] = ()

    @classmethod
    def from_probability(cls, discriminator: Critic) -> LogRatio:
        """Build the log ratio of a discriminator that gives probabilities, trained on equal parts of real data.

        A sequential module that ends in a sigmoid is used up to there: its logit is exact. Anything else gives
        log D - log(1 - D) with D kept inside the open interval of its dtype. In float32 a D above about 1 - 6e-8 is
        exactly 1, and all such points get the same ratio and no gradient: it warns once when it meets one.

        Args:
            discriminator: `(batch, *event)` to probabilities of being real, `(batch,)` or `(batch, 1, ..., 1)`.

        Returns:
            The log ratio, sharing the discriminator's weights.

        Raises:
            ValueError: when called with data for which the output is outside [0, 1].

        Example:
            >>> discriminator = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
            >>> log_ratio = LogRatio.from_probability(discriminator)
            >>> x = torch.randn(4, 2)
            >>> torch.equal(log_ratio(x), discriminator[0](x).squeeze(-1))
            True
        """
        if isinstance(discriminator, nn.Sequential) and type(discriminator).forward is nn.Sequential.forward:
            layers = list(discriminator._modules.items())
            if layers and isinstance(layers[-1][1], nn.Sigmoid):
                logit = nn.Sequential(OrderedDict(layers[:-1]))
                # The layers keep their modes; the new container must not claim another.
                logit.training = discriminator.training
                return cls(logit, Bernoulli())
        return cls(_LogOdds(discriminator), Bernoulli())

    @classmethod
    def normalised(
        cls,
        critic: Critic,
        objective: UpToConstant,
        *,
        generated: Float[Tensor, "row *event"],
        chunk_size: int | None = None,
    ) -> LogRatio:
        r"""Build the log ratio of a critic that knows it up to a constant, and find the constant.

        Over generated data a ratio has mean 1, so a critic :math:`v` of KLIEP's or Donsker and Varadhan's loss has

        .. math:: \log r(x) = v(x) - \log E_G e^{v}.

        The mean over the rows given is as good as its effective sample size: `weights.weight_tail` of the scores says.

        Args:
            critic: As for `LogRatio`, in evaluation mode. A conditional critic has one constant for each context:
                fix the context first, `lambda x: critic(x, label=label)`.
            objective: `KLIEP()` or `DonskerVaradhan()`.
            generated: Generated data, `(row, *event)`, that the critic has not been trained on.
            chunk_size: Rows of one pass; the default suits the device.

        Returns:
            The log ratio, sharing the critic's weights. Its objective keeps the constant; its `state_dict` does not.

        Raises:
            ValueError: if the objective leaves no constant open, the critic is in training mode, there are no rows,
                or a score is NaN or infinite.

        Example:
            >>> from pyro_gan.objectives import KLIEP
            >>> x = torch.randn(1000, 1)
            >>> log_ratio = LogRatio.normalised(nn.Linear(1, 1).eval(), KLIEP(), generated=x)
            >>> round(log_ratio(x).exp().mean().item(), 3)
            1.0
        """
        Normalised(objective, 0.0)  # refuses objectives that leave no constant open, before any work
        check_eval(critic, "critic")
        if generated.dim() < 1 or not len(generated):
            raise ValueError(
                f"Expected generated data of shape (row, *event), not empty; got {tuple(generated.shape)}."
            )
        with torch.no_grad():
            scores = by_chunk(lambda rows: critic_scores(critic, rows), generated, chunk_size)
            constant = float(objective.log_constant(scores))
        return cls(critic, Normalised(objective, constant))

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
        return self.objective.log_ratio(critic_scores(self.critic, x, **context))


class _LogOdds(nn.Module):
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
                "Expected a discriminator's probabilities, in [0, 1]; got values from "
                f"{float(probability.min()):.4g} to {float(probability.max()):.4g}. For logits use "
                "LogRatio(critic, Bernoulli()), for other scores calibrate(critic, real, generated)."
            )
        if not self._warned and bool(((probability < lowest) | (probability > highest)).any()):
            self._warned = True
            warnings.warn(
                f"The discriminator's sigmoid has saturated in {probability.dtype}: some probabilities are exactly 0 "
                "or 1, and their log ratios are cut off and flat. Take the network's output before its sigmoid, "
                "LogRatio(critic, Bernoulli()), or run it in float64.",
                stacklevel=2,
            )
        probability = probability.clamp(lowest, highest)
        return probability.log() - torch.log1p(-probability)
