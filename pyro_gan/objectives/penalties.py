"""Penalties on a critic's slope, where each norm is of one row's gradient, and the clipping of its weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._networks import critic_scores
from pyro_gan._typing import Critic
from pyro_gan.checks import choice, function, instance, real, shaped
from pyro_gan.objectives.base import Penalty, Rows, Scalar, check_data

__all__ = ["DRAGAN", "GradientPenalty", "GradientTarget", "R1", "batch_noise", "clip_weights"]

#: What the penalised gradient is of: the critic's output, or its sigmoid, a probability.
GradientTarget = Literal["output", "probability"]
GRADIENTS = ("output", "probability")


class _SlopePenalty(Penalty):
    """The weighted mean square of a slope minus a wanted slope, at points that a subclass chooses."""

    def __init__(self, weight: float = 10.0, *, slope: float = 1.0, gradient_of: GradientTarget = "output") -> None:
        self.weight, self.slope = real("weight", weight, minimum=0), real("slope", slope, minimum=0)
        self.gradient_of = choice("gradient_of", gradient_of, GRADIENTS)

    @abstractmethod
    def _points(self, real_x: Tensor, generated_x: Tensor) -> Tensor:
        """Return where the slope is measured, `(batch, *event)`."""

    def __call__(self, critic: Critic, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the penalty; arguments as for `Penalty`.

        Raises:
            ValueError: if the data do not fit, or the critic returns more than one number for each row.
        """
        norm = _gradients(critic, self._points(real_x, generated_x), self.gradient_of).norm(dim=1)
        return self.weight * (norm - self.slope).square().mean()


@final
class GradientPenalty(_SlopePenalty):
    r"""WGAN-GP's penalty, which pulls slopes towards one between real and generated data.

    .. math:: \lambda\, E\big(\|\nabla_{\hat x} c(\hat x)\|_2 - k\big)^2,
        \qquad \hat x = \alpha x + (1 - \alpha) G(z), \quad \alpha \sim U(0, 1),

    with one :math:`\alpha` for each row and the norm of a row's gradient over all its dimensions. With `Bernoulli` this
    is GAN-GP. In a critic with BatchNorm a row's output depends on the other rows, and so does the penalty: use another
    normalisation.

    Args:
        weight: :math:`\lambda`.
        slope: :math:`k`.
        gradient_of: `"output"` of the critic, or `"probability"`, its sigmoid, as in papers that write
            :math:`\nabla D`.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Improved Training of Wasserstein GANs, I. Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028;
        Many Paths to Equilibrium: GANs Do Not Need to Decrease a Divergence At Every Step, W. Fedus et al., 2018,
        https://arxiv.org/abs/1710.08446

    Example:
        >>> def critic(x):
        ...     return 3 * x[:, 0] + 4 * x[:, 1]
        >>> GradientPenalty()(critic, torch.randn(4, 2), torch.randn(4, 2))
        tensor(160.)
    """

    def __repr__(self) -> str:
        return f"GradientPenalty({self.weight}, slope={self.slope}, gradient_of={self.gradient_of!r})"

    def _points(self, real_x: Tensor, generated_x: Tensor) -> Tensor:
        check_data(real=real_x)
        cure = "The two are paired: draw equal numbers of rows."
        shaped("generated data like the real data,", generated_x, real_x.shape, cure=cure)
        return torch.lerp(generated_x.detach(), real_x.detach(), _one_a_row(real_x))


@final
class DRAGAN(_SlopePenalty):
    r"""The penalty that pulls slopes towards one around real data; generated data are not used.

    .. math:: \lambda\, E\big(\|\nabla c(x + (1 - \alpha)\, \delta)\|_2 - k\big)^2, \qquad \alpha \sim U(0, 1),

    with noise :math:`\delta`. The authors published `batch_noise`; any function of the batch may replace it, for
    instance `lambda x: 0.1 * torch.randn_like(x)`.

    Args:
        weight: :math:`\lambda`.
        noise: Maps real data to noise of the same shape.
        slope: :math:`k`.
        gradient_of: As for `GradientPenalty`; the authors' code takes the output.

    Raises:
        ValueError: if an argument is out of range.

    References:
        On Convergence and Stability of GANs, N. Kodali et al., 2017, https://arxiv.org/abs/1705.07215;
        Many Paths to Equilibrium: GANs Do Not Need to Decrease a Divergence At Every Step, W. Fedus et al., 2018,
        https://arxiv.org/abs/1710.08446

    Example:
        >>> x = torch.randn(4, 2)
        >>> DRAGAN(1.0)(lambda x: x.sum(-1) / 2**0.5, x, x).abs() < 1e-6
        tensor(True)
    """

    def __init__(
        self,
        weight: float = 10.0,
        *,
        noise: Callable[[Tensor], Tensor] | None = None,
        slope: float = 1.0,
        gradient_of: GradientTarget = "output",
    ) -> None:
        super().__init__(weight, slope=slope, gradient_of=gradient_of)
        self.noise = batch_noise if noise is None else function("noise", noise)

    def __repr__(self) -> str:
        noise = getattr(self.noise, "__name__", repr(self.noise))
        return f"DRAGAN({self.weight}, noise={noise}, slope={self.slope}, gradient_of={self.gradient_of!r})"

    def _points(self, real_x: Tensor, generated_x: Tensor) -> Tensor:
        check_data(real=real_x)
        x = real_x.detach()
        noise = shaped("noise like the data,", self.noise(x), x.shape, cure="Draw it with torch.randn_like(x).")
        return x + (1 - _one_a_row(x)) * noise


