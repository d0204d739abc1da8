"""Objectives whose critic knows the log ratio up to a constant, and the constant once it is found."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan.objectives._tangent import LIMIT
from pyro_gan.objectives.base import SeparableObjective, no_log_ratio
from pyro_gan.objectives.variational import Divergence

__all__ = ["Normalised", "UpToConstant"]


class UpToConstant(Divergence):
    r"""The bound :math:`KL(p_{data} \| p_G) \ge E_{data} v - \log E_G e^v`: :math:`v = \log r` plus any constant.

    Adding a constant to every output changes nothing, so the optimum knows the ratio up to a factor: `log_ratio`
    raises until `LogRatio.normalised` has found the factor for which generated data have a mean ratio of 1. The log of
    a batch's mean is on average smaller than the log of the mean: small batches overstate the bound, and bias its
    gradient. A real output more than 20 nats above that log earns nothing more, as in every `Divergence`.
    """

    proper = False

    def _critic_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        log_mean = self.generated_term(generated)
        return self.real_term(torch.minimum(real, log_mean + LIMIT)) + log_mean

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the log of the mean of exp(v)."""
        return _log_mean_exp(output)

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Raise: a constant is missing.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(
            f"{type(self).__name__} leaves a critic whose output is a log density ratio up to an unknown constant.",
            "Find it on generated data with pyro_gan.LogRatio.normalised(critic, objective, generated=x). Or: ",
        )

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the log ratio: one optimum of many."""
        return log_ratio

    def log_constant(self, generated: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return what outputs have too much, log E_G exp(v), from those for generated data; in float64."""
        wide = generated.detach().to("cpu", torch.float64)  # not every accelerator has float64
        return _log_mean_exp(wide)


@final
class Normalised(SeparableObjective):
    """An objective of which the missing constant has been found: `LogRatio.normalised` makes it.

    Args:
        objective: What the critic is trained with.
        log_constant: Nats that its outputs have too much.

    Raises:
        ValueError: if the objective misses no constant, or the constant is not finite.

    Example:
        >>> from pyro_gan.objectives import KLIEP
        >>> Normalised(KLIEP(), 2.0).log_ratio(torch.tensor([2.0, 3.0]))
        tensor([0., 1.])
    """

    def __init__(self, objective: UpToConstant, log_constant: float) -> None:
        if not isinstance(objective, UpToConstant):
            raise ValueError(
                f"Expected an objective that leaves a constant open, KLIEP() or DonskerVaradhan(); got {objective!r}. "
                "Others need none, or it does not suffice: use LogRatio(critic, objective), which says."
            )
        if not math.isfinite(log_constant):
            raise ValueError(
                f"Expected a finite constant in nats; got {log_constant}. Look for NaN in the critic's outputs."
            )
        self.objective, self.log_constant = objective, log_constant

    def __repr__(self) -> str:
        return f"Normalised({self.objective!r}, {self.log_constant:.6g})"

    def real_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the objective's term."""
        return self.objective.real_term(output)

    def generated_term(self, output: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the objective's term."""
        return self.objective.generated_term(output)

    def log_ratio(self, output: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the output less the constant."""
        return output - self.log_constant

    def output(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the log ratio plus the constant."""
        return log_ratio + self.log_constant

    def _critic_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        return self.objective.critic_loss(real, generated)


def _log_mean_exp(output: Tensor) -> Tensor:
    return torch.logsumexp(output, 0) - math.log(len(output))
