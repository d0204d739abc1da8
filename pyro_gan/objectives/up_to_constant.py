"""The objective whose critic knows the log ratio up to a constant, and its partner that knows the constant too."""

from __future__ import annotations

import math
from typing import final

import torch

from pyro_gan.checks import instance, real, tensor
from pyro_gan.objectives.base import Outputs, Scalar, SeparableObjective, check_outputs, no_log_ratio
from pyro_gan.objectives.tangent import LIMIT
from pyro_gan.objectives.variational import Divergence

__all__ = ["DonskerVaradhan", "Normalised"]


@final
class DonskerVaradhan(Divergence):
    r"""The bound :math:`KL(p_{data} \| p_G) \ge E_{data} v - \log E_G e^v`; :math:`\log r = v` minus a constant.

    It is tighter than the bound of `KL`. The critic minimises :math:`-E_{data} v + \log E_G e^v`. `KLIEP`, the
    Kullback-Leibler importance estimation procedure, is this class by another name: `UKL` under the constraint that the
    ratio :math:`r = e^v / E_G e^v` has mean 1 over generated data.

    Adding a constant to every output changes nothing, so the optimum gives the ratio up to a factor. `log_ratio`
    raises; `LogRatio.normalised` finds the factor that makes the mean ratio of generated data 1. The log of a batch's
    mean is on average smaller than the log of the mean: small batches overstate the bound and bias its gradient. A real
    output more than 20 nats above that log earns no further reward, as in every `Divergence`.

    References:
        Asymptotic Evaluation of Certain Markov Process Expectations for Large Time, M. Donsker and S. Varadhan, 1983,
        https://doi.org/10.1002/cpa.3160360204;
        Direct Importance Estimation with Model Selection and Its Application to Covariate Shift Adaptation,
        M. Sugiyama et al., 2007,
        https://papers.nips.cc/paper/2007/hash/be83ab3ecd0db773eb2dc1b0a17836a1-Abstract.html;
        MINE: Mutual Information Neural Estimation, M. I. Belghazi et al., 2018, https://arxiv.org/abs/1801.04062

    Example:
        >>> DonskerVaradhan().critic_loss(torch.full((3,), 7.0), torch.full((5,), 7.0))
        tensor(0.)
    """

    proper = False

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return -E v + log E exp(v); arguments as for `Objective.critic_loss`."""
        check_outputs(real=real, generated=generated)
        log_mean = self.generated_term(generated)
        return self.real_term(torch.minimum(real, log_mean + LIMIT)) + log_mean

    def real_term(self, output: Outputs) -> Scalar:
        """Return the mean of -v."""
        return -output.mean()

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the log of the mean of exp(v)."""
        return torch.logsumexp(output, 0) - math.log(len(output))

    def log_ratio(self, output: Outputs) -> Outputs:
        """Raise: a constant is missing.

        Raises:
            ValueError: always, naming the cure.
        """
        raise no_log_ratio(
            "DonskerVaradhan, also called KLIEP, leaves a critic whose output is a log density ratio up to an unknown "
            "constant.",
            "Find it on generated data with pyro_gan.LogRatio.normalised(critic, objective, generated=x). Or: ",
        )

    def log_constant(self, generated: Outputs) -> Scalar:
        """Return log E_G exp(v), the excess of the outputs, from those for generated data; in float64."""
        check_outputs(generated=generated)
        wide = generated.detach().to("cpu", torch.float64)  # not every accelerator has float64
        return self.generated_term(wide)


@final
class Normalised(SeparableObjective):
    """An objective that leaves a constant open, with the constant found: `LogRatio.normalised` makes it.

    Args:
        objective: The objective that trains the critic.
        log_constant: The excess of its outputs, in nats.

    Raises:
        ValueError: if the objective leaves no constant open, or the constant is not finite.

    Example:
        >>> Normalised(DonskerVaradhan(), 2.0).log_ratio(torch.tensor([2.0, 3.0]))
        tensor([0., 1.])
    """

    def __init__(self, objective: DonskerVaradhan, log_constant: float) -> None:
        cure = (
            "KLIEP() leaves a constant open. The others need no constant, or a constant does not suffice: "
            "LogRatio(critic, objective) says which."
        )
        self.objective = instance("objective", objective, DonskerVaradhan, cure=cure)
        self.log_constant = real("log_constant", log_constant, cure="Look for NaN in the critic's outputs.")

    def __repr__(self) -> str:
        return f"Normalised({self.objective!r}, {self.log_constant:.6g})"

    def critic_loss(self, real: Outputs, generated: Outputs) -> Scalar:
        """Return the objective's loss."""
        return self.objective.critic_loss(real, generated)

    def real_term(self, output: Outputs) -> Scalar:
        """Return the objective's term."""
        return self.objective.real_term(output)

    def generated_term(self, output: Outputs) -> Scalar:
        """Return the objective's term."""
        return self.objective.generated_term(output)

    def log_ratio(self, output: Outputs) -> Outputs:
        """Return the output minus the constant."""
        return tensor("output", output) - self.log_constant

    def output(self, log_ratio: Outputs) -> Outputs:
        """Return the log ratio plus the constant."""
        return tensor("log_ratio", log_ratio) + self.log_constant
