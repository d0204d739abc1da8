"""The six hybrids of VAE and GAN as settings: which likelihood, in which space, and what ties latents to the prior."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, final, get_args

from pyro_gan.checks import choice
from pyro_gan.vi.synthetic import FORMS, Form

__all__ = ["HYBRIDS", "Hybrid"]

LikelihoodKind = Literal["explicit", "synthetic", "both"]
Space = Literal["data", "features"]
LatentTerm = Literal["analytic", "moment", "ratio(z)", "ratio(x, z)", "mmd"]


@final
class Hybrid(NamedTuple):
    """What trains a generator and an encoder; `HYBRIDS` has the six of the literature.

    Attributes:
        likelihood: "explicit" compares a data point with its reconstruction; with "synthetic" a discriminator judges.
        space: Where the explicit likelihood compares: in the "data" or in a discriminator's "features"; None without
            an explicit likelihood.
        latent: What ties q(z|x) to the prior: the "analytic" KL divergence, the "moment"s of a batch in AGE's game of
            encoder against generator, a "ratio(z)" or "ratio(x, z)" network, or "mmd"; None without an encoder.
        form: What the generator maximises of a discriminator's logit f: f itself ("logit"), log D ("nonsaturating"),
            or -log(1 - D) ("saturating").

    References:
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987 (table 1)

    Example:
        >>> HYBRIDS["alpha-GAN"]
        Hybrid(likelihood='both', space='data', latent='ratio(z)', form='logit')
        >>> [name for name, hybrid in HYBRIDS.items() if hybrid.is_bound]
        ['VAE']
    """

    likelihood: LikelihoodKind
    space: Space | None
    latent: LatentTerm | None
    form: Form = "logit"

    @property
    def is_bound(self) -> bool:
        """Whether the encoder's loss bounds -log p(x) from above: only if no part of the loss is learned."""
        return self.likelihood == "explicit" and self.space == "data" and self.latent == "analytic"

    def check(self) -> None:
        """Raise if these settings have no meaning together.

        Raises:
            ValueError: with the reason and the cure.
        """
        choice("likelihood", self.likelihood, get_args(LikelihoodKind))
        choice("form", self.form, FORMS)
        for name, words, cure in (
            ("space", get_args(Space), "Say where an explicit likelihood compares, and None without one."),
            (
                "latent",
                get_args(LatentTerm),
                "Say what ties the encoder's latents to the prior, and None without an explicit likelihood: a "
                "synthetic one never sees the data point that was encoded, so an encoder would learn the prior.",
            ),
        ):
            value = getattr(self, name)
            if self.likelihood != "synthetic":
                choice(name, value, words, cure=cure)
            elif value is not None:
                raise ValueError(f"Expected no {name} with likelihood='synthetic'; got {value!r}. {cure}")
        if self.likelihood == "explicit" and self.space == "features":
            raise ValueError(
                "Expected likelihood='both' with space='features'; got 'explicit'. The features are a discriminator's, "
                "which nothing would train. Say likelihood='both', or space='data'."
            )
        if self.likelihood == "both" and self.latent == "moment":
            raise ValueError(
                "Expected likelihood='explicit' with latent='moment'; got 'both'. There the encoder is the "
                "discriminator. Say latent='mmd' or latent='ratio(z)' beside another discriminator."
            )


#: The hybrids of table 1 of Rosca et al., by name.
HYBRIDS: Mapping[str, Hybrid] = MappingProxyType(
    {
        "VAE": Hybrid("explicit", "data", "analytic"),
        "DCGAN": Hybrid("synthetic", None, None, "nonsaturating"),
        "VAE-GAN": Hybrid("both", "features", "analytic", "saturating"),
        "Adversarial-VB": Hybrid("explicit", "data", "ratio(x, z)"),
        "AGE": Hybrid("explicit", "data", "moment"),
        "alpha-GAN": Hybrid("both", "data", "ratio(z)"),
    }
)
