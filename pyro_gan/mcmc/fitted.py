"""A distribution to propose jumps from, fitted to draws of the target once and kept (FlEx2MCMC's flow)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, constraints

from pyro_gan._networks import by_chunk
from pyro_gan._random import rng_fork
from pyro_gan._typing import Params
from pyro_gan.importance import WeightTail, weight_tail
from pyro_gan.targets import Target, make_target
from pyro_gan.training import Player, train

__all__ = ["Family", "FittedProposal", "fit_proposal"]

Family = Literal["flow", "gaussian"]

#: Steps between two looks at the rows held out.
EVAL_EVERY = 50


class FittedProposal(Distribution):
    r"""A mixture of what was fitted and the prior, over unconstrained positions.

    .. math:: q(z) = (1 - \alpha)\, f(z) + \alpha\, p_0(z)

    The prior's share bounds the weights: no latent weighs more than :math:`1 / \alpha` times what it does under the
    prior, so what the fit has missed is still reached. Made by `fit_proposal`; it does not change any more.

    Args:
        fitted: The fit f.
        target: Whose prior it is mixed with.
        prior_share: The share alpha, in [0, 1).

    Attributes:
        held_out_log_prob: Mean log density of f at draws held out, nats; NaN if there were none.

    References:
        Weighted average importance sampling and defensive mixture distributions, T. Hesterberg, 1995,
        https://doi.org/10.1080/00401706.1995.10484303
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self, fitted: Distribution, target: Target, prior_share: float, *, held_out_log_prob: float = math.nan
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
        z = value.reshape(-1, self.event_shape.numel())
        log_prob = by_chunk(self.fitted.log_prob, z, None)
        if self.prior_share > 0:
            log_prior = self._target.log_prior(z)
            log_prob = torch.logaddexp(
                log_prob + math.log1p(-self.prior_share), log_prior + math.log(self.prior_share)
            )
        return log_prob.reshape(value.shape[:-1])

    def check(self, num_draws: int) -> WeightTail:
        """Return what the weights of target over proposal say about themselves, from so many draws."""
        with rng_fork():
            z = self.sample((num_draws,))
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

    The draws are those of a short run of chains, or better of `ImportanceResampler`, which has crossed between modes:
    what they have not found the fit will not propose, and only the prior's share reaches it. Fit first and sample
    then, with the proposal as it is: one that goes on learning from the chains it moves is no Markov kernel, and what
    it samples is not the target.

    Args:
        model: A model that knows its prior, such as `LatentPosterior`.
        samples: Constrained draws by site, `{site: (draw, *event)}`, as `get_samples()` gives them.
        family: "flow", a neural spline flow with coupling layers, or "gaussian", mean and covariance of the draws,
            which a few hundred draws of many latents can still support.
        prior_share: Share of the proposals that come from the prior, in [0, 1).
        num_steps: Steps of the flow's training; the flow kept is the best on draws held out.
        batch_size: Draws in a step.
        num_transforms: Layers of the flow.
        hidden: Widths of the hidden layers of each layer's network.
        lr: Adam's learning rate.
        holdout: Share of the draws held out of the flow's training.
        seed: Of the training.
        progress: Show a bar with the loss.
        context: The model's keyword arguments.

    Returns:
        A distribution with `sample` and `log_prob`, for `IndependenceMH(proposal=)`, `ISIR(proposal=)` and so
        `LocalGlobal`; its `check` gives the tail of the weights before anything is sampled.

    Raises:
        ValueError: for another family, too few draws, sites or shapes that are not the model's, draws that are not
            finite when unconstrained or do not vary, or shares outside their range.
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
    if family not in get_args(Family):
        raise ValueError(f"Expected family to be one of {get_args(Family)}; got {family!r}.")
    for name, share, least in (
        ("prior_share", prior_share, 0 <= prior_share),
        ("holdout", holdout, 0 < holdout),
    ):
        if not (least and share < 1):
            raise ValueError(f"Expected {name} inside {'(' if name == 'holdout' else '['}0, 1); got {share}.")
    target = make_target(model, None, prototype=None, batched=True, context=context)
    if prior_share > 0 and not target.has_split:
        raise ValueError("Expected a model that knows its prior; give prior_share=0 to do without.")
    z = _unconstrained(target, samples)
    if family == "gaussian":
        law = MultivariateNormal(z.mean(0), z.T.cov().reshape(target.dim, target.dim), validate_args=False)
        return FittedProposal(law, target, prior_share)
    with rng_fork():
        torch.manual_seed(seed)
        z = z[torch.randperm(len(z), device=z.device)]
        num_held_out = max(1, round(holdout * len(z)))
        held_out, rows = z[:num_held_out], z[num_held_out:]
        flow = _Flow(rows.mean(0), rows.std(0), num_transforms, hidden)
        best = _train(flow, rows, held_out, num_steps, batch_size, lr, progress)
    return FittedProposal(flow, target, prior_share, held_out_log_prob=best)


class _Flow(Distribution):
    """A neural spline flow of standardised positions."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, scale: Tensor, num_transforms: int, hidden: Sequence[int]) -> None:
        try:
            from zuko.flows import NSF
        except ImportError as error:
            error.add_note("pip install pyro-gan[flows]")
            raise
        super().__init__(event_shape=loc.shape, validate_args=False)
        self.loc, self.scale = loc, scale
        # Two passes make the layers couplings, which run as fast in one direction as in the other.
        passes = min(2, len(loc))
        flow = NSF(len(loc), transforms=num_transforms, hidden_features=tuple(hidden), passes=passes)
        self.network: nn.Module = flow.to(loc)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + self.scale * self.network().sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.network().log_prob((value - self.loc) / self.scale) - self.scale.log().sum()


def _unconstrained(target: Target, samples: Params) -> Float[Tensor, "draw dim"]:
    if set(samples) != set(target.shapes):
        raise ValueError(f"Expected draws of the sites {sorted(target.shapes)}; got {sorted(samples)}.")
    transforms = target.transforms
    values = {
        name: transforms[name](value) if name in transforms else value for name, value in samples.items()
    }
    for name, value in values.items():
        if value.shape[1:] != target.shapes[name]:
            raise ValueError(
                f"Expected draws of {name!r} in one row, (draw, *event) with the event {tuple(target.shapes[name])} "
                f"when unconstrained; got {tuple(value.shape)}. get_samples() without group_by_chain gives such."
            )
    z = target.pack(values).detach()
    if bad := int((~torch.isfinite(z).all(-1)).sum()):
        raise ValueError(
            f"Expected draws that are finite when unconstrained; {bad} of {len(z)} are not. Leave out draws at the "
            "edge of the support."
        )
    needed = 10 * target.dim
    if len(z.unique(dim=0)) < needed:
        raise ValueError(
            f"Expected {needed} different draws or more, ten for each of {target.dim} latents; got "
            f"{len(z.unique(dim=0))}. Sample more, or propose from the prior."
        )
    if bool((still := z.std(0) == 0).any()):
        raise ValueError(
            f"Expected draws that differ in all {target.dim} latents; {int(still.sum())} have but one value in all of "
            f"them (first: number {int(still.nonzero()[0])}, unconstrained). Look at the chains that they come from."
        )
    return z


def _train(
    flow: _Flow, rows: Tensor, held_out: Tensor, num_steps: int, batch_size: int, lr: float, progress: bool
) -> float:
    """Train the flow, and leave it as it was where held-out draws were likeliest."""
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
