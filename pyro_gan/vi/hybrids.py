"""The six hybrids of VAE and GAN as settings: which likelihood, seen where, and what holds codes to the prior."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from pyro_gan.vi.synthetic import Form, check_form

__all__ = ["HYBRIDS", "Hybrid"]

Likelihood = Literal["observer", "synthetic", "both"]
Space = Literal["data", "features"]
Code = Literal["analytic", "moment", "ratio(z)", "ratio(x, z)", "mmd"]


class Hybrid(NamedTuple):
    """What a generator and an encoder are trained by; `HYBRIDS` has the six of the literature.

    Attributes:
        likelihood: "observer" compares a datum with its reconstruction, "synthetic" lets a discriminator judge.
        space: Where the observer compares: in the "data" or in a discriminator's "features"; None without observer.
        code: What holds q(z|x) to the prior: the "analytic" KL divergence, batch "moment"s in AGE's game of encoder
            against generator, a "ratio(z)" or "ratio(x, z)" network, or "mmd"; None without an encoder.
        form: What the generator maximises of a discriminator's logit f: f itself ("logit"), log D ("nonsaturating"),
            or -log(1 - D) ("saturating").

    References:
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987 (table 1)

    Example:
        >>> HYBRIDS["alpha-GAN"]
        Hybrid(likelihood='both', space='data', code='ratio(z)', form='logit')
        >>> [name for name, hybrid in HYBRIDS.items() if hybrid.is_bound]
        ['VAE']
    """

    likelihood: Likelihood
    space: Space | None
    code: Code | None
    form: Form = "logit"

    @property
    def is_bound(self) -> bool:
        """Whether what the encoder minimises bounds -log p(x) from above: only where no part of it is learned."""
        return self.likelihood == "observer" and self.space == "data" and self.code == "analytic"

    def check(self) -> None:
        """Raise if the settings have no meaning together.

        Raises:
            ValueError: saying why, with the cure.
        """
        for what, value, known in (
            ("likelihood", self.likelihood, ("observer", "synthetic", "both")),
            ("space", self.space, (None, "data", "features")),
            ("code", self.code, (None, "analytic", "moment", "ratio(z)", "ratio(x, z)", "mmd")),
        ):
            if value not in known:
                raise ValueError(f"Expected the {what} to be one of {known}; got {value!r}.")
        check_form(self.form)
        if self.likelihood == "synthetic":
            if self.space is not None:
                raise ValueError(
                    f"Expected no space without an observer; got {self.space!r}. Say likelihood='both', or space=None."
                )
            if self.code is not None:
                raise ValueError(
                    f"Expected no code without an observer; got {self.code!r}. A synthetic likelihood never sees the "
                    "datum that was encoded, so the encoder would learn the prior. Say likelihood='both'."
                )
            return
        if self.space is None:
            raise ValueError("Expected the observer's space, 'data' or 'features'; got None.")
        if self.code is None:
            raise ValueError(
                "Expected a code with an observer; got None. Without one nothing ties the codes to the prior, and "
                "latents of the prior decode to nothing in particular."
            )
        if self.likelihood == "observer" and self.space == "features":
            raise ValueError(
                "Expected likelihood='both' with space='features': they are a discriminator's, and nobody would train "
                "it."
            )
        if self.likelihood == "both" and self.code == "moment":
            raise ValueError(
                "Expected likelihood='observer' with code='moment': there the encoder is the discriminator. Beside "
                "another, use 'mmd' or 'ratio(z)'."
            )


#: The hybrids of table 1 of Rosca et al., by name.
HYBRIDS: Mapping[str, Hybrid] = MappingProxyType(
    {
        "VAE": Hybrid("observer", "data", "analytic"),
        "DCGAN": Hybrid("synthetic", None, None, "nonsaturating"),
        "VAE-GAN": Hybrid("both", "features", "analytic", "saturating"),
        "Adversarial-VB": Hybrid("observer", "data", "ratio(x, z)"),
        "AGE": Hybrid("observer", "data", "moment"),
        "alpha-GAN": Hybrid("both", "data", "ratio(z)"),
    }
)
