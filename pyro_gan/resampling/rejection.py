"""Rejection sampling of prior draws: exact with a bound on the weight, and two ways to trade exactness for yield."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import BoundedWeight
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.resampling._acceptance import Rule, budget_cut, drs_shift
from pyro_gan.resampling._draws import Draws, score
from pyro_gan.resampling.importance import BLOCK_DRAWS
from pyro_gan.targets import Target, make_target

__all__ = ["RejectionReport", "RejectionSampler", "Rejections"]

#: Fewest prior draws scored at a time.
MIN_BLOCK = 1000

#: Fewest pilot draws: a maximum or a percentile of fewer says nothing.
MIN_PILOT = 100

_CLAIMANTS = {"given": "given", "guard": "of the log ratio", "estimated": "estimated from the pilot"}


class RejectionReport(NamedTuple):
    """What a rejection run cost and what it is worth.

    Attributes:
        num_draws: Prior draws that were accepted or rejected.
        num_outputs: Outputs, as many as asked for unless `max_draws` came first.
        num_forwards: Prior draws scored in all, the pilot's included; each is one forward pass.
        acceptance: Share of draws accepted, the yield. For exact rejection by a normalised ratio it is 1 / M.
        log_bound: log M in nats, as it was at the end.
        bound_kind: Who says so: "given" by the caller, the ratio's tail "guard", or "estimated" as the largest weight
            seen.
        exact: Whether outputs are independent draws of the target itself: the bound was not estimated and held, and
            neither gamma nor a budget bent the acceptance.
        num_exceedances: Draws that weighed more than the bound in force when they were scored.
        c: The budget's: draws are accepted with min(1, c w / M). 1 without a budget, or where it costs nothing.
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


class Rejections(NamedTuple):
    """Outputs of a `RejectionSampler`.

    Attributes:
        samples: Constrained latents by site, `(output, *event)`, in the order they were drawn.
        log_ratio: Log weight of each output, `(output,)`, nats; `log r(G(z)) / T` for a latent posterior.
        report: Cost and worth.
    """

    samples: dict[str, Tensor]
    log_ratio: Float[Tensor, " output"]
    report: RejectionReport


class _Kept(NamedTuple):
    """Draws with the luck that decides on them, again if the rule has changed."""

    draws: Draws
    #: Minus the log of a uniform number, `(draw,)`: a draw is accepted unless its log probability is further below 0.
    luck: Tensor

    def accept(self, rule: Rule) -> _Kept:
        """Return those that the rule lets pass."""
        chosen = rule.log_accept(self.draws.values) + self.luck >= 0
        rows = chosen.to(self.draws.z.device)
        z, log_weight, values = self.draws
        return _Kept(Draws(z[rows], log_weight[rows], values[chosen]), self.luck[chosen])


