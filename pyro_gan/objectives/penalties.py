"""Penalties on a critic's slope, every norm one sample's own, and the clipping of its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan._typing import Critic
from pyro_gan.objectives.base import Penalty

__all__ = ["DRAGAN", "GradientPenalty", "GradientTarget", "R1", "batch_noise", "clip_weights"]

#: Whose gradient is penalised: the critic's output, or the probability that its sigmoid gives.
GradientTarget = Literal["output", "probability"]


@final
class GradientPenalty(Penalty):
    r"""WGAN-GP's pull of slopes towards one, between real and generated data.

    .. math:: \lambda\, E\big(\|\nabla_{\hat x} c(\hat x)\|_2 - k\big)^2,
        \qquad \hat x = \alpha x + (1 - \alpha) G(z), \quad \alpha \sim U(0, 1),

    with one :math:`\alpha` a sample and the norm of a sample's gradient over all its dimensions. Beside
    `Bernoulli` this is GAN-GP. In a critic with BatchNorm a sample's output depends on the others, and so
    does what is penalised: use another normalisation.

    Args:
        weight: :math:`\lambda`.
        slope: :math:`k`.
        gradient_of: `"output"`, the critic's own, or `"probability"`, of its sigmoid, as papers that write
            :math:`\nabla D` have it.

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

    def __init__(
        self, weight: float = 10.0, *, slope: float = 1.0, gradient_of: GradientTarget = "output"
    ) -> None:
        _check_settings(weight, slope, gradient_of)
        self.weight, self.slope, self.gradient_of = weight, slope, gradient_of

    def __repr__(self) -> str:
        return f"GradientPenalty({self.weight}, slope={self.slope}, gradient_of={self.gradient_of!r})"

    def __call__(
        self,
        critic: Critic,
        real_x: Float[Tensor, "batch *event"],
        generated_x: Float[Tensor, "batch *event"],
    ) -> Float[Tensor, ""]:
        """Return the penalty at random points between the pairs.

        Raises:
            ValueError: if the two batches differ in shape, or the critic gives more than one number a row.
        """
        if real_x.shape != generated_x.shape:
            raise ValueError(
                f"Expected real and generated data of one shape, to be paired; got {tuple(real_x.shape)} and "
                f"{tuple(generated_x.shape)}. Draw as many of each."
            )
        x = torch.lerp(generated_x.detach(), real_x.detach(), _one_a_row(real_x))
        norm = _gradients(critic, x, self.gradient_of).norm(dim=1)
        return self.weight * (norm - self.slope).square().mean()


