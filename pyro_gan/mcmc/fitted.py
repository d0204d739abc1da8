"""A distribution that jumps are proposed from: fitted once to draws of the target, then fixed (FlEx2MCMC's flow)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, constraints

from pyro_gan import checks
from pyro_gan._networks import by_chunk
from pyro_gan._random import own_generators, rng_fork, seed_rng
from pyro_gan._typing import Params
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.targets import Target, WeightedTarget, make_weighted_target
from pyro_gan.targets.base import check_sites
from pyro_gan.training import Player, train

__all__ = ["Family", "FittedProposal", "fit_proposal"]

Family = Literal["flow", "gaussian"]

#: Steps between two evaluations on the held-out rows.
EVAL_EVERY = 50


@final
class FittedProposal(Distribution):
    r"""A mixture of a fitted distribution and the prior, over unconstrained positions.

    .. math:: q(z) = (1 - \alpha)\, f(z) + \alpha\, p_0(z)

    The prior's share bounds the weights: the weight of a latent is at most :math:`1 / \alpha` times its weight under
    the prior, so regions that the fit has missed are still reached. `fit_proposal` makes it; it is fixed afterwards.

    Args:
        fitted: The fit f.
        target: The target whose prior f is mixed with.
        prior_share: The share alpha, in [0, 1).

    Attributes:
        held_out_log_prob: Mean log density of f at held-out draws, nats; NaN if no draws were held out.

    References:
        Weighted average importance sampling and defensive mixture distributions, T. Hesterberg, 1995,
        https://doi.org/10.1080/00401706.1995.10484303
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self, fitted: Distribution, target: WeightedTarget, prior_share: float, *, held_out_log_prob: float = math.nan
    ) -> None:
        super().__init__(event_shape=torch.Size([target.dim]), validate_args=False)
        self.fitted = fitted
        self.prior_share = prior_share
        self.held_out_log_prob = held_out_log_prob
        self._target = target

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*batch dim"]:
        """Draw positions."""
        shape = torch.Size(sample_shape)
        z = self.fitted.sample(torch.Size([shape.numel()]))
        if self.prior_share > 0:
            from_prior = torch.rand(len(z), 1, device=z.device) < self.prior_share
            z = torch.where(from_prior, self._target.sample_prior(len(z)), z)
        return z.reshape(shape + self.event_shape)

    @torch.no_grad()
    def log_prob(self, value: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Return the log density at positions, in nats."""
        z = checks.shaped("value", value, ("*batch", *self.event_shape)).reshape(-1, *self.event_shape)
        log_prob = by_chunk(self.fitted.log_prob, z, None)
        if self.prior_share > 0:
            log_prior = self._target.log_prior(z)
            log_prob = torch.logaddexp(log_prob + math.log1p(-self.prior_share), log_prior + math.log(self.prior_share))
        return log_prob.reshape(value.shape[:-1])

    def check(self, num_draws: int) -> WeightTail:
        """Return the tail of the weights of target over proposal, from a number of draws."""
        with own_generators():
            z = self.sample((checks.count("num_draws", num_draws),))
        log_weight = -self._target.potential(z) - self.log_prob(z)
        return weight_tail(torch.where(torch.isfinite(log_weight), log_weight, -torch.inf))


def fit_proposal(
    model: Any,
    samples: Params,
    *,
    family: Family = "flow",
    prior_share: float = 0.1,
    num_steps: int = 1000,
    batch_size: int = 256,
    num_transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    lr: float = 1e-3,
    holdout: float = 0.2,
    seed: int = 0,
    progress: bool = True,
    **context: Any,
) -> FittedProposal:
    r"""Fit a proposal to draws of the target by maximum likelihood, the forward Kullback-Leibler divergence.

    .. math:: \max_f \frac{1}{n} \sum_i \log f(z_i)

    The draws come from a short run of chains or, better, from `ImportanceResampler`, which crosses between modes. A
    region that the draws have missed is proposed by the prior's share alone. Fit first, then sample with a fixed
    proposal: if it went on learning from the chains that it moves, they would not sample the target.

    Args:
        model: A model that knows its prior, such as `LatentPosterior`.
        samples: Constrained draws by site, `{site: (draw, *event)}`, as `get_samples()` gives them.
        family: "flow", a neural spline flow with coupling layers, or "gaussian", the mean and covariance of the draws,
            for which a few hundred draws of many latents are enough.
        prior_share: Share of the proposals that come from the prior, in [0, 1).
        num_steps: Steps of the flow's training; the flow that is kept is the best one on held-out draws.
        batch_size: Draws in a training step.
        num_transforms: Layers of the flow.
        hidden: Widths of the hidden layers of each layer's network.
        lr: Adam's learning rate.
        holdout: Share of the draws that are held out of the flow's training, in (0, 1).
        seed: Seed of the training.
        progress: Whether to show a bar with the loss.
        context: The model's keyword arguments.

    Returns:
        A distribution with `sample` and `log_prob`, for `IndependenceMH(proposal=)` and `ISIR(proposal=)`, also within
        `LocalGlobal`; its `check` gives the tail of the weights before anything is sampled.

    Raises:
        ValueError: for another family, too few draws, sites or shapes that are not the model's, draws that are not
            finite when unconstrained or do not vary, or numbers outside their range.
        ImportError: for a flow without zuko.

    References:
        Local-Global MCMC kernels: the best of both worlds, S. Samsonov et al., 2022, https://arxiv.org/abs/2111.02702;
        Neural Spline Flows, C. Durkan et al., 2019, https://arxiv.org/abs/1906.04032

    Example:
        >>> from pyro_gan import ImportanceResampler, LatentPosterior, toys
        >>> from pyro_gan.mcmc import IndependenceMH
        >>> toy = toys.affine_gaussian(2 * torch.eye(2), torch.ones(2))
        >>> gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
        >>> draws = ImportanceResampler(gan)(num_outputs=500, num_draws=5000).samples
        >>> kernel = IndependenceMH(gan, proposal=fit_proposal(gan, draws, family="gaussian"))
    """
    checks.choice("family", family, get_args(Family))
    checks.real("prior_share", prior_share, minimum=0, below=1)
    checks.real("holdout", holdout, above=0, below=1)
    checks.real("lr", lr, above=0)
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size), ("num_transforms", num_transforms)):
        checks.count(name, value)
    checks.numbers("hidden", hidden)
    widths = [checks.count("hidden", width) for width in hidden]
    checks.random_seed(seed)
    target = make_weighted_target(model, context=context)
    z = _unconstrained(target, samples)
    if family == "gaussian":
        covariance = z.T.cov().reshape(target.dim, target.dim)
        return FittedProposal(MultivariateNormal(z.mean(0), covariance, validate_args=False), target, prior_share)
    with rng_fork():
        seed_rng(seed)
        z = z[torch.randperm(len(z), device=z.device)]
        num_held_out = max(1, round(holdout * len(z)))
        held_out, rows = z[:num_held_out], z[num_held_out:]
        flow = _Flow(rows.mean(0), rows.std(0), num_transforms, widths)
        best = _train(flow, rows, held_out, num_steps, batch_size, lr, progress)
    return FittedProposal(flow, target, prior_share, held_out_log_prob=best)


@final
class _Flow(Distribution):
    """A neural spline flow of standardised positions."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, scale: Tensor, num_transforms: int, hidden: Sequence[int]) -> None:
        with checks.extra("flows"):
            from zuko.flows import NSF
        super().__init__(event_shape=loc.shape, validate_args=False)
        self.loc, self.scale = loc, scale
        # Two passes make the layers couplings, which are equally fast in both directions.
        passes = min(2, len(loc))
        flow = NSF(len(loc), transforms=num_transforms, hidden_features=tuple(hidden), passes=passes)
        self.network: nn.Module = flow.to(loc)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + self.scale * self.network().sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.network().log_prob((value - self.loc) / self.scale) - self.scale.log().sum()


def _unconstrained(target: Target, samples: Params) -> Float[Tensor, "draw dim"]:
    check_sites("samples", samples, target)
    transforms = target.transforms
    values = {}
    for name, value in samples.items():
        shape = target.shapes[name]
        if name in transforms and value.dim() > len(shape):
            value = transforms[name](value)
        values[name] = value
        if value.dim() <= len(shape) or value.shape[1:] != shape:
            raise ValueError(
                f"Expected draws of {name!r} of shape (draw, *event), whose event is {tuple(shape)} when "
                f"unconstrained; got {tuple(value.shape)}. Call get_samples() without group_by_chain."
            )
    z = target.pack(values).detach()
    if bad := int((~torch.isfinite(z).all(-1)).sum()):
        raise ValueError(
            f"Expected draws that are finite when unconstrained; {bad} of {len(z)} are not. Leave out draws on the "
            "boundary of the support."
        )
    needed = 10 * target.dim
    if len(z.unique(dim=0)) < needed:
        raise ValueError(
            f"Expected at least {needed} different draws, ten for each of {target.dim} latents; got "
            f"{len(z.unique(dim=0))}. Sample more, or propose from the prior."
        )
    if bool((still := z.std(0) == 0).any()):
        raise ValueError(
            f"Expected draws that differ in all {target.dim} latents; {int(still.sum())} latents have one value in all "
            f"draws (the first is number {int(still.nonzero()[0])}, unconstrained). Look at the chains that made them."
        )
    return z


def _train(
    flow: _Flow, rows: Tensor, held_out: Tensor, num_steps: int, batch_size: int, lr: float, progress: bool
) -> float:
    """Train the flow, and keep the weights at which the held-out draws were most likely."""
    best, kept = -math.inf, copy.deepcopy(flow.network.state_dict())

    def look(step: int, losses: dict[str, float]) -> None:
        nonlocal best, kept
        if step % EVAL_EVERY and step != num_steps:
            return
        with torch.no_grad():
            value = float(by_chunk(flow.log_prob, held_out, None).mean())
        if value > best:
            best, kept = value, copy.deepcopy(flow.network.state_dict())

    player = Player(
        "flow",
        flow.network,
        torch.optim.Adam(flow.network.parameters(), lr=lr),
        lambda batch: -flow.log_prob(batch).mean(),
    )
    train(
        [player],
        lambda: rows[torch.randint(len(rows), (batch_size,), device=rows.device)],
        num_steps=num_steps,
        callback=look,
        progress=progress,
    )
    flow.network.load_state_dict(kept)
    flow.network.requires_grad_(False).eval()
    return best
