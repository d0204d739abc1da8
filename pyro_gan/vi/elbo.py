"""The density-ratio ELBO: Pyro's own objective for guides without a density, a learned log q - log p in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.score_parts import ScoreParts
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBO, ELBOModule
from pyro.infer.util import is_validation_enabled, validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor, nn

from pyro_gan.vi._frozen_call import call_frozen
from pyro_gan.vi._sites import (
    carries_log_density,
    check_same_terms,
    context_rows,
    is_implicit,
    latent_rows,
    sample_sites,
    site_mask,
    weigh,
)
from pyro_gan.vi.players import Role
from pyro_gan.vi.ratios import CodeRatio, as_ratio

__all__ = ["RatioELBO"]


class RatioELBO(Trace_ELBO):
    r"""An evidence lower bound in which some sites' densities are replaced by ratio networks.

    For an implicit site the terms :math:`\log p(z) - \log q(z)` become :math:`-T`, with :math:`T` a network's estimate
    of :math:`\log q - \log p`; every other site keeps its densities. With the exact :math:`T` it is `Trace_ELBO` of the
    equivalent explicit guide to the last bits, in plates, subsamples, scales, masks, and with several particles,
    vectorised or not. With a learned one it is an estimate, and `is_bound` is False.

    Gradients pass through :math:`T` to the latents and never to its parameters: neither `SVI` nor a call to
    `backward()` moves a ratio network or leaves a gradient on it. (Only modules can be held still; a plain function
    around one cannot.) Its own loss is in `ratio_losses`; `AdversarialSVI(elbo(model, guide), ...)` trains all.

    A ratio of latents and data reads the site's context: that of an `Implicit`, or what the guide puts into
    `pyro.sample(..., infer={"context": x})` (with `"context_event_dim"`, by default 1).

    Args:
        ratios: By site, a `CodeRatio`, or a network `z -> (row,)` or `(x, z) -> (row,)`; networks see one batch
            dimension.
        num_particles: Draws of the guide for one estimate.
        vectorize_particles: Whether they are drawn at once, in a plate of their own.
        max_plate_nesting: Number of nested plates; if infinite it is found by running model and guide once.
        retain_graph: As for `pyro.infer.ELBO`.

    Attributes:
        is_bound: False.

    Raises:
        ValueError: without ratios; when called, if a ratio's site is missing in guide or model, is observed or is not
            reparametrised, carries a log density of its own (a `Delta`'s) or differs in scale, mask or event shape
            between model and guide; if an implicit site has no ratio; if a network gives another shape.

    References:
        Adversarial Variational Bayes, L. Mescheder, S. Nowozin and A. Geiger, 2017,
        https://arxiv.org/abs/1701.04722;
        Variational Inference using Implicit Distributions, F. Huszar, 2017, https://arxiv.org/abs/1702.08235

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gan.vi import ImplicitGuide, Joined
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
        >>> noise = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
        >>> guide = ImplicitGuide(Joined(nn.Linear(4, 2)), noise, event_shape=(2,))
        >>> elbo = RatioELBO({"z": Joined(nn.Linear(4, 1))})
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
        >>> svi.step(torch.randn(10, 2)) > 0
        True
    """

    #: What stands for a density here is learned.
    is_bound = False

    def __init__(
        self,
        ratios: Mapping[str, CodeRatio | Callable[..., Tensor]],
        *,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: float = float("inf"),
        retain_graph: bool | None = None,
    ) -> None:
        if not ratios:
            raise ValueError(
                "Expected a ratio for at least one site. If every site has a density use pyro.infer.Trace_ELBO."
            )
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
            retain_graph=retain_graph,
        )
        self.ratios = {site: as_ratio(network) for site, network in ratios.items()}

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> RatioELBOModule:
        """Return the loss of a pair as a module, as Pyro's ELBOs do; `AdversarialSVI` takes it."""
        return RatioELBOModule(model, guide, self)  # type: ignore[arg-type]

    def ratio_losses(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return what each ratio network minimises, from one run of the guide and one of the model.

        The guide's draws stand against draws of the model's own prior at the site, given the parents the guide drew.
        Masked elements are left out.

        Args:
            model: A Pyro model.
            guide: A Pyro guide.
            *args: Of both.
            **kwargs: Of both.

        Returns:
            A scalar for each ratio's site; gradients reach the ratio networks alone.
        """
        with torch.no_grad():
            model_trace, guide_trace = self._run(model, guide, args, kwargs)
            drawn = {}
            for name, ratio in self.ratios.items():
                site, prior_site = sample_sites(guide_trace)[name], sample_sites(model_trace)[name]
                batch = site["fn"].batch_shape
                rows = latent_rows(site), latent_rows(site, prior_site["fn"]()), context_rows(site, ratio)
                mask = site_mask(site)
                if isinstance(mask, Tensor):
                    keep = mask.expand(batch).reshape(-1)
                    rows = rows[0][keep], rows[1][keep], None if rows[2] is None else rows[2][keep]
                drawn[name] = rows
        return {name: self.ratios[name].loss(*rows) for name, rows in drawn.items()}

    def _guess_max_plate_nesting(self, model: Any, guide: Any, args: Any, kwargs: Any) -> None:
        # Pyro's guess checks shapes by asking all sites for a density.
        with validation_enabled(False):
            ELBO._guess_max_plate_nesting(self, model, guide, args, kwargs)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        model_trace, guide_trace = self._run(model, guide, args, kwargs)
        for name, ratio in self.ratios.items():
            site, prior_site = sample_sites(guide_trace)[name], sample_sites(model_trace)[name]
            check_same_terms(name, site, prior_site)
            values = call_frozen(ratio, latent_rows(site), context_rows(site, ratio))
            unscaled = values.reshape(site["fn"].batch_shape)
            log_ratio = weigh(unscaled, site)
            # The whole of log q - log p goes to the guide's side; what the site adds on the model's side is zero.
            site["unscaled_log_prob"] = unscaled
            site["score_parts"] = ScoreParts(log_ratio, 0, log_ratio)  # type: ignore[arg-type]
            site["log_prob"], site["log_prob_sum"] = log_ratio, log_ratio.sum()
            nothing = torch.zeros_like(log_ratio)
            prior_site["unscaled_log_prob"] = prior_site["log_prob"] = nothing
            prior_site["log_prob_sum"] = nothing.sum()
        model_trace.compute_log_prob()
        guide_trace.compute_score_parts()
        if is_validation_enabled():
            for trace in (model_trace, guide_trace):
                for site in sample_sites(trace).values():
                    check_site_shape(site, self.max_plate_nesting)
        return model_trace, guide_trace

    def _run(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        """Return traces of the guide and of the model that follows it, or raise."""
        guide_trace = poutine.trace(guide, graph_type="flat").get_trace(*args, **kwargs)
        followed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(followed, graph_type="flat").get_trace(*args, **kwargs)
        pruned = prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)
        self._check_sites(*pruned)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        return pruned

    def _check_sites(self, model_trace: Trace, guide_trace: Trace) -> None:
        latent = {name for name, site in sample_sites(model_trace).items() if not site["is_observed"]}
        drawn = {name: site for name, site in sample_sites(guide_trace).items() if not site["is_observed"]}
        for name in self.ratios:
            if name not in drawn:
                raise ValueError(
                    f"Expected the guide to sample {name!r}, for which there is a ratio; it samples {sorted(drawn)}."
                )
            if not drawn[name]["fn"].has_rsample:
                raise ValueError(
                    f"Expected reparametrised draws at {name!r}: the gradient passes through them to the guide. Use an "
                    "Implicit, or another distribution with rsample."
                )
            if carries_log_density(drawn[name]):
                raise ValueError(
                    f"Expected no Delta with a log_density at {name!r}: the ratio stands for all of log q - log p, and "
                    "would come on top of it. Drop log_density, or use pyro.infer.Trace_ELBO (not TraceMeanField_ELBO, "
                    "which ignores it)."
                )
        for name, site in drawn.items():
            if name not in latent and (name in self.ratios or not site["infer"].get("is_auxiliary")):
                raise ValueError(
                    f"Expected {name!r}, which the guide samples, among the model's latent sites; they are "
                    f"{sorted(latent)}. Give model and guide the same names, and observe no site that is inferred."
                )
            if is_implicit(site) and name not in self.ratios:
                raise ValueError(
                    f"The guide's site {name!r} is implicit and has no ratio. Add one: "
                    f"RatioELBO(ratios={{{name!r}: network, ...}})."
                )
        for name, site in sample_sites(model_trace).items():
            if is_implicit(site) and name not in self.ratios:
                raise ValueError(
                    f"The model's site {name!r} is implicit: it has no density for the ELBO. For a latent site add a "
                    "ratio; in place of an implicit likelihood use pyro_gan.vi.SyntheticLikelihood, or "
                    "pyro.infer.EnergyDistance."
                )


class RatioELBOModule(ELBOModule):
    """The loss of a model and a guide as a module, and who minimises what: "model", "guide" and each ratio's site."""

    elbo: RatioELBO

    def roles(self) -> dict[str, Role]:
        """Return who may be trained, by name, with the loss of each."""
        roles = {}
        for name, module in (("model", self.model), ("guide", self.guide)):
            if isinstance(module, nn.Module) and any(p.requires_grad for p in module.parameters()):
                roles[name] = Role(module, self._loss)
        for site, ratio in self.elbo.ratios.items():
            if site in roles:
                raise ValueError(
                    f"Expected no latent site named {site!r}, which is a player's name. Rename it."
                )
            roles[site] = Role(ratio, self._ratio_loss(site))
        return roles

    def _loss(self, *args: Any) -> Tensor:
        # A scratch store: Pyro would hand parameters of an earlier module of the same names to this one.
        with pyro.get_param_store().scope():
            loss = self(*args)
            _refuse_bare(self.parameters())
            return loss

    def _ratio_loss(self, site: str) -> Callable[..., Tensor]:
        def loss(*args: Any) -> Tensor:
            with pyro.get_param_store().scope():
                losses = self.elbo.ratio_losses(self.model, self.guide, *args)
                # A function's pyro.module() is at its present values; a bare parameter is at its first.
                modules = [
                    p for _, p in pyro.get_param_store().named_parameters() if isinstance(p, nn.Parameter)
                ]
                _refuse_bare(modules)
                return losses[site]

        return loss


def _refuse_bare(known: Iterable[Tensor]) -> None:
    """Raise if the scratch store has met a parameter that is none of these."""
    own = {id(parameter) for parameter in known}
    for name, parameter in pyro.get_param_store().named_parameters():
        if id(parameter) not in own:
            raise ValueError(
                f"Expected all parameters in model and guide, as modules; got the bare pyro.param({name!r}), which no "
                "optimiser would find. Make it a pyro.nn.PyroParam of a PyroModule, or use pyro.infer.SVI (with "
                "RatioELBO.ratio_losses for the ratio)."
            )