@final
class DRAGAN(Penalty):
    r"""The pull of slopes towards one around real data; generated data are not used.

    .. math:: \lambda\, E\big(\|\nabla c(x + (1 - \alpha)\, \delta)\|_2 - k\big)^2, \qquad \alpha \sim U(0, 1),

    with noise :math:`\delta`: `batch_noise` is what the authors published, and any function of the batch may stand
    for it, `lambda x: 0.1 * torch.randn_like(x)`.

    Args:
        weight: :math:`\lambda`.
        noise: Maps real data to noise of the same shape.
        slope: :math:`k`.
        gradient_of: As for `GradientPenalty`; the authors' code has the output's.

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
        _check_settings(weight, slope, gradient_of)
        self.weight, self.slope, self.gradient_of = weight, slope, gradient_of
        self.noise = batch_noise if noise is None else noise

    def __repr__(self) -> str:
        noise = getattr(self.noise, "__name__", repr(self.noise))
        return f"DRAGAN({self.weight}, noise={noise}, slope={self.slope}, gradient_of={self.gradient_of!r})"

    def __call__(
        self,
        critic: Critic,
        real_x: Float[Tensor, "batch *event"],
        generated_x: Float[Tensor, "batch *event"],
    ) -> Float[Tensor, ""]:
        """Return the penalty at random points between real data and their noisy copies.

        Raises:
            ValueError: if the noise has another shape, or the critic gives more than one number a row.
        """
        x = real_x.detach()
        noise = self.noise(x)
        if noise.shape != x.shape:
            raise ValueError(
                f"Expected noise of the data's shape, {tuple(x.shape)}; got {tuple(noise.shape)}. "
                "Draw it like torch.randn_like(x)."
            )
        norm = _gradients(critic, x + (1 - _one_a_row(x)) * noise, self.gradient_of).norm(dim=1)
        return self.weight * (norm - self.slope).square().mean()


@final
class R1(Penalty):
    r"""The squared slope at real data, :math:`\tfrac{\gamma}{2} E_{data} \|\nabla c(x)\|_2^2`.

    Generated data are not used. It lets the critic be flat where the generator has arrived, which the penalties around
    slope one forbid.

    Args:
        weight: :math:`\gamma`.
        gradient_of: As for `GradientPenalty`; the paper has the output's.

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
        _check_settings(weight, 0.0, gradient_of)
        self.weight, self.gradient_of = weight, gradient_of

    def __repr__(self) -> str:
        return f"R1({self.weight}, gradient_of={self.gradient_of!r})"

    def __call__(
        self,
        critic: Critic,
        real_x: Float[Tensor, "batch *event"],
        generated_x: Float[Tensor, "batch *event"],
    ) -> Float[Tensor, ""]:
        """Return the penalty at the real data.

        Raises:
            ValueError: if the critic gives more than one number a row.
        """
        gradients = _gradients(critic, real_x.detach(), self.gradient_of)
        return self.weight / 2 * gradients.square().sum(1).mean()


def batch_noise(x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
    """Return noise uniform between zero and half the standard deviation of all numbers in the batch.

    Example:
        >>> bool((batch_noise(torch.tensor([[-1.0], [1.0]])) <= 0.5).all())
        True
    """
    return 0.5 * x.std(correction=0) * torch.rand_like(x)


def clip_weights(critic: nn.Module, bound: float = 0.01) -> None:
    r"""Clip every parameter of a critic to :math:`[-bound, bound]`, in place: the first Wasserstein GAN's constraint.

    It is no penalty and has no place inside a loss: a parameter must not change between a forward pass and its
    gradient. Call it after each step of the optimiser, which does so by itself once told.

    Args:
        critic: Whose parameters are changed; buffers stay.
        bound: The largest size left.

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
    if not bound > 0:
        raise ValueError(f"Expected a positive bound; got {bound}. The first paper has 0.01.")
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.clamp_(-bound, bound)


def _one_a_row(x: Tensor) -> Tensor:
    """Return uniform numbers that broadcast over each row's event."""
    return torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)


def _gradients(critic: Critic, x: Tensor, gradient_of: GradientTarget) -> Float[Tensor, "batch dim"]:
    """Return each row's gradient with respect to its own datum, differentiable once more unless under `no_grad`."""
    x = x.detach().requires_grad_()
    is_training = torch.is_grad_enabled()
    with torch.enable_grad():
        output = critic(x)
        if output.shape[:1] != x.shape[:1] or output.numel() != len(x):
            raise ValueError(
                f"Expected a critic output of shape ({len(x)},) or ({len(x)}, 1, ..., 1) for data of shape "
                f"{tuple(x.shape)}; got {tuple(output.shape)}. Give the critic one output a row."
            )
        if gradient_of == "probability":
            output = output.sigmoid()
        # A row's output depends on its own datum alone, so the sum's gradient holds every row's own.
        (gradients,) = torch.autograd.grad(output.sum(), x, create_graph=is_training)
    return gradients.reshape(len(x), -1)


def _check_settings(weight: float, slope: float, gradient_of: str) -> None:
    if not weight >= 0 or not slope >= 0:
        raise ValueError(f"Expected a weight and a slope of at least 0; got {weight=}, {slope=}.")
    if gradient_of not in ("output", "probability"):
        raise ValueError(f'Expected gradient_of="output" or "probability"; got {gradient_of!r}.')
