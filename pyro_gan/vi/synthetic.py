"""A likelihood made of a discriminator, for models whose data have no density; alone or beside an observer."""

from __future__ import annotations

from typing import Literal, final

import pyro
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic
from pyro_gan.vi._frozen_call import call_frozen
from pyro_gan.vi.observer import Observer

__all__ = ["SyntheticLikelihood", "synthetic_term"]

Form = Literal["logit", "nonsaturating", "saturating"]


@final
class SyntheticLikelihood:
    r"""The log ratio of data to generated data, :math:`f(G(z))`, as a term of a Pyro model.

    Called in a model it adds `pyro.factor(name + "_synthetic", ...)` and, with an observer, an observed site `name`.
    Inside a plate that subsamples, both are scaled by N / B, as every site there is.

    It is a heuristic. Theory wants :math:`\log p(x|z) - \log p_{data}(x)` at the data; this is
    :math:`\log p_{data} - \log p_G` of the marginals, at generated data: it pulls the generator towards the data as a
    reverse KL divergence does, and no bound on :math:`\log p(x)` survives. The factor of a guide's latents is also
    differentiable in the guide, which alpha-GAN's encoder leaves out (`HybridLoss` does).

    Args:
        log_ratio: `x: (row, *event) -> (row,)`, log data density less log generated density:
            `LogRatio(discriminator, Bernoulli())`. No gradient reaches a module's parameters.
        observer: A likelihood beside it; None for the ratio alone.
        form: "logit" adds f; "nonsaturating" log D, and "saturating" -log(1 - D), with D = sigmoid(f).
        event_dim: Number of dimensions of one datum.

    Attributes:
        is_bound: False.

    Raises:
        ValueError: for another form, or an observer of another `event_dim`; when called, if data come without an
            observer or an observer without data.

    References:
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_gan import LogRatio
        >>> from pyro_gan.objectives import Bernoulli
        >>> critic, generator = torch.nn.Linear(3, 1), torch.nn.Linear(2, 3)
        >>> observer = Observer("laplace", 1.0, reduction="sum")
        >>> likelihood = SyntheticLikelihood(LogRatio(critic, Bernoulli()), observer=observer)
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        ...         likelihood("x", generator(z), obs=x)
        >>> sorted(pyro.poutine.trace(model).get_trace(torch.zeros(5, 3)).observation_nodes)
        ['x', 'x_synthetic']
    """

    #: A ratio of marginals bounds nothing.
    is_bound = False

    def __init__(
        self, log_ratio: Critic, *, observer: Observer | None = None, form: Form = "logit", event_dim: int = 1
    ) -> None:
        check_form(form)
        if observer is not None and observer.event_dim != event_dim:
            raise ValueError(f"Expected an observer with {event_dim=}; got one with {observer.event_dim}.")
        self.log_ratio = log_ratio
        self.observer = observer
        self.form = form
        self.event_dim = event_dim

    def __call__(
        self,
        name: str,
        generated: Float[Tensor, "*batch_and_event"],
        obs: Float[Tensor, "*batch_and_event"] | None = None,
    ) -> Float[Tensor, "*batch_and_event"]:
        """Add the likelihood to the Pyro model that this is called in.

        Args:
            name: Of the observed site; the factor is `<name>_synthetic`.
            generated: Generated data, `(*batch, *event)`, with the plates' dimensions as batch.
            obs: Data, for the observer.

        Returns:
            The generated data.
        """
        if (obs is None) != (self.observer is None):
            raise ValueError(
                f"Expected {'obs=x with an observer' if self.observer else 'no obs without an observer'}: the "
                "discriminator judges generated data, and an observer compares them with data."
            )
        pyro.factor(f"{name}_synthetic", self.log_weight(generated))
        if self.observer is not None and obs is not None:
            self.observer.check_events(generated, obs)
            pyro.sample(name, self.observer.distribution(generated), obs=self.observer.observed(obs))
        return generated

    def log_weight(self, generated: Float[Tensor, "*batch_and_event"]) -> Float[Tensor, "*batch"]:
        """Return the discriminator's term for generated data, `(*batch,)`, without a gradient for its parameters."""
        left = generated.shape[: generated.dim() - self.event_dim]
        rows = generated.reshape(-1, *generated.shape[len(left) :])

        def frozen(x: Tensor, /, **context: Tensor) -> Tensor:
            return call_frozen(self.log_ratio, x)

        scores = critic_scores(frozen, rows)
        return synthetic_term(scores, self.form).reshape(left)


def synthetic_term(log_ratio: Float[Tensor, "*batch"], form: Form) -> Float[Tensor, "*batch"]:
    """Return what a generator maximises of log ratios: f, log D or -log(1 - D).

    Args:
        log_ratio: f, log data density less log generated density.
        form: "logit", "nonsaturating" or "saturating".

    Returns:
        Of the same shape.
    """
    if form == "logit":
        return log_ratio
    return logsigmoid(log_ratio) if form == "nonsaturating" else softplus(log_ratio)


def check_form(form: str) -> None:
    """Raise unless a form of the generator's term is one."""
    if form not in ("logit", "nonsaturating", "saturating"):
        raise ValueError(f"Expected the form 'logit', 'nonsaturating' or 'saturating'; got {form!r}.")
