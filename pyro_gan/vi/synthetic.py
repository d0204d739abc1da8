"""A likelihood made of a discriminator, for models whose data have no density; alone or beside an explicit one."""

from __future__ import annotations

from functools import partial
from typing import Literal, final, get_args

import pyro
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic, left_shape
from pyro_gan.checks import choice, count, function, instance, shaped
from pyro_gan.vi._detached_call import call_detached
from pyro_gan.vi.explicit import ExplicitLikelihood

__all__ = ["FORMS", "Form", "SyntheticLikelihood", "synthetic_term"]

Form = Literal["logit", "nonsaturating", "saturating"]
FORMS: tuple[str, ...] = get_args(Form)


@final
class SyntheticLikelihood:
    r"""The log ratio of data to generated data, :math:`f(G(z))`, as a term of a Pyro model.

    A call inside a model adds `pyro.factor(name + "_synthetic", ...)` and, with an explicit likelihood, an observed
    site `name`. Inside a plate that subsamples, both are scaled by N / B, like every other site.

    It is a heuristic. The theory asks for :math:`\log p(x|z) - \log p_{data}(x)` at the data; this is
    :math:`\log p_{data} - \log p_G` of the marginals, at generated data. It pulls the generator towards the data as a
    reverse KL divergence does, and gives no bound on :math:`\log p(x)`. The factor is also differentiable in the guide
    through its latents; alpha-GAN's encoder leaves this gradient out (`HybridLoss` does too).

    Args:
        log_ratio: `x: (row, *event) -> (row,)`, log data density minus log generated density:
            `LogRatio(discriminator, Bernoulli())`. No gradient reaches a module's parameters.
        explicit_likelihood: A likelihood beside it; None for the ratio alone.
        form: "logit" adds f; "nonsaturating" adds log D, and "saturating" -log(1 - D), with D = sigmoid(f).
        event_dim: Number of dimensions of one data point.

    Attributes:
        is_bound: False.

    Raises:
        ValueError: for another form, or an explicit likelihood of another `event_dim`; in a call, if there are data
            and no explicit likelihood, or an explicit likelihood and no data.

    References:
        Variational Approaches to Auto-Encoding Generative Adversarial Networks, M. Rosca et al., 2017,
        https://arxiv.org/abs/1706.04987

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_gan import LogRatio
        >>> from pyro_gan.objectives import Bernoulli
        >>> critic, generator = torch.nn.Linear(3, 1), torch.nn.Linear(2, 3)
        >>> explicit = ExplicitLikelihood("laplace", 1.0, reduction="sum")
        >>> likelihood = SyntheticLikelihood(LogRatio(critic, Bernoulli()), explicit_likelihood=explicit)
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
        self,
        log_ratio: Critic,
        *,
        explicit_likelihood: ExplicitLikelihood | None = None,
        form: Form = "logit",
        event_dim: int = 1,
    ) -> None:
        self.log_ratio = function("log_ratio", log_ratio)
        self.form = choice("form", form, FORMS)
        self.event_dim = count("event_dim", event_dim, minimum=0)
        self.explicit_likelihood = explicit_likelihood
        if explicit_likelihood is not None:
            instance("explicit_likelihood", explicit_likelihood, ExplicitLikelihood)
            if explicit_likelihood.event_dim != event_dim:
                theirs = explicit_likelihood.event_dim
                raise ValueError(f"Expected an explicit likelihood with {event_dim=}; got {theirs}. Make them equal.")

    def __call__(
        self,
        name: str,
        generated: Float[Tensor, "*batch_and_event"],
        obs: Float[Tensor, "*batch_and_event"] | None = None,
    ) -> Float[Tensor, "*batch_and_event"]:
        """Add the likelihood to the Pyro model that calls this.

        Args:
            name: Of the observed site; the factor is `<name>_synthetic`.
            generated: Generated data, `(*batch, *event)`, with the plates' dimensions as batch.
            obs: Data, for the explicit likelihood.

        Returns:
            The generated data.
        """
        explicit = self.explicit_likelihood
        if (obs is None) != (explicit is None):
            raise ValueError(
                f"Expected {'obs=x with' if explicit else 'no obs without'} an explicit likelihood: the discriminator "
                "judges generated data, and an explicit likelihood compares them with data."
            )
        pyro.factor(f"{name}_synthetic", self.log_weight(generated))
        if explicit is not None and obs is not None:
            explicit.check_events(generated, obs)
            pyro.sample(name, explicit.distribution(generated), obs=explicit.observed(obs))
        return generated

    def log_weight(self, generated: Float[Tensor, "*batch_and_event"]) -> Float[Tensor, "*batch"]:
        """Return the discriminator's term for generated data, `(*batch,)`, without a gradient for its parameters.

        Args:
            generated: Generated data, `(*batch, *event)`.
        """
        generated = shaped("generated data", generated, ("*batch", *["size"] * self.event_dim))
        left = left_shape(generated, self.event_dim)
        rows = generated.reshape(left.numel(), *generated.shape[len(left) :])
        scores = critic_scores(partial(call_detached, self.log_ratio), rows)
        return synthetic_term(scores, self.form).reshape(left)


def synthetic_term(log_ratio: Float[Tensor, "*batch"], form: str) -> Float[Tensor, "*batch"]:
    """Return what a generator maximises, given log ratios: f, log D or -log(1 - D).

    Args:
        log_ratio: f, log data density minus log generated density.
        form: "logit", "nonsaturating" or "saturating".

    Returns:
        Of the same shape.
    """
    if form == "logit":
        return log_ratio
    return logsigmoid(log_ratio) if form == "nonsaturating" else softplus(log_ratio)
