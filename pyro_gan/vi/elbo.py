"""The density-ratio ELBO: Pyro's ELBO for guides without a density, with a learned log q - log p in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import pyro
import torch
from pyro import poutine
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.util import is_validation_enabled, validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor, nn

from pyro_gan.checks import count, function, instance
from pyro_gan.vi import _sites
from pyro_gan.vi._detached_call import call_detached
from pyro_gan.vi.ratios import LatentRatio, as_ratio

__all__ = ["RatioELBO"]


@final
class RatioELBO(Trace_ELBO):
    r"""An evidence lower bound in which ratio networks replace the densities of some sites.

    For an implicit site the terms :math:`\log p(z) - \log q(z)` become :math:`-T`, with :math:`T` a network's estimate
    of :math:`\log q - \log p`; every other site keeps its densities. With the exact :math:`T` the value equals
    `Trace_ELBO` of the equivalent explicit guide to the last bits, in plates, subsamples, scales, masks, and with
    several particles, vectorised or not. With a learned :math:`T` it is an estimate, and `is_bound` is False.

    Gradients pass through :math:`T` to the latents and never to its parameters: neither `SVI` nor a call to
    `backward()` moves a ratio network or leaves a gradient on it. (This holds for modules, and not
    for the parameters inside a plain function.) `ratio_losses` has the loss of each ratio;
    `AdversarialSVI(elbo(model, guide), ...)` trains all networks.

    A ratio of latents and data reads the site's context: the context of an `Implicit`, or what the guide puts into
    `pyro.sample(..., infer={"context": x})` (with `"context_event_dim"`, by default 1).

    Args:
        ratios: By site, a `LatentRatio`, or a network `z -> (row,)` or `(x, z) -> (row,)`; networks see one batch
            dimension.
        num_particles: Draws of the guide for one estimate.
        vectorize_particles: Whether they are drawn at once, in one more plate.
        max_plate_nesting: Number of nested plates; if infinite, one run of model and guide finds it.
        retain_graph: As for `pyro.infer.ELBO`.

    Attributes:
        is_bound: False.

    Raises:
        ValueError: without ratios; in a call, if a ratio's site is missing in guide or model, is observed, is not
            reparametrised, is a `Delta` with a log density, or differs in scale, mask or event shape between model and
            guide; if an implicit site has no ratio; if a network gives another shape.

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

    #: A learned ratio stands in place of a density.
    is_bound = False

    def __init__(
        self,
        ratios: Mapping[str, LatentRatio | Callable[..., Tensor]],
        *,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: float = float("inf"),
        retain_graph: bool | None = None,
    ) -> None:
        cure = "Pass {'z': network}. If all sites have densities use pyro.infer.Trace_ELBO."
        count("number of ratios", len(instance("ratios", ratios, Mapping, cure=cure)), cure=cure)
        if not isinstance(max_plate_nesting, float) or max_plate_nesting != float("inf"):
            count("max_plate_nesting", max_plate_nesting, minimum=0)
        super().__init__(
            num_particles=count("num_particles", num_particles),
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
            retain_graph=retain_graph,
        )
        self.ratios = {site: as_ratio(network) for site, network in ratios.items()}

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> RatioELBOModule:
        """Return the loss of a pair as a module, as Pyro's ELBOs do; `AdversarialSVI` takes it."""
        # Pyro's annotation asks for modules; it only calls them.
        model_module: Any = function("model", model)
        guide_module: Any = function("guide", guide)
        return RatioELBOModule(model_module, guide_module, self)

    def ratio_losses(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return what each ratio network minimises, from one run of the guide and one of the model.

        It compares the guide's draws with draws of the model's prior at the site, given the guide's draws of the site's
        parents. Masked elements are left out.

        Args:
            model: A Pyro model.
            guide: A Pyro guide.
            *args: Arguments of both.
            **kwargs: Keyword arguments of both.

        Returns:
            A scalar for each ratio's site; gradients reach the ratio networks only.
        """
        with torch.no_grad():
            model_trace, guide_trace = self._run(model, guide, args, kwargs)
            drawn = {
                name: _sites.contrast_rows(site, prior_site, self.ratios[name])
                for name, site, prior_site in self._pairs(model_trace, guide_trace)
            }
        return {name: self.ratios[name].loss(*rows) for name, rows in drawn.items()}

    def _guess_max_plate_nesting(self, model: Any, guide: Any, args: Any, kwargs: Any) -> None:
        # Pyro's guess checks shapes, and asks every site for a density.
        with validation_enabled(False):
            super()._guess_max_plate_nesting(model, guide, args, kwargs)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        model_trace, guide_trace = self._run(model, guide, args, kwargs)
        for name, site, prior_site in self._pairs(model_trace, guide_trace):
            _sites.check_same_terms(name, site, prior_site)
            ratio = self.ratios[name]
            values = call_detached(ratio, *_sites.site_rows(site, ratio))
            unscaled = values.reshape(site["fn"].batch_shape)
            log_ratio = scale_and_mask(unscaled, site["scale"], _sites.site_mask(site))
            # The guide's site holds all of log q - log p, and the model's site adds zero.
            # Pyro leaves out a score that is the number 0, and would multiply by a tensor of zeros.
            no_score: Any = 0
            score_parts = ScoreParts(log_ratio, no_score, log_ratio)
            site.update(unscaled_log_prob=unscaled, score_parts=score_parts)
            site.update(log_prob=log_ratio, log_prob_sum=log_ratio.sum())
            zero = torch.zeros_like(log_ratio)
            prior_site.update(unscaled_log_prob=zero, log_prob=zero, log_prob_sum=zero.sum())
        model_trace.compute_log_prob()
        guide_trace.compute_score_parts()
        if is_validation_enabled():
            for trace in (model_trace, guide_trace):
                for site in _sites.sample_sites(trace).values():
                    check_site_shape(site, self.max_plate_nesting)
        return model_trace, guide_trace

    def _pairs(self, model_trace: Trace, guide_trace: Trace) -> list[tuple[str, Any, Any]]:
        """Return the name of each ratio's site, the guide's site and the model's."""
        return [(name, guide_trace.nodes[name], model_trace.nodes[name]) for name in self.ratios]

    def _run(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        """Return traces of the guide and of the model that follows it, or raise."""
        model, guide = function("model", model), function("guide", guide)
        guide_trace = poutine.trace(guide, graph_type="flat").get_trace(*args, **kwargs)
        followed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(followed, graph_type="flat").get_trace(*args, **kwargs)
        pruned = prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)
        self._check_sites(*pruned)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        return pruned

    def _check_sites(self, model_trace: Trace, guide_trace: Trace) -> None:
        sites = _sites.sample_sites(model_trace)
        latent = sorted(name for name, site in sites.items() if not site["is_observed"])
        in_guide = _sites.sample_sites(guide_trace).items()
        drawn = {name: site for name, site in in_guide if not site["is_observed"]}
        for name in self.ratios:
            if name not in drawn:
                raise ValueError(
                    f"Expected the guide to sample {name!r}, for which there is a ratio; it samples {sorted(drawn)}."
                )
            if not drawn[name]["fn"].has_rsample:
                raise ValueError(
                    f"Expected reparametrised draws at {name!r}, through which the gradient reaches the guide; got a "
                    f"{type(drawn[name]['fn']).__name__}. Use an Implicit, or another distribution with rsample."
                )
            if _sites.carries_log_density(drawn[name]):
                raise ValueError(
                    f"Expected no Delta with a log_density at {name!r}: the ratio is all of log q - log p. Drop "
                    "log_density, or use pyro.infer.Trace_ELBO (not TraceMeanField_ELBO, which ignores it)."
                )
        for name, site in drawn.items():
            if name not in latent and (name in self.ratios or not site["infer"].get("is_auxiliary")):
                raise ValueError(
                    f"Expected {name!r}, which the guide samples, among the model's latent sites; got {latent}. "
                    "Give model and guide the same names, and do not observe a latent site."
                )
        for whose, given in (("guide", drawn), ("model", sites)):
            for name, site in given.items():
                if _sites.is_implicit(site["fn"]) and name not in self.ratios:
                    raise ValueError(
                        f"Expected a density or a ratio at every site; the {whose}'s site {name!r} is implicit and has "
                        f"no ratio. Add one, RatioELBO(ratios={{{name!r}: network}}); for an implicit likelihood use "
                        "pyro_gan.vi.SyntheticLikelihood, or pyro.infer.EnergyDistance."
                    )


@final
class RatioELBOModule(ELBOModule):
    """The loss of a model and a guide as a module, with the losses of "model", "guide" and the ratio of each site."""

    elbo: RatioELBO

    def networks(self) -> dict[str, nn.Module]:
        """Return what can be trained, by name: model and guide, if they have parameters, and each site's ratio."""
        pair = {"model": self.model, "guide": self.guide}
        networks = {
            name: module
            for name, module in pair.items()
            if isinstance(module, nn.Module) and any(p.requires_grad for p in module.parameters())
        }
        for site in networks.keys() & self.elbo.ratios.keys():
            raise ValueError(f"Expected no latent site named {site!r}, which is a player's name. Rename it.")
        return networks | self.elbo.ratios

    def losses(self) -> dict[str, Callable[..., Tensor]]:
        """Return the loss of each network, a function of the model's arguments."""
        ratios = self.elbo.ratios
        return {name: self._ratio_loss(name) if name in ratios else self._loss for name in self.networks()}

    def _loss(self, *args: Any) -> Tensor:
        # A scratch store: Pyro would give this module the parameters of an earlier module with the same names.
        with pyro.get_param_store().scope():
            loss = self(*args)
            _check_all_in(self.parameters())
            return loss

    def _ratio_loss(self, site: str) -> Callable[..., Tensor]:
        def loss(*args: Any) -> Tensor:
            with pyro.get_param_store().scope():
                losses = self.elbo.ratio_losses(self.model, self.guide, *args)
                # A module that a function registers has its present values; a bare parameter has its first ones.
                named = pyro.get_param_store().named_parameters()
                _check_all_in(parameter for _, parameter in named if isinstance(parameter, nn.Parameter))
                return losses[site]

        return loss


def _check_all_in(known: Iterable[Tensor]) -> None:
    """Raise if the scratch store holds a parameter that is not one of these."""
    own = {id(parameter) for parameter in known}
    for name, parameter in pyro.get_param_store().named_parameters():
        if id(parameter) not in own:
            raise ValueError(
                f"Expected all parameters in model and guide, as modules; got the bare pyro.param({name!r}), which an "
                "optimiser would not find. Make it a pyro.nn.PyroParam of a PyroModule, or use pyro.infer.SVI (with "
                "RatioELBO.ratio_losses for the ratio)."
            )
