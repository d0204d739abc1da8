"""Rejection sampling of prior draws: exact with a bound of the weight, and two ways to trade exactness for yield."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan import checks
from pyro_gan._typing import BoundedWeight
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.resampling._acceptance import Rule, budget_cut, drs_shift
from pyro_gan.resampling.draws import BLOCK_DRAWS, Draws, joined, score
from pyro_gan.resampling.partial import Partial, keeping, outputs
from pyro_gan.targets import WeightedTarget, make_weighted_target

__all__ = ["RejectionReport", "RejectionSampler", "Rejections"]

#: Fewest prior draws scored at a time.
MIN_BLOCK = 1000

#: Fewest pilot draws: the maximum or a percentile of fewer is not reliable.
MIN_PILOT = 100

_SOURCES = {"given": "given", "guard": "of the log ratio", "estimated": "estimated from the pilot"}


@final
class RejectionReport(NamedTuple):
    """What a rejection run cost, and how good it is.

    Attributes:
        num_draws: Number of prior draws that were accepted or rejected.
        num_outputs: Number of outputs, as many as asked for unless `max_draws` was reached first.
        num_forwards: Number of prior draws scored, with those of the pilot; each is one forward pass.
        acceptance: Share of draws accepted, the yield. For exact rejection by a normalised ratio it is 1 / M.
        log_bound: log M in nats at the end of the run.
        bound_kind: Where the bound comes from: "given" by the caller, the tail "guard" of the ratio, or "estimated" as
            the largest weight seen.
        exact: Whether outputs are independent draws of the target itself: the bound was not estimated, no weight
            exceeded it, and neither gamma nor a budget changed the acceptance.
        num_exceedances: Number of draws whose weight exceeded the bound that was valid when they were scored.
        c: With a budget, draws are accepted with probability min(1, c w / M). It is 1 without a budget, and if the
            budget is no more than exact rejection accepts.
        tail: Effective sample size, largest share, Pareto k and log normaliser of the first draws scored, at most
            100 000.
    """

    num_draws: int
    num_outputs: int
    num_forwards: int
    acceptance: float
    log_bound: float
    bound_kind: Literal["given", "guard", "estimated"]
    exact: bool
    num_exceedances: int
    c: float
    tail: WeightTail


@final
class Rejections(NamedTuple):
    """Outputs of a `RejectionSampler`.

    Attributes:
        samples: Constrained latents by site, `(output, *event)`, in the order they were drawn.
        log_ratio: Log weight of each output, `(output,)`, nats; `log r(G(z)) / T` for a latent posterior.
        report: Cost and quality.
    """

    samples: dict[str, Tensor]
    log_ratio: Float[Tensor, " output"]
    report: RejectionReport


@final
class _Kept(NamedTuple):
    """Draws with the random numbers that decide on them, which decide again if the rule changes.

    Attributes:
        draws: The draws.
        luck: Minus the logs of uniform numbers, `(draw,)`. A draw is accepted if its log probability plus luck is at
            least 0.
    """

    draws: Draws
    luck: Float[Tensor, " draw"]

    def accept(self, rule: Rule) -> _Kept:
        """Return the draws that the rule accepts."""
        chosen = rule.log_accept(self.draws.values) + self.luck >= 0
        rows = chosen.to(self.draws.z.device)
        z, log_weight, values = self.draws
        return _Kept(Draws(z[rows], log_weight[rows], values[chosen]), self.luck[chosen])


@final
class RejectionSampler:
    r"""Draw from the prior and accept each draw with a probability that rises with its weight: independent outputs.

    Exact rejection accepts with probability w / M, and is exact if M is a bound of the weight. The caller may give one
    (`log_bound`), and a ratio with a tail guard has one (`LatentPosterior.log_weight_bound`). Without either, M is the
    largest weight of a pilot, which is an estimate and not a bound. A draw that weighs more than M raises M, and the
    outputs kept so far are decided again with the new M and the same random numbers: the outputs are those that the
    last M would have given from the start. Such exceedances are counted, and the run warns of them.

    Two changes raise the yield and give up exactness. Their constants are found in the pilot and then fixed. The first
    is DRS as published,

    .. math:: \text{gamma:}\quad \sigma(F - F_\gamma), \quad F = x - \log(1 - e^{x - \epsilon}), \quad
        x = \log w - \log M,

    with :math:`F_\gamma` the percentile gamma of F. A shift of 0 would be exact rejection, the default. A shift below
    0, as where most weights are under M / 2, accepts light draws too often; a shift above 0 accepts heavy draws too
    often. The second is OBRS,

    .. math:: \text{budget:}\quad \min(1, c\, w / M), \quad c \geq 1 \text{ such that the mean acceptance is the
        budget},

    which among all rules with this mean acceptance is the closest to the target in every f-divergence. Its outputs have
    the density p0 min(w, M / c), up to a constant. If exact rejection already accepts more than the budget, c is 1: a
    smaller acceptance would cost draws and gain nothing.

    Args:
        posterior: A `LatentPosterior`, or any other Pyro model, whose observations and factors are then the weight.
        gamma: Percentile of the shift of DRS, in [0, 100]; a higher one accepts fewer draws.
        budget: Wanted mean acceptance, in (0, 1]; it is met up to the error of the pilot.
        log_bound: log M in nats, if you know a bound. It takes precedence over the model's own.
        pilot_draws: Number of prior draws that are scored first, and not used as outputs, if M, gamma or the budget
            needs them.

    Attributes:
        partial: If an exception has ended the last call, the outputs accepted until then, a `Partial`; None otherwise.

    Raises:
        ValueError: if the posterior is no model, gamma and budget are both given, or a number is out of range.

    References:
        Discriminator Rejection Sampling, S. Azadi et al., 2019, https://arxiv.org/abs/1810.06758;
        Optimal Budgeted Rejection Sampling for Generative Models, A. Verine et al., 2023,
        https://arxiv.org/abs/2311.00460;
        Empirical supremum rejection sampling, B. S. Caffo, J. G. Booth and A. C. Davis, 2002,
        https://doi.org/10.1093/biomet/89.4.745, for an M that is raised as draws come.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan import LatentPosterior
        >>> prior = dist.Normal(0, 1).expand([2]).to_event(1)
        >>> gan = LatentPosterior(torch.nn.Identity(), lambda x: -x.square().sum(-1), prior)
        >>> result = RejectionSampler(gan, log_bound=0.0)(500)
        >>> result.samples["z"].shape, result.report.exact
        (torch.Size([500, 2]), True)
    """

    def __init__(
        self,
        posterior: Any,
        *,
        gamma: float | None = None,
        budget: float | None = None,
        log_bound: float | None = None,
        pilot_draws: int = 10_000,
    ) -> None:
        if gamma is not None and budget is not None:
            raise ValueError(
                f"Expected gamma or budget, not both; got {gamma=} and {budget=}. Each is a rule of acceptance of "
                "its own."
            )
        cure = "Pass a Pyro model, such as LatentPosterior."
        self.posterior: Any = checks.function("posterior", posterior, cure=cure)
        if gamma is not None:
            gamma = checks.real("gamma", gamma, minimum=0, maximum=100, cure="It is a percentile.")
        if budget is not None:
            budget = checks.real("budget", budget, above=0, maximum=1, cure="It is a mean acceptance.")
        if log_bound is not None:
            cure = "It is in nats; None takes the bound of the ratio, or the largest weight of a pilot."
            log_bound = checks.real("log_bound", log_bound, cure=cure)
        self.gamma, self.budget, self.log_bound = gamma, budget, log_bound
        self.partial: Partial | None = None
        self.pilot_draws = checks.count("pilot_draws", pilot_draws, minimum=MIN_PILOT)

    def __call__(self, num_outputs: int, *args: Any, max_draws: int = 10_000_000, **context: Any) -> Rejections:
        """Draw from the prior until enough draws are accepted.

        Args:
            num_outputs: Number of outputs wanted.
            *args: The model's arguments.
            max_draws: Number of prior draws, without the pilot, after which the run ends.
            **context: The model's keyword arguments.

        Returns:
            Latents in the order they were drawn, their log weights, and a report. They are fewer than asked for if
            `max_draws` was reached first. No draw comes twice.

        Raises:
            ValueError: if a number is not positive, all weights seen are zero, or too many are zero for the budget.

        Warns:
            UserWarning: if a weight exceeds the bound, outputs are fewer than asked for, or weights are NaN or plus
                infinity; they count as zero.
        """
        num_outputs = checks.count("num_outputs", num_outputs)
        max_draws = checks.count("max_draws", max_draws)
        target = make_weighted_target(self.posterior, args, context)
        claim, kind = self._claimed_bound()
        rule, claim, pilot, num_exceedances = self._pilot(target, claim)
        seen = [pilot[:BLOCK_DRAWS]]
        kept: list[_Kept] = []
        num_draws = num_kept = 0
        # The rule of the last moment decides on all of them.
        with keeping(self, lambda: outputs(target, [part.accept(rule).draws for part in kept])):
            while num_kept < num_outputs and num_draws < max_draws:
                rate = max(num_kept, 0.5) / num_draws if num_draws else 1.0
                size = max(math.ceil(1.05 * (num_outputs - num_kept) / rate), MIN_BLOCK)
                block = next(score(target, min(size, BLOCK_DRAWS, max_draws - num_draws)))
                num_draws += len(block.z)
                if sum(map(len, seen)) < BLOCK_DRAWS:
                    seen.append(block.values)
                if above := block.num_above(rule.log_bound):
                    num_exceedances += above
                    if self._raises:
                        rule = rule._replace(log_bound=float(block.values.max()))
                        kept = [part.accept(rule) for part in kept]
                luck = torch.empty_like(block.values).exponential_()
                kept.append(_Kept(block, luck).accept(rule))
                num_kept = sum(len(part.luck) for part in kept)

        num_scored = num_draws + len(pilot)
        # A budget accepts all heavy draws: a better estimate of the bound would change nothing.
        if num_exceedances and not (kind == "estimated" and rule.log_c > 0):
            warnings.warn(
                f"{num_exceedances} of {num_scored} draws weighed more than the bound {_SOURCES[kind]}, {claim:.6g} "
                f"nats{f', which was raised to {rule.log_bound:.6g}' if rule.log_bound > claim else ''}: outputs are "
                "not exact. A ratio with a cap has a bound: calibrate(..., max_log_ratio='auto').",
                stacklevel=2,
            )
        if num_kept < num_outputs:
            warnings.warn(
                f"Only {num_kept} of {num_outputs} outputs were accepted in max_draws = {max_draws} draws (log M "
                f"{rule.log_bound:.4g} nats). Raise max_draws; flatten or cap the ratio; or give up exactness for "
                "yield: budget=0.05 accepts one draw in twenty.",
                stacklevel=2,
            )
        z, log_ratio = (part[:num_outputs] for part in joined([part.draws for part in kept]))
        report = RejectionReport(
            num_draws=num_draws,
            num_outputs=len(z),
            num_forwards=num_scored,
            acceptance=num_kept / num_draws,
            log_bound=rule.log_bound,
            bound_kind=kind,
            exact=rule.is_exact and kind != "estimated" and not num_exceedances,
            num_exceedances=num_exceedances,
            c=math.exp(rule.log_c),
            tail=weight_tail(torch.cat(seen)[:BLOCK_DRAWS]),
        )
        return Rejections(target.constrained(z), log_ratio, report)

    @property
    def _raises(self) -> bool:
        """Whether a weight above the bound raises it; with gamma or a budget the pilot fixes the rule."""
        return self.gamma is None and self.budget is None

    def _claimed_bound(self) -> tuple[float | None, Literal["given", "guard", "estimated"]]:
        if self.log_bound is not None:
            return self.log_bound, "given"
        if isinstance(self.posterior, BoundedWeight) and self.posterior.log_weight_bound is not None:
            return self.posterior.log_weight_bound, "guard"
        return None, "estimated"

    def _pilot(self, target: WeightedTarget, claim: float | None) -> tuple[Rule, float, Tensor, int]:
        """Return the rule, the bound that was claimed or found, the pilot's log weights, and how many exceed it."""
        if claim is not None and self._raises:
            return Rule(claim), claim, torch.empty(0, dtype=torch.float64), 0
        blocks = list(score(target, self.pilot_draws))
        pilot = torch.cat([block.values for block in blocks])
        largest = float(pilot.max())
        if largest == -math.inf:
            raise ValueError(
                f"Expected a weight above zero; got {len(pilot)} pilot draws whose log weights are all -inf. Raise "
                "pilot_draws, or look at log_ratio(generator(z))."
            )
        claim = largest if claim is None else claim
        num_above = sum(block.num_above(claim) for block in blocks)
        log_bound = max(claim, largest) if num_above else claim
        if self.gamma is not None:
            rule = Rule(log_bound, shift=drs_shift(pilot, log_bound, self.gamma))
        elif self.budget is not None:
            rule = Rule(log_bound, log_c=log_bound - budget_cut(pilot, log_bound, self.budget))
        else:
            rule = Rule(log_bound)
        return rule, claim, pilot, num_above