@final
class R1(Penalty):
    r"""The squared slope at real data, :math:`\tfrac{\gamma}{2} E_{data} \|\nabla c(x)\|_2^2`.

    Generated data are not used. The critic may be flat where generated and real data agree, which the penalties with
    slope one forbid.

    Args:
        weight: :math:`\gamma`.
        gradient_of: As for `GradientPenalty`; the paper takes the output.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Which Training Methods for GANs do actually Converge?, L. Mescheder, A. Geiger and S. Nowozin, 2018,
        https://arxiv.org/abs/1801.04406

    Example:
        >>> x = torch.randn(4, 2)
        >>> R1()(lambda x: x.sum(-1), x, x)
        tensor(10.)
    """

    def __init__(self, weight: float = 10.0, *, gradient_of: GradientTarget = "output") -> None:
        self.weight = real("weight", weight, minimum=0)
        self.gradient_of = choice("gradient_of", gradient_of, GRADIENTS)

    def __repr__(self) -> str:
        return f"R1({self.weight}, gradient_of={self.gradient_of!r})"

    def __call__(self, critic: Critic, real_x: Rows, generated_x: Rows) -> Scalar:
        """Return the penalty at the real data.

        Raises:
            ValueError: if the critic gives more than one number a row.
        """
        check_data(real=real_x)
        gradients = _gradients(critic, real_x, self.gradient_of)
        return self.weight / 2 * gradients.square().sum(1).mean()


def batch_noise(x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
    """Return noise uniform between zero and half the standard deviation of all numbers in the batch.

    Example:
        >>> bool((batch_noise(torch.tensor([[-1.0], [1.0]])) <= 0.5).all())
        True
    """
    check_data(real=x)
    return 0.5 * x.std(correction=0) * torch.rand_like(x)


def clip_weights(critic: nn.Module, bound: float = 0.01) -> None:
    r"""Clip every parameter of a critic to :math:`[-bound, bound]`, in place: the first Wasserstein GAN's constraint.

    It is not a penalty and must not be called inside a loss: a parameter must not change between a forward pass and its
    gradient. Call it after each step of the optimiser; a hook of the optimiser does that, as in the example.

    Args:
        critic: The network to change; its buffers stay.
        bound: The largest absolute value left.

    Raises:
        ValueError: if the bound is not positive.

    References:
        Wasserstein GAN, M. Arjovsky, S. Chintala and L. Bottou, 2017, https://arxiv.org/abs/1701.07875

    Example:
        >>> critic = nn.Linear(2, 1)
        >>> optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-5)
        >>> hook = optimizer.register_step_post_hook(lambda *_: clip_weights(critic))
        >>> critic(torch.ones(3, 2)).mean().backward()
        >>> optimizer.step()
        >>> bool((critic.weight.abs() <= 0.01).all())
        True
    """
    bound = real("bound", bound, above=0, cure="The first paper has 0.01.")
    with torch.no_grad():
        for parameter in instance("critic", critic, nn.Module).parameters():
            parameter.clamp_(-bound, bound)


def _one_a_row(x: Tensor) -> Tensor:
    """Return one uniform number for each row, which broadcasts over its event."""
    return torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)


def _gradients(critic: Critic, x: Tensor, gradient_of: str) -> Float[Tensor, "batch dim"]:
    """Return each row's gradient with respect to its own data point, differentiable again unless under `no_grad`."""
    function("critic", critic)
    x = x.detach().requires_grad_()
    is_training = torch.is_grad_enabled()
    with torch.enable_grad():
        output = critic_scores(critic, x)
        if gradient_of == "probability":
            output = output.sigmoid()
        # A row's output depends on its own data point alone, so the gradient of the sum holds the gradient of each row.
        (gradients,) = torch.autograd.grad(output.sum(), x, create_graph=is_training)
    return gradients.reshape(len(x), -1)