@final
class RejectionSampler:
    r"""Draws from the prior, keeps each with a probability that rises with its weight: independent outputs, no copies.

    Exact rejection accepts with w / M for a bound M on the weight. It is exact if M is a bound. A ratio with a tail
    guard knows one (`LatentPosterior.log_weight_bound`), and a caller may (`log_bound`). Else M is the largest weight
    of a pilot: an estimate, not a bound, however well it holds. A draw that weighs more than M raises it, and outputs
    kept so far are rejected again with the new M, with the same luck: what comes out is what the last M would have
    given from the start. Such exceedances are counted and warned of.

    Two changes raise the yield and give up exactness, each with what it needs read off the pilot and then fixed:

    .. math:: \text{gamma:}\quad \sigma(F - F_\gamma), \quad F = x - \log(1 - e^{x - \epsilon}), \quad
        x = \log w - \log M,

    DRS as published, :math:`F_\gamma` the percentile gamma of F. A shift of 0 would be exact rejection, which is what
    no gamma, the default, does. A percentile is another shift: below 0, where most weights are under M / 2, it accepts
    light draws too often; above 0 heavy ones. And

    .. math:: \text{budget:}\quad \min(1, c\, w / M), \quad c \geq 1 \text{ such that the mean acceptance is the
        budget},

    OBRS, which of all rules that accept as much comes closest to the target in every f-divergence. Outputs follow
    p0 min(w, M / c). Where exact rejection accepts more than the budget already, c is 1: to reject more would cost
    draws and bring nothing.

    Args:
        posterior: A `LatentPosterior`, or any other Pyro model, whose observations and factors are then the weight.
        gamma: Percentile, in [0, 100], of DRS's shift; the higher, the fewer are accepted.
        budget: Wanted mean acceptance, in (0, 1]; met up to the error of the pilot.
        log_bound: log M in nats, if you know a bound. It goes before the model's own.
        pilot_draws: Prior draws scored first and thrown away, where M, gamma or the budget needs them.

    Raises:
        ValueError: if the model is unfit, both gamma and budget are given, or one is out of range.

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
        if not callable(posterior):
            raise ValueError(f"Expected a Pyro model, such as LatentPosterior; got {posterior!r}.")
        if gamma is not None and budget is not None:
            raise ValueError(
                f"Expected gamma or budget, not both; got {gamma=} and {budget=}. Each is a rule of acceptance of "
                "its own."
            )
        if gamma is not None and not 0 <= gamma <= 100:
            raise ValueError(f"Expected gamma in [0, 100]; got {gamma}. It is a percentile.")
        if budget is not None and not 0 < budget <= 1:
            raise ValueError(f"Expected a budget in (0, 1]; got {budget}. It is a mean acceptance.")
        if log_bound is not None and not math.isfinite(log_bound):
            raise ValueError(
                f"Expected a finite log_bound in nats; got {log_bound}. None takes the ratio's own, or a pilot's "
                "largest."
            )
        if pilot_draws < MIN_PILOT:
            raise ValueError(f"Expected pilot_draws of at least {MIN_PILOT}; got {pilot_draws}.")
        self.posterior = posterior
        self.gamma = gamma
        self.budget = budget
        self.log_bound = log_bound
        self.pilot_draws = pilot_draws

    def __call__(
        self, num_outputs: int, *args: Any, max_draws: int = 10_000_000, **context: Any
    ) -> Rejections:
        """Draw from the prior until enough draws are accepted.

        Args:
            num_outputs: Outputs wanted.
            *args: The model's arguments.
            max_draws: Prior draws, beyond the pilot, after which to give up.
            **context: The model's keyword arguments.

        Returns:
            Latents in the order they were drawn, their log weights, and a report. Fewer than asked for if `max_draws`
            came first, and never a copy.

        Raises:
            ValueError: if a number is not positive, a weight is NaN or plus infinity, all weights seen are zero, or
                so many that the budget cannot be met.

        Warns:
            UserWarning: if a draw weighed more than the bound, or outputs are fewer than asked for.
        """
        for name, value in (("num_outputs", num_outputs), ("max_draws", max_draws)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1; got {value}.")
        target = make_target(self.posterior, None, prototype=None, batched=True, context=context, args=args)
        claim, kind = self._claimed_bound()
        rule, claim, pilot, num_exceedances = self._pilot(target, claim)
        seen = [pilot[:BLOCK_DRAWS]]
        kept: list[_Kept] = []
        num_draws = num_kept = 0
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
        # A budget lets everything heavy pass: a better estimate of the bound would change nothing.
        if num_exceedances and not (kind == "estimated" and rule.log_c > 0):
            warnings.warn(
                f"{num_exceedances} of {num_scored} draws weighed more than the bound {_CLAIMANTS[kind]}, {claim:.6g} "
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
        z = torch.cat([part.draws.z for part in kept])[:num_outputs]
        samples = {
            name: target.transforms[name].inv(value) if name in target.transforms else value
            for name, value in target.unpack(z).items()
        }
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
        log_ratio = torch.cat([part.draws.log_weight for part in kept])[:num_outputs]
        return Rejections(samples, log_ratio, report)

    @property
    def _raises(self) -> bool:
        """Whether a weight above the bound raises it; gamma and a budget are fixed by the pilot."""
        return self.gamma is None and self.budget is None

    def _claimed_bound(self) -> tuple[float | None, Literal["given", "guard", "estimated"]]:
        if self.log_bound is not None:
            return self.log_bound, "given"
        if isinstance(self.posterior, BoundedWeight) and self.posterior.log_weight_bound is not None:
            return self.posterior.log_weight_bound, "guard"
        return None, "estimated"

    def _pilot(self, target: Target, claim: float | None) -> tuple[Rule, float, Tensor, int]:
        """Return the rule, the bound that was claimed or found, the pilot's log weights and how many exceed it."""
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
